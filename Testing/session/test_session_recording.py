"""A recording of the wire that stops in mid-session: the session goes on, and a person hears of it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from IntraopMRILib.cli import run
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.journal import Journal
from IntraopMRILib.session.links import Link, Links
from IntraopMRILib.session.updates import Problem, Update
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.simulate.kspace import Scan
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.recorder import Direction, Recorder, Recording
from IntraopMRIReconstructionLib.wire.replay import ReplayServer
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import AS_SENT, PeerProfile, facts_of, profile_named
from peers.waiting import until


def test_what_a_peer_was_taken_for_is_in_the_record() -> None:
    journal = Journal("patient", "test")
    with Server() as server:
        links = Links("patient", journal, lambda _update: None, {})
        links.connect(None, Link("127.0.0.1", server.port, profile_named("Plus")), None)
        links.close()
    assert any(f"{server.port} (Plus)" in event.text for event in journal.record.events if event.kind == "connected")


def test_a_damaged_recording_is_replayed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_session", lambda *_: None)
    file = tmp_path / "scanner.mirec"
    with Recorder(file) as recorder:
        recorder.about("scanner", facts_of(AS_SENT))
        recorder.tap("scanner", Direction.RECEIVED, bytes(58), b"body", 0.0, 0.0)
    for torn, said in ((b"", ""), (b"torn", f"{file} is damaged: 4 bytes are no whole message\n")):
        with file.open("ab") as stream:
            stream.write(torn)
        run.run_replay(cast(Plan, None), tmp_path, tmp_path, None, 1.0, 0.0)
        assert capsys.readouterr().err == said


LPS = PeerProfile("a tracker in LPS", pose_coordinate="LPS")


def recorded_session(folder: Path, profile: PeerProfile) -> Pose:
    """A scanner and a tracker are recorded; the pose as it was shown then."""
    with ExitStack() as stack:
        taps = {part: stack.enter_context(Recorder(folder / f"{part}.mirec")) for part in ("scanner", "tracker")}
        scanner, tracker = stack.enter_context(Server()), stack.enter_context(Server())
        links = Links("patient", Journal("patient", "test"), lambda _update: None, taps)
        links.connect(Link("127.0.0.1", scanner.port), Link("127.0.0.1", tracker.port, profile), None)
        stack.callback(links.close)
        assert tracker.wait_for_peer(10.0)
        assert scanner.wait_for_peer(10.0)
        scanner.send(codec.StatusMessage(device="Scanner"))
        matrix = np.eye(4)
        matrix[:3, 3] = 10.0, 20.0, 30.0
        tracker.send(codec.TransformMessage(device="pointer", matrix=matrix))
        return first_pose(links)


def first_pose(links: Links) -> Pose:
    poses: list[Pose | None] = []
    until(lambda: poses.append(links.pose()) or poses[-1] is not None)  # type: ignore[func-returns-value]
    assert poses[-1] is not None
    return poses[-1]


def replayed(folder: Path, monkeypatch: pytest.MonkeyPatch, profiles: dict[str, PeerProfile]) -> Pose:
    """The pose that a replay shows."""
    seen: list[Pose] = []

    def connected(_plan: object, scanner: Link, tracker: Link, *_rest: object) -> None:
        links = Links("patient", Journal("patient", "test"), lambda _update: None, {})
        links.connect(scanner, tracker, None)
        try:
            seen.append(first_pose(links))
        finally:
            links.close()

    monkeypatch.setattr(run, "run_session", connected)
    run.run_replay(cast(Plan, None), folder, folder, None, 1.0, 0.0, profiles)
    return seen[0]


def test_a_replay_takes_its_peers_for_what_they_were_taken_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = recorded_session(tmp_path, LPS)
    assert shown.ras_from_tool[:3, 3].tolist() == [-10.0, -20.0, 30.0]
    np.testing.assert_array_equal(replayed(tmp_path, monkeypatch, {}).ras_from_tool, shown.ras_from_tool)
    # A person may say otherwise.
    as_sent = replayed(tmp_path, monkeypatch, {"tracker": AS_SENT})
    assert as_sent.ras_from_tool[:3, 3].tolist() == [10.0, 20.0, 30.0]
    assert not capsys.readouterr().err


def test_a_recording_of_before_is_replayed_and_what_it_lacks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Recorder, "about", lambda *_: None)
    recorded_session(tmp_path, LPS)
    assert replayed(tmp_path, monkeypatch, {"tracker": LPS}).ras_from_tool[0, 3] == -10.0
    assert "what the scanner was taken for" in capsys.readouterr().err
    assert replayed(tmp_path, monkeypatch, {}).ras_from_tool[0, 3] == 10.0
    assert "what the tracker was taken for: 'as sent' is used" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    told: list[Update] = []
    journal = Journal("patient", "test")
    with Recorder(tmp_path / "tracker.rec") as recorder, Server() as server:
        recorder._file.close()
        recorder._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        links = Links("patient", journal, told.append, {"tracker": recorder})
        links.connect(None, Link("127.0.0.1", server.port), None)
        try:
            assert links.tracker is not None
            assert server.wait_for_peer(10.0)
            for text in ("first", "second"):
                server.send(codec.StringMessage(device="x", text=text))
                assert links.tracker.receive(10.0) is not None
        finally:
            links.close()
    (problem,) = told
    assert isinstance(problem, Problem)
    assert not problem.fatal
    assert "No space left" in problem.text
    assert any("No space left" in event.text for event in journal.record.events)


@pytest.mark.parametrize("whole", [True, False])
def test_a_replay_says_that_the_recording_is_over(
    tmp_path: Path, plan: Plan, scans: dict[str, Scan], whole: bool
) -> None:
    """Its end is no scanner that does not answer, and what was cut off is given up at once."""
    scan, file = scans["T1 native"], tmp_path / "scanner.mirec"
    messages: list[codec.Message] = [codec.StatusMessage(device="Scanner")]
    if not whole:
        messages += [*messages_from_encoding(scan.encoding), message_from_acquisition(next(iter(scan.blocks())))]
    with Recorder(file) as recorder:
        for message in messages:
            encoded = codec.encode(message)
            recorder.tap("scanner", Direction.RECEIVED, encoded[:58], encoded[58:], 0.0, 0.0)
    with Recording(file) as kept, ReplayServer(kept, None) as server, Session(plan) as session:
        session.connect(Link("127.0.0.1", server.port, recorded=True))
        until(lambda: session.over)
        assert session.why_silent() == "; the recording is over"
        told = [update.text for update in session.drain() if isinstance(update, Problem)]
        events = [event.text for event in session.journal.record.events]
    assert "the recording of the scanner is over" in events
    assert not any("no answer" in text for text in events)
    assert [text.partition(": ")[2] for text in told] == ([] if whole else ["the recording is over"])
