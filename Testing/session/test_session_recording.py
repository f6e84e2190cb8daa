"""A recording of the wire that stops in mid-session: the session goes on, and a person hears of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from IntraopMRILib.cli import run
from IntraopMRILib.session import Plan
from IntraopMRILib.session.journal import Journal
from IntraopMRILib.session.links import Link, Links
from IntraopMRILib.session.updates import Problem, Update
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.recorder import Direction, Recorder
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import profile_named


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
        recorder.tap("scanner", Direction.RECEIVED, bytes(58), b"body", 0.0, 0.0)
    for torn, said in ((b"", ""), (b"torn", f"{file} is damaged: 4 bytes are no whole message\n")):
        with file.open("ab") as stream:
            stream.write(torn)
        run.run_replay(cast(Plan, None), tmp_path, tmp_path, None, 1.0, 0.0)
        assert capsys.readouterr().err == said


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
