"""A section of page 6: the session of the written report as DICOM objects, and their way to the archive.

Both work in the background and can be cancelled. A new scan takes back the report, and with it what may be saved. The
archive's commitment to what it has stored is waited for beside everything else, and not for long.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from IntraopMRIReconstructionLib.data import Progress
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.scene.panel import install
from IntraopMRIReconstructionLib.scene.task import BackgroundTask
from slicer.i18n import tr as _

from ...report.dicom.packages import missing
from ...session.dicom import DICOM, save
from ...workflow.record import SessionRecord, write_record
from .page import offer

#: So long an archive may take to look at what it has, s; later than that nobody reads the answer.
COMMITMENT_S = 60.0


class ArchiveSection:
    """Adds itself to ``layout`` of ``page`` at a place. Call :meth:`refresh` whenever something changed."""

    def __init__(self, page: Any, layout: Any, place: int) -> None:
        self._page, self._running = page, page.running
        self._widget = slicer.util.loadUI(page.panel.resourcePath("UI/ArchiveSection.ui"))
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self._widget.setMRMLScene(slicer.mrmlScene)
        layout.insertWidget(place, self._widget)
        vars(page.ui).update(vars(self.ui))
        self.ui.saveDicomButton.connect("clicked()", self.save)
        self.ui.sendDicomButton.connect("clicked()", self.send)
        #: The report that the objects belong to, and what came of saving and sending.
        self._of, self._said = "", ""
        self._task: Any = None
        #: Waits for the archive's commitment.
        self._asking: BackgroundTask | None = None

    def refresh(self) -> None:
        """What can be done now, and what was done."""
        running = self._running
        if self._of and self._of != running.reportPath:
            self._of = self._said = ""
            self.close()
            if self._task is not None and self._task is running.task:
                running.cancel()
        busy = "" if running.task is None and self._asking is None else _("other work is under way")
        unwritten = "" if running.reportPath else _("write the report first")
        offer(self.ui.saveDicomButton, unwritten, "" if running.connected else _("the session has ended"), busy)
        offer(self.ui.sendDicomButton, "" if self._of else _("save the objects first"), busy)
        text = self._said or ("" if running.reportPath else _("Write the report first: the objects say what it says."))
        self.ui.archiveLabel.text = text

    def tick(self) -> None:
        """Progress."""
        if self._task is not None and self._task is self._running.task:
            self._page.panel.askRefresh()
        asking = self._asking
        if asking is not None and asking.poll() and self._asking is asking:
            self._asking = None
            self._page.panel.askRefresh()

    def close(self) -> None:
        """Nobody waits for the archive any more."""
        if self._asking is not None:
            self._asking.abandon()
            self._asking = None

    def save(self) -> None:
        """Write the objects beside the report; what is missing is installed when the person agrees."""
        running, report, record = self._running, self._running.reportPath, self._page.record
        plan, gathered, folder = running.session.plan, running.gathered.copy(), Path(report).parent

        def work(progress: Progress) -> tuple[str, SessionRecord]:
            text = save(gathered, record, plan, folder / DICOM, progress).text
            return text, _noted(record, "dicom", text, folder)

        def finished(made: tuple[str, SessionRecord]) -> None:
            if running.reportPath == report:
                self._of, self._said = report, _("Saved: {text}").format(text=made[0])
                self._page.record = made[1]
                running.session.journal.event("dicom", made[0])

        self._start(_("saving DICOM"), ("highdicom",), work, finished)

    def send(self) -> None:
        """Send what was saved; the record says what came of it, also when it was cancelled."""
        p, running, report, record = self._page.parameters, self._running, self._of, self._page.record
        address, title, own, folder = p.archiveAddress, p.archiveTitle, p.ownTitle, Path(report).parent
        port = p.commitmentPort

        def work(progress: Progress) -> tuple[Any, SessionRecord]:
            from ...report.dicom.send import Archive, send
            from ...report.dicom.write import files_of

            host, _colon, port = address.strip().rpartition(":")
            archive = Archive(host, int(port) if port.isdecimal() else 0, title.strip(), own.strip())
            outcome = send(files_of(folder / DICOM), archive, progress)
            return outcome, _noted(record, "sent", outcome.text, folder)

        def finished(made: tuple[Any, SessionRecord]) -> None:
            outcome, noted = made
            if running.reportPath != report:
                return
            self._page.record = noted
            running.session.journal.event("sent", outcome.text)
            if outcome.complete:
                self._said = _("Sent: {text}").format(text=outcome.text)
            else:
                running.problem = self._said = _("Not everything was stored: {text}").format(text=outcome.text)
            if port and outcome.stored and not outcome.cancelled:
                self._ask(outcome, port, folder)
            self._page.panel.askRefresh()

        # Told also when it was cancelled: what has arrived there has arrived.
        self._start(_("sending DICOM"), ("highdicom", "pynetdicom"), work, finished, finished)

    def _ask(self, outcome: Any, port: int, folder: Path) -> None:
        """Wait for the archive's commitment beside everything else; what came of it stands below what was sent."""
        sent = self._said
        started: list[BackgroundTask] = []

        def work() -> Any:
            from ...report.dicom.commit import ask

            return ask(outcome, port, COMMITMENT_S, lambda _fraction, _what: not any(t.abandoned for t in started))

        def told(text: str) -> None:
            self._said = f"{sent}\n{text}"
            self._page.record = _noted(self._page.record, "committed", text, folder)
            self._running.session.journal.event("committed", text)

        def finished(commitment: Any) -> None:
            told(_("Storage commitment: {text}").format(text=commitment.text))

        self._said = f"{sent}\n{_('Waiting for storage commitment ...')}"
        self._asking = BackgroundTask(_("waiting for storage commitment"), work, finished, told)
        started.append(self._asking)

    def _start(
        self,
        what: str,
        modules: tuple[str, ...],
        work: Callable[[Progress], Any],
        finished: Callable[[Any], None],
        discarded: Callable[[Any], None] | None = None,
    ) -> None:
        running = self._running
        try:
            install(missing(*modules), "IntraopMRI")
        except IntraopError as error:
            running.problem = str(error)
        else:
            self._task = running.startTold(what, work, finished, discarded)
        self._page.panel.refresh()


def _noted(record: SessionRecord, kind: str, text: str, folder: Path) -> SessionRecord:
    """The record with what was done, written beside the report."""
    noted = record.with_event(kind, text)
    write_record(noted, folder / "session.json")
    return noted
