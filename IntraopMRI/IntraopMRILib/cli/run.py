"""A session in the terminal against its peers, or against what one has recorded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.wire.recorder import Recorder, Recording
from IntraopMRIReconstructionLib.wire.replay import ReplayServer
from IntraopMRIReconstructionLib.wire.trust import AS_SENT, PeerProfile, profile_from

from ..session import Link, Plan, Session
from ..session.links import PARTS
from .follow import follow
from .heat import Heat
from .outcome import Outcome
from .results import RECORDING

#: Ending of the files of a recorded session's wire traffic.
SUFFIX = ".mirec"


def run_session(
    plan: Plan,
    scanner: Link,
    tracker: Link | None,
    live: Link | None,
    folder: Path,
    wait_s: float = 60.0,
    navigate_s: float = 10.0,
    record: bool = False,
    heat: Heat | None = None,
) -> Outcome:
    """Run until everything that the plan asks for is assessed, follow the pointer, then write the results.

    ``heat``: follow an ablation as well. ``record``: keep the wire traffic of each link in ``folder``/recording, for
    :func:`run_replay`. What alone cannot be assessed takes nothing else along: see :class:`Outcome`.
    Raises an IntraopError with one sentence when a peer cannot be reached, falls silent, or nothing is registered.
    """
    links = {"scanner": scanner, "tracker": tracker, "live": live}
    with ExitStack() as recorders:
        taps = {}
        if record:
            (folder / RECORDING).mkdir()
            for part in (part for part, link in links.items() if link is not None):
                taps[part] = recorders.enter_context(Recorder(folder / RECORDING / f"{part}{SUFFIX}"))
        with Session(plan, taps=taps) as session:
            session.connect(scanner, tracker, live)
            return follow(plan, session, folder, wait_s, navigate_s if tracker is not None else 0.0, heat)


def run_replay(
    plan: Plan,
    recording: Path,
    folder: Path,
    speed: float | None,
    wait_s: float,
    navigate_s: float,
    profiles: Mapping[str, PeerProfile] = MappingProxyType({}),
    tool: str = "",
) -> Outcome:
    """The same session again from its recording: ``speed`` times as fast as it was, None as fast as possible.

    ``profiles``: what the recorded peers are taken for by link, otherwise what they were taken for then; recordings of
    before do not say that. ``tool``: see :class:`Link`.
    Raises DataError when ``recording`` holds no scanner's traffic.
    """
    if not (recording / f"scanner{SUFFIX}").is_file():
        raise DataError(f"{recording} holds no scanner{SUFFIX}: name the folder 'recording' of a recorded session")
    with ExitStack() as servers:
        links: dict[str, Link] = {}
        for part in PARTS:
            file = recording / f"{part}{SUFFIX}"
            if file.is_file():
                kept = servers.enter_context(Recording(file))
                if kept.damaged_bytes:
                    print(f"{file} is damaged: {kept.damaged_bytes} bytes are no whole message", file=sys.stderr)
                port = servers.enter_context(ReplayServer(kept, speed)).port
                profile = profiles.get(part) or _recorded_profile(kept, part)
                links[part] = Link("127.0.0.1", port, profile, tool, recorded=True)
        return run_session(plan, links["scanner"], links.get("tracker"), links.get("live"), folder, wait_s, navigate_s)


def _recorded_profile(recording: Recording, part: str) -> PeerProfile:
    """What the peer was taken for when it was recorded; says so where the recording does not tell."""
    found = [profile_from(recording.about.get(name, {})) for name in recording.connections]
    known = next((profile for profile in found if profile is not None), None)
    if known is None and len(recording):
        print(f"the recording does not say what the {part} was taken for: '{AS_SENT.name}' is used", file=sys.stderr)
    return known or AS_SENT
