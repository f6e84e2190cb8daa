"""A planned implant whose entry and tip are swapped is said at the start: its numbers would be of the wrong ends."""

from __future__ import annotations

from dataclasses import replace

from IntraopMRILib.session import Session
from IntraopMRILib.session.updates import Problem
from session.small_world import SmallWorld


def test_a_swapped_screw_is_told_and_written_down() -> None:
    plan = SmallWorld().spine()
    screw, loose = plan.trajectories
    # As drawn, the screw of this world runs from behind: nothing is said.
    for swapped in (False, True):
        ends = (screw.tip_ras_mm, screw.entry_ras_mm) if swapped else (screw.entry_ras_mm, screw.tip_ras_mm)
        drawn = replace(screw, entry_ras_mm=ends[0], tip_ras_mm=ends[1])
        with Session(replace(plan, trajectories=(drawn, loose))) as session:
            session.connect(None)
            said = [update for update in session.drain() if isinstance(update, Problem)]
            noted = [event.text for event in session.journal.record.events if event.kind == "warning"]
        assert len(said) == len(noted) == swapped
        if swapped:
            assert screw.name in said[0].text
            assert not said[0].fatal
