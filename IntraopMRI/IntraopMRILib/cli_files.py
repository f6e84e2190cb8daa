"""A session from files alone, without scanner and network: for data that were collected before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.simulate.volumes import read_volume

from .cli_run import Outcome, follow
from .scan_facts import TAKEN_FROM, DicomFacts, local_text, local_utc_s, read_facts, read_folder
from .session import Plan, Session
from .session_updates import Role

PROCEDURE = "Tumour resection, control on files"
#: A DICOM file says so behind this many bytes (PS3.10, 7.1).
PREAMBLE, MAGIC = 128, b"DICM"


@dataclass(frozen=True)
class CaseFiles:
    """NIfTI, NRRD or DICOM (file or folder with one series) each; ``tumour`` is drawn on the preoperative volume.

    ``label``: value of the enhancing tumour in ``tumour``, None when there is only one. ``patient_id``: empty to take
    that of the DICOM headers. ``native_taken``, ``contrast_taken``: as a person enters them, where no header says.
    """

    preop: Path
    tumour: Path
    native: Path
    contrast: Path
    label: int | None = None
    patient_id: str = ""
    native_taken: str = ""
    contrast_taken: str = ""


def run_files(files: CaseFiles, folder: Path, wait_s: float = 60.0) -> Outcome:
    """Register both scans, assess the residual, write report, record and scene to ``folder``.

    The rules are those of a session with a scanner. Raises an IntraopError with one sentence when something is missing
    or a stage fails; then there is no number.
    """
    plan, scans = read_case_files(files)
    with Session(plan) as session:
        session.connect(None)
        for role, image in scans.items():
            session.offer_scan(image, role)
        return follow(plan, session, folder, wait_s)


def read_case_files(files: CaseFiles) -> tuple[Plan, dict[Role, Image]]:
    """The plan, and both scans with their times. Raises an IntraopError that says what is wrong or missing."""
    preop, header = _read(files.preop)
    native = _scan(files.native, files.native_taken, "native", header)
    contrast = _scan(files.contrast, files.contrast_taken, "contrast", header)
    named = (files.patient_id, header.patient_id, native.patient_id, contrast.patient_id)
    patient = next((name for name in named if name), "")
    if not patient:
        raise SessionError("no file says whose images these are: name the patient with --patient")
    tumour = _tumour(files.tumour, files.label)
    known = replace(preop, patient_id=header.patient_id, metadata=header.metadata)
    plan = Plan(patient, PROCEDURE, known, tumour, patient=header.patient)
    return plan, {"native": native, "contrast": contrast}


def _read(path: Path) -> tuple[Image, DicomFacts]:
    image = read_volume(path)
    header = None
    if path.is_dir():
        header = read_folder(path)
    else:
        with path.open("rb") as file:
            if file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC:
                header = read_facts(path)
    return image, header or DicomFacts()


def _scan(path: Path, entered: str, role: Role, before: DicomFacts) -> Image:
    image, header = _read(path)
    if different := header.contradicts(before.patient):
        raise SessionError(f"{path} and the preoperative volume are of two patients: {different}")
    taken, source = local_utc_s(entered), "entered by hand"
    if header.taken_utc_s is not None:
        if taken is not None:
            raise SessionError(
                f"--{role}-taken says '{entered}', but the header of {path} says "
                f"{local_text(header.taken_utc_s)}: leave the option out"
            )
        taken, source = header.taken_utc_s, header.taken_from
    if taken is None:
        raise SessionError(
            f"{path} does not say when it was taken, and without it nothing shows which scan was first: give the time "
            f"with --{role}-taken 'YYYY-MM-DD HH:MM'"
        )
    return replace(
        image,
        name=header.series or image.name,
        acquired_utc_s=taken,
        patient_id=header.patient_id,
        metadata={**header.metadata, TAKEN_FROM: source},
    )


def _tumour(path: Path, label: int | None) -> Image:
    """The enhancing tumour as 1; what other values of a segmentation mean differs from one tool to the next."""
    image = read_volume(path)
    values = [value for value in np.unique(image.array).tolist() if value != 0]
    if label is None and len(values) > 1:
        shown = ", ".join(f"{value:g}" for value in values[:8])
        raise SessionError(
            f"{path} holds {len(values)} values besides 0 ({shown}): name that of the enhancing tumour with --label"
        )
    if label is not None and label not in values:
        raise SessionError(f"{path} holds no voxel of the value {label}: its values are {values[:8]}")
    inside = image.array != 0 if label is None else image.array == label
    return image.with_array(inside.astype(np.uint8))
