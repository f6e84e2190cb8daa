"""Adds to the results of a session what a person has drawn on its scan since: numbers, record and report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError

from ..report.html import Picture, render
from ..session.dicom import DICOM, PIECE, REPORT, renew_report
from ..session.files import plan_of_files, plan_of_volume, read_outline, read_points
from ..session.journal import Journal
from ..session.measures import PROPOSED, Drawn, Found, Scan, measured, rano_of
from ..session.propose import with_review
from ..workflow.record import SessionRecord, as_document, read_record, write_results
from .results import PROPOSAL


def add_measure(
    results: Path,
    case: Path | None,
    kind: str,
    points: Path | None,
    outline: Path | None,
    option: str,
    by: str,
    preop: Path | None = None,
    before: Mapping[str, Path] | None = None,
) -> Found:
    """Measure on the registered scan of a finished session and write its record and report anew.

    ``results``: folder of the session; ``points`` (.mrk.json) and ``outline`` (label) in the frame of its scan. ``by``:
    who has drawn it and confirms that the overlay of this registration fits. ``preop``: the preoperative volume, with
    what was drawn ``before`` surgery by the names of DRAWN_BEFORE, when there is no ``case`` folder. Raises an
    IntraopError: nothing is written then.
    """
    if not by.strip():
        raise SessionError("name the person who has drawn this and confirms the registration: --by NAME")
    record = read_record(results / "session.json")
    if (case is None) == (preop is None):
        raise SessionError(
            "say what was before the operation: --case FOLDER, or --preop VOLUME and what was drawn on it"
        )
    if case is not None and before:
        raise SessionError(
            f"a case folder holds what was drawn before: leave out --{' --'.join(before)}, or use --preop"
        )
    if preop is not None:
        plan = plan_of_volume(preop, record.patient_id, kind, before or {})
    else:
        assert case is not None
        plan = plan_of_files(case, kind)
    if plan.patient_id != record.patient_id:
        raise SessionError(f"the case is of patient '{plan.patient_id}', the session of '{record.patient_id}'")
    image_uid, scan = _scan(record)
    drawn = Drawn(
        image_uid,
        () if points is None else read_points(points),
        None if outline is None else read_outline(outline),
        option,
    )
    found = measured(plan, kind, drawn, scan)
    if kind == PROPOSED and drawn.label is not None and (results / PROPOSAL).is_file():
        found = with_review(found, read_outline(results / PROPOSAL), drawn.label, record)
    journal = Journal.resumed(record)
    journal.event("confirmed", f"the registration, by {by.strip()}, for what was drawn after the session")
    journal.drawn(found, image_uid, by.strip())
    renewed = _renew_dicom(journal, results / DICOM)
    renew_results(journal.record, results)
    if not renewed:
        (results / DICOM / REPORT).unlink()
    return found


def renew_results(record: SessionRecord, results: Path) -> None:
    """The record and the report of a finished session anew, with its pictures. Raises SessionError."""
    pictures = [_picture(path) for path in sorted(results.glob("*.png"), key=os.path.getmtime)]
    write_results(record, render(as_document(record), pictures), results)


def _picture(path: Path) -> Picture:
    """A picture of the results; the name of the file says which piece it shows."""
    number = path.stem.removeprefix(PIECE)
    piece = int(number) if path.stem.startswith(PIECE) and number.isdecimal() else 0
    return Picture(path.read_bytes(), f"Piece {piece}" if piece else path.stem, piece)


def _renew_dicom(journal: Journal, folder: Path) -> bool:
    """The DICOM report says the new numbers too; False where it cannot, and has to go since it contradicts them."""
    if not (folder / REPORT).is_file():
        return True
    try:
        renew_report(journal.record, folder)
    except IntraopError as error:
        journal.event("dicom", f"the report was removed, it did not know the new numbers: {error}")
        return False
    journal.event("dicom", "the report was written anew")
    return True


def _scan(record: SessionRecord) -> tuple[str, Scan]:
    """Uid of the registered scan, and where the preoperative volume lies in it. SessionError without one."""
    registration = record.registration
    if registration is None or registration.verdict.level is Level.REFUSED:
        why = "was not registered" if registration is None else f"was {registration.verdict.text}"
        raise SessionError(f"the scan of this session {why}: nothing is measured on it")
    image = next((image for image in record.images if image.uid == registration.fixed_uid), None)
    if image is None:
        raise SessionError("the record does not hold the scan that was registered: run the session again")
    pose = np.array(registration.intraop_from_preop)
    return image.uid, Scan(pose, registration.error_mm or 0.0, max(image.spacing_mm), rano_of(record.residual))
