"""Commands to the scanner go through its state machine: what it refuses or never answers is told and written down."""

from __future__ import annotations

import pytest
from IntraopMRILib.session import Session
from IntraopMRILib.session.updates import Problem
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.wire.messages_text import StatusMessage, StringMessage
from IntraopMRIReconstructionLib.wire.transport import Server
from peers.waiting import until
from session.conftest import wait_for

WAIT_S = 10.0


@pytest.fixture
def console(session: Session, scanner: Server) -> Console:
    return Console(session, scanner)


class Console:
    """What sits at the scanner: reads commands, answers as it is told to."""

    def __init__(self, session: Session, scanner: Server) -> None:
        self.session, self.scanner = session, scanner

    def command(self) -> str:
        """The next command; it is acknowledged."""
        message = self.scanner.expect(WAIT_S, "STRING").message
        assert isinstance(message, StringMessage)
        assert message.device.startswith("CMD_")
        self.scanner.send(StringMessage(device=f"ACK_{message.device[4:]}", text="OK"))
        return message.text

    def says(self, phase: str, code: int = 1, text: str = "") -> None:
        self.scanner.send(StatusMessage(device=phase, code=code, text=text))

    def shows(self, words: str) -> None:
        until(lambda: self.session.scanner_state == words)

    def journal(self) -> str:
        return "\n".join(event.text for event in self.session.journal.record.events if event.kind == "scanner")


def test_a_scan_runs_through_acknowledgement_and_status(console: Console) -> None:
    session = console.session
    assert session.scanner_state == "not heard from"
    session.scan("T1 native")
    assert session.scanner_state == "starting up (not confirmed by the scanner)"
    assert console.command() == "START_UP"
    console.says("START_UP")
    assert console.command() == "START_SEQUENCE T1 native"
    console.says("START_SEQUENCE")
    console.shows("scanning")
    with pytest.raises(SessionError, match="the scanner is: scanning"):
        session.scan("T1 contrast")
    session.stop_scan()
    assert console.command() == "STOP_SEQUENCE"
    console.says("STOP_SEQUENCE")
    console.shows("ready")
    written = console.journal()
    for words in ("START_SEQUENCE T1 native is sent as CMD_0002", "scanning: STATUS START_SEQUENCE", "ready: "):
        assert words in written


def test_a_refused_scan_is_told_in_the_words_of_the_scanner(console: Console) -> None:
    console.says("STOP_SEQUENCE")
    console.shows("ready")
    console.session.scan("PET")
    assert console.command() == "START_SEQUENCE PET"
    console.says("START_SEQUENCE", 4, "there is no scan 'PET'")
    problem = wait_for(console.session, Problem)
    assert problem.fatal
    assert "START_SEQUENCE was refused" in problem.text
    assert "there is no scan 'PET'" in problem.text
    console.shows("ready (not confirmed by the scanner)")


def test_a_scanner_that_never_answers_is_told(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    control = console.session.control
    assert control is not None
    ahead = control._now
    console.session.scan()
    monkeypatch.setattr(control, "_now", lambda: ahead() + control.dialect.answer_s + 1.0)
    problem = wait_for(console.session, Problem)
    assert problem.fatal
    assert "START_UP (CMD_0001) was not acknowledged within 2 s" in problem.text
    assert console.session.scanner_state.startswith("does not answer")


def test_an_emergency_and_manual_mode_stop_all_but_stop(console: Console) -> None:
    console.says("Console", 14)
    console.shows("manual mode at the console")
    with pytest.raises(SessionError, match="manual mode"):
        console.session.scan()
    console.says("Magnet", 3, "quench")
    console.shows("emergency")
    assert wait_for(console.session, Problem, lambda problem: "quench" in problem.text).fatal
    with pytest.raises(SessionError, match="emergency"):
        console.session.scan()
    console.session.stop_scan()
    assert console.command() == "STOP_SEQUENCE"


def test_a_lost_link_is_told_and_is_no_ready_scanner(console: Console) -> None:
    console.says("STOP_SEQUENCE")
    console.shows("ready")
    console.scanner.close()
    problem = wait_for(console.session, Problem)
    assert not problem.fatal
    assert "does not answer" in problem.text


def test_no_scanner_no_command(plan: object) -> None:
    with Session(plan) as session, pytest.raises(SessionError, match="no scanner is connected"):  # type: ignore[arg-type]
        session.scan()
