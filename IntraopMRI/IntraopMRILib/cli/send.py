"""Sends the DICOM objects of a finished session to an archive, with a progress bar, and notes it in the record.

Asked to, it waits for the archive's commitment to what it has stored.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from IntraopMRIReconstructionLib.errors import SessionError

from ..report.dicom.commit import ask
from ..report.dicom.send import Archive, send
from ..report.dicom.write import files_of
from ..session.dicom import DICOM
from ..session.journal import Journal
from ..session.links import Link
from ..workflow.record import read_record
from .measure import renew_results


def send_results(
    results: Path, to: Link, title: str, own_title: str, wait_s: float, reply_port: int | None = None
) -> str:
    """Send everything in ``results``/dicom; returns what came of it in one line, and in a second what was committed.

    ``reply_port``: ask for storage commitment, see :func:`.report.dicom.commit.ask`; None: do not. Raises SessionError
    when nothing could be sent, and when not everything was stored or committed: the record says so then too.
    """
    from rich.progress import Progress

    record = read_record(results / "session.json")
    files = files_of(results / DICOM)
    if not files:
        raise SessionError(f"'{results}' holds no DICOM objects: run the session again with highdicom installed")
    archive = Archive(to.host, to.port, title, own_title, answer_s=wait_s)
    journal = Journal.resumed(record)
    with Progress(transient=True) as bars:
        bar = bars.add_task("send", total=1.0)
        stopped = threading.Event()
        # Ctrl+C stops before the next object, so that the record says what has arrived there.
        before = signal.signal(signal.SIGINT, lambda _signal, _frame: stopped.set())

        def show(fraction: float, what: str) -> bool:
            bars.update(bar, completed=fraction, description=what)
            return not stopped.is_set()

        try:
            outcome = send(files, archive, show)
            journal.event("sent", outcome.text)
            renew_results(journal.record, results)
            if not outcome.complete:
                raise SessionError(f"not everything was stored; {outcome.text}")
            if reply_port is None:
                return outcome.text
            commitment = ask(outcome, reply_port, wait_s, show)
        finally:
            signal.signal(signal.SIGINT, before)
    journal.event("committed", commitment.text)
    renew_results(journal.record, results)
    if not commitment.complete:
        raise SessionError(f"everything was stored, not everything was committed; {commitment.text}")
    return f"{outcome.text}\n{commitment.text}"
