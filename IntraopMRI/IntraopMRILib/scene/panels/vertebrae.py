"""Vertebrae on page 4 where the pose of the whole spine was refused: each is judged on its own."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level
from slicer.i18n import tr as _

from ...session.bones import Bone
from ...session.implants import NEIGHBOURS
from ..display import number
from .style import LEVEL_COLORS, colored, sized


class Vertebrae:
    """See :class:`.one_by_one.Things`."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self.headers: tuple[str, ...] = (_("Vertebra"), _("Error"), _("Against neighbours"), _("Decision"))
        self.widths: tuple[int, ...] = (62, 56, 148)
        self.title = _("All vertebrae")
        self.definition = _(
            "Error: how far the parts of the vertebra disagree about its pose (median). Against neighbours: how it has "
            "turned and shifted against each since the scan before surgery"
        )
        self.verbs, self.open, self.basis = (_("Accept"), _("Reject")), False, True
        self.tips = (
            _("The outline lies on this vertebra, and it is the right level: what is planned in it rests on that"),
            _("The outline does not lie on this vertebra: nothing rests on it"),
        )

    def items(self) -> dict[str, Bone]:
        """All that were looked for."""
        return self._running.bones

    def blocked(self) -> str:
        """They are offered as soon as they are there."""
        return ""

    def cells(self, bone: Bone) -> tuple[str, str, str, str]:
        """Name, error, motion against the neighbours, decision."""
        return bone.name, number(bone.found.error_mm, "mm"), " · ".join(_motions(bone)), self.state(bone)

    def words(self, bone: Bone, place: str) -> str:
        """Name, verdict with what speaks against it, error and motion against the neighbours, state."""
        carries = f" ({', '.join(bone.carries)})" if bone.carries else ""
        head = f"{sized(bone.name + carries, 15)}&nbsp;&nbsp;{place}"
        error = escape(_("error {error}").format(error=number(bone.found.error_mm, "mm")))
        motion = escape("; ".join(_("against {motion}").format(motion=motion) for motion in _motions(bone)))
        state = colored(self.state(bone), LEVEL_COLORS[self.level(bone)], 13)
        lines = [head, f"{error}&nbsp;&nbsp;{state}", motion, colored(self.doubt(bone), LEVEL_COLORS[Level.CHECK], 12)]
        return "<br>".join(line for line in lines if line)

    def doubt(self, bone: Bone) -> str:
        """What a person must look at, in one line; empty when nothing speaks against it."""
        rejected = [name for name, _turn, _shift in bone.neighbours if self._bone(name).accepted is False]
        if rejected and bone.offered:
            return _("{name} beside it was rejected: count the levels").format(name=", ".join(rejected))
        # That its neighbours were found as well is why it is offered, and nothing against it.
        against = [r for r in bone.verdict.reasons if r.level is not Level.GOOD and r.name != NEIGHBOURS]
        return "; ".join(f"{reason.name} {number(reason.value, reason.unit)}" for reason in against[:2])

    def state(self, bone: Bone) -> str:
        """What was decided, or may be, in a few words."""
        if bone.accepted:
            return _("Accepted")
        if bone.accepted is False:
            return _("Rejected")
        return _("Decide") if bone.offered else _("Not found")

    def tip(self, bone: Bone) -> list[str]:
        """Verdict in full, and who has decided."""
        return [bone.verdict.text, bone.found.why, _("Now: {basis}").format(basis=bone.basis)]

    def level(self, bone: Bone) -> Level:
        """Only what a person accepted is good."""
        return Level.GOOD if bone.accepted else Level.CHECK

    def middle(self, bone: Bone) -> npt.NDArray[np.float64]:
        """Middle of its outline."""
        return np.asarray(bone.position_mm[0])

    def count(self, waiting: int, offered: int) -> str:
        """Undecided ones in words."""
        return _("{waiting} of {offered} vertebrae undecided").format(waiting=waiting, offered=offered)

    def decide(self, bone: Bone, accepted: bool, by: str) -> str:
        """Into the record, then into the views."""
        decided = self._running.session.decide_bone(bone, accepted, by)
        self._running.view.lone.decided(decided)
        return str(decided.basis)

    def leave(self, _names: str, by: str) -> None:
        """Into the record: nothing rests on those."""
        self._running.session.leave_bones(by)

    def show(self, current: str, _undecided: frozenset[str], hidden: bool) -> None:
        """The current one beside the accepted ones."""
        self._running.view.lone.review("" if hidden else current)

    def _bone(self, name: str) -> Bone:
        return next(bone for bone in self.items().values() if bone.name == name)


def _motions(bone: Bone) -> list[str]:
    """Turn and shift against each neighbour: ``L2 11.9° 1.3 mm``."""
    return [
        f"{name} {number(turn.value, turn.unit)} {number(shift.value, shift.unit)}"
        for name, turn, shift in bone.neighbours
    ]
