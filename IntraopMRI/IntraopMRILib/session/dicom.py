"""From what a session found to its DICOM objects: keeps the newest volumes and structures, and writes them.

The DICOM library is loaded when something is written, so that a panel opens without it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Progress, no_progress
from IntraopMRIReconstructionLib.errors import DataError, SessionError

from ..report.dicom.packages import missing
from ..workflow.record import ImageEntry, SessionRecord, as_document
from .plan import Plan
from .updates import ImageReady, PlanCarried, ResidualFound, Role, ShiftFound, Update

if TYPE_CHECKING:
    from ..report.dicom.case import Case, Structure
    from ..report.dicom.write import Written
    from ..report.parts import Picture

#: Folder of the objects beside the report, and the report among them.
DICOM, REPORT = "dicom", "report.dcm"
#: What names of pictures of a piece of the residual begin with, before its number.
PIECE = "piece-"


class Gathered:
    """The newest results of a session that records do not hold: voxels. Give it every update, in order."""

    def __init__(self) -> None:
        self._scans: dict[Role, Image] = {}
        self._shift: ShiftFound | None = None
        self._residual: ResidualFound | None = None
        self._carried: PlanCarried | None = None

    def take(self, update: Update) -> None:
        """Keep what will be written; a new image withdraws what rested on the one before."""
        if isinstance(update, ImageReady):
            self._scans[update.role] = update.image
            self._shift = self._residual = self._carried = None
        elif isinstance(update, ShiftFound):
            self._shift = update
        elif isinstance(update, ResidualFound):
            self._residual = update
        elif isinstance(update, PlanCarried):
            self._carried = update

    def copy(self) -> Gathered:
        """The same as it is now, for another thread."""
        made = copy.copy(self)
        made._scans = dict(self._scans)
        return made

    def pictures(self) -> list[Picture]:
        """A small picture of each listed piece of the residual, for the report."""
        from ..report.pictures import piece_picture

        scan = self._scans.get("contrast")
        if self._residual is None or scan is None:
            return []
        judged = self._residual.judged
        return [
            piece_picture(piece.number, scan, piece.label, piece.number not in judged)
            for piece in self._residual.assessment.listed
        ]

    def case(self, record: SessionRecord, plan: Plan) -> Case:
        """What is to be written. Raises DataError for an unknown patient, or when it is not of one session."""
        from ..report.dicom.case import Case

        registration = record.registration
        shift = self._shift
        if shift is not None and (registration is None or registration.fixed_uid != shift.image.uid):
            shift = None
        preoperative = plan.preoperative
        if registration is not None and registration.moving_uid != preoperative.uid:
            raise DataError(
                "the registration in the record is of another preoperative volume than that of the plan: no DICOM "
                "object is written"
            )
        return Case(
            as_document(record),
            sorted(self._scans.values(), key=lambda image: [entry.uid for entry in record.images].index(image.uid)),
            preoperative,
            tuple(self._structures(record, shift)),
            None if shift is None else shift.deformable.shift,
        )

    def _structures(self, record: SessionRecord, shift: ShiftFound | None) -> Iterator[Structure]:
        from ..report.dicom.case import Structure

        if self._residual is not None and record.residual is not None and record.residual.volume.value is not None:
            found = self._residual.assessment
            how = "Contrast minus native scan within the carried-over tumour"
            yield Structure("residual", "Residual enhancing tumour", found.residual, how)
            how = "Tumour drawn before surgery, carried over, without the residual"
            yield Structure("resected", "Resected part of the tumour", found.resected, how, by_person=True)
        if shift is not None and shift.deformable.cavity.array.any():
            how = "Dark now, tissue before surgery, by deformable registration"
            yield Structure("cavity", "Resection cavity", shift.deformable.cavity, how)
        fixed = "" if record.registration is None else record.registration.fixed_uid
        if self._carried is not None and self._carried.image.uid == fixed:
            yield from _carried_structures(self._carried, record)


def _carried_structures(carried: PlanCarried, record: SessionRecord) -> Iterator[Structure]:
    """Structures at risk where they may be used: as a person has decided, on the rigid pose where no shift is followed.

    What is offered and nobody has decided on is left out.
    """
    from ..report.dicom.case import Structure

    decisions = {entry.name: entry for entry in record.carried if entry.kind == "risk"}
    for name, (rigid, now) in carried.labels.items():
        decided = decisions.get(name)
        if decided is not None and decided.decision == "open" and now is not None:
            continue
        if decided is not None and decided.decision == "accepted" and now is not None:
            how = f"Carried over with the brain shift, accepted by {decided.decided_by}"
            yield Structure("structure", name, now, how, by_person=True)
        else:
            yield Structure("structure", name, rigid, "Drawn before surgery, by the rigid pose", by_person=True)


def save(
    gathered: Gathered, record: SessionRecord, plan: Plan, folder: Path, progress: Progress = no_progress
) -> Written:
    """Write the objects of a session to ``folder``. From any thread.

    Raises an IntraopError with one sentence; nothing is written then.
    """
    from ..report.dicom.write import write

    # A session that goes on was last complete when somebody decided on it.
    decided = max((event.utc for event in record.events if event.kind == "decision"), default=None)
    case = gathered.case(replace(record, finished_utc=record.finished_utc or decided), plan)
    return write(case, folder, progress)


def possible() -> str:
    """Why the objects cannot be written on this computer, in words; empty when they can."""
    absent = missing("highdicom")
    return f"pip install '{absent[0]}' to get the session as DICOM objects too" if absent else ""


def renew_report(record: SessionRecord, folder: Path) -> None:
    """Write the report in ``folder`` anew from a record that knows more than when the objects were written.

    Raises SessionError when the objects are not those of this record, or not complete.
    """
    from ..report.dicom.case import FRAME, Case
    from ..report.dicom.image import original_slices
    from ..report.dicom.measurements import evidence_of, report
    from ..report.dicom.source import source_of
    from ..report.dicom.write import read_headers, write_whole

    headers, document = read_headers(folder), as_document(record)
    referred = {series for header in headers for series in evidence_of(header)}
    scans = [_without_voxels(entry) for entry in record.images]
    names = Case(document, scans, originals={})
    written = {i.uid: [h for h in headers if h.SeriesInstanceUID == names.series_uid(i)] for i in scans}
    came_as = {i.uid: source_of(i.metadata) for i in scans if not written[i.uid]}
    originals = {uid: source for uid, source in came_as.items() if source and source.series_uid in referred}
    # Where a copy lies, it says itself; its voxels, which would show it, are not here.
    frames = {uid: {FRAME: str(copies[0].FrameOfReferenceUID)} for uid, copies in written.items() if copies}
    scans = [replace(image, metadata=frames.get(image.uid, image.metadata)) for image in scans]
    case = Case(document, scans, originals=originals)
    volumes = {uid: copies for uid, copies in written.items() if copies}
    volumes |= {uid: original_slices(case, source).objects for uid, source in originals.items()}
    scan = volumes.get(case.scan.uid)
    if not scan:
        raise SessionError(f"'{folder}' does not hold the scan that the record is about: run the session again")
    segments = next((h for h in headers if h.Modality == "SEG"), None)
    evidence = [each for image in scans for each in volumes.get(image.uid, ())]
    write_whole(report(case, evidence, scan, segments), folder / REPORT)


def _without_voxels(entry: ImageEntry) -> Image:
    """An image of the record for what does not look at voxels."""
    return Image(np.zeros((1, 1, 1)), np.eye(4), entry.name, uid=entry.uid, metadata=entry.metadata)
