"""Writes every DICOM object of a session to a folder, all or none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from IntraopMRIReconstructionLib.data import Image, Progress, no_progress
from IntraopMRIReconstructionLib.errors import Cancelled, SessionError
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ..folder import replaced
from ..trust import found_parts
from .case import Case
from .image import Slices, slices_of
from .measurements import report
from .registration import deformable, pose_of, rigid
from .segmentation import segmentation

#: Numbers of the volumes' series: the first one, and that of the preoperative volume.
FIRST_SERIES, PREOPERATIVE_SERIES = 101, 100


@dataclass(frozen=True)
class Written:
    """What was written: ``counts`` of objects by what they are, ``study_uid``, ``folder``.

    ``originals``: volumes that were not written, since what was written refers to the slices that they came as;
    ``others``: why that is not so of others that came as DICOM too.
    """

    folder: Path
    study_uid: str
    counts: dict[str, int]
    originals: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In one line for a person."""
        parts = ", ".join(f"{count} {what}" if count > 1 else what for what, count in self.counts.items())
        kept = f"; they refer to the original {' and '.join(self.originals)}" if self.originals else ""
        others = "".join(f"; {why}" for why in self.others)
        return f"{sum(self.counts.values())} DICOM objects ({parts}), study {self.study_uid}{kept}{others}"


def write(case: Case, folder: Path, progress: Progress = no_progress) -> Written:
    """Write volumes, segmentation, registrations and report to ``folder``, which takes the place of an earlier one.

    A registration is written when there is something at both ends: objects of the preoperative volume, or the frame
    of reference that its header named. Raises SessionError when the folder cannot be written or holds other files,
    DataError for what DICOM cannot hold, Cancelled; nothing is left behind then.
    """
    with replacing(folder) as part:
        counts: dict[str, int] = {}
        copies = [image for image in case.scans if case.original(image) is None]
        copies += [case.preoperative] if case.preoperative is not None and case.writes_preoperative else []
        total = sum(len(image.array) for image in copies) + 4
        done = 0

        def save(made: Iterable[Dataset], what: str, name: str) -> None:
            nonlocal done
            for number, each in enumerate(made, start=1):
                if not progress(min(1.0, done / total), f"writing DICOM: {what}"):
                    raise Cancelled("writing DICOM was stopped: nothing was written")
                path = part / name.format(number)
                path.parent.mkdir(exist_ok=True)
                each.save_as(path, enforce_file_format=True)
                counts[what] = counts.get(what, 0) + 1
                done += 1

        slices = {}
        for number, image in enumerate(case.scans, start=FIRST_SERIES):
            role = role_of(case, image)
            slices[image.uid] = slices_of(case, image, number, case.frames[image.uid], role)
            save(slices[image.uid].to_write(), f"slices of the {role} scan", f"{number}-{role}/{{:04d}}.dcm")
        before = Slices([])
        if case.preoperative is not None and (case.writes_preoperative or case.original(case.preoperative)):
            before = slices_of(case, case.preoperative, PREOPERATIVE_SERIES, case.preop_frame, "preoperative")
            save(before.to_write(), "slices of the preoperative volume", "preoperative/{:04d}.dcm")
        scan = slices[case.scan.uid]
        segments = segmentation(case, scan)
        if segments is not None:
            save([segments], "segmentation", "segmentation.dcm")
        ends = scan.objects, before.objects
        if case.preop_frame:
            if case.registration is not None:
                whole = pose_of(case.registration)
                save([rigid(case, whole, *ends)], "rigid registration", "registration.dcm")
                if case.shift is not None:
                    save([deformable(case, whole, *ends)], "deformable registration", "deformation.dcm")
            bones = (pose_of(bone, bone["name"]) for bone in found_parts(case.document))
            made = (rigid(case, bone, *ends, number) for number, bone in enumerate(bones, start=1))
            save(made, "registrations of single bones", "registration-bone-{:02d}.dcm")
        evidence = [each for found in slices.values() for each in found.objects]
        save([report(case, evidence, scan.objects, segments)], "report", "report.dcm")
        progress(1.0, "DICOM written")
    roles = {image.uid: f"{role_of(case, image)} scan" for image in case.scans}
    if case.preoperative is not None:
        roles[case.preoperative.uid] = "preoperative volume"
    made_anew = {image.uid for image in copies}
    apart = (
        f"the {roles[uid]} is {'a copy' if uid in made_anew else 'not referred to'}: {why}"
        for uid, why in case.changed.items()
    )
    originals = tuple(roles[uid] for uid in roles if uid in (case.originals or {}))
    return Written(folder, case.study["StudyInstanceUID"], counts, originals, tuple(apart))


def role_of(case: Case, image: Image) -> str:
    """What a scan was used for, as the record says it."""
    return str(next(entry["role"] for entry in case.document["images"] if entry["uid"] == image.uid))


def files_of(folder: Path) -> list[Path]:
    """The objects in a folder, in the order of their names."""
    return sorted(folder.rglob("*.dcm"))


def read_headers(folder: Path) -> list[Dataset]:
    """The objects in a folder without their voxels. Raises SessionError when one cannot be read."""
    try:
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in files_of(folder)]
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise SessionError(f"the DICOM objects in '{folder}' cannot be read ({error}): write them again") from error


def write_whole(made: Dataset, path: Path) -> None:
    """Write one object over an earlier one, whole or not at all. Raises SessionError."""
    part = path.with_name(f".{path.name}.part")
    try:
        made.save_as(part, enforce_file_format=True)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SessionError(f"'{path}' cannot be written: {error.strerror}. Nothing was changed") from error


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder to write to that takes the place of ``folder`` when the block ends well; otherwise nothing stays.

    Raises SessionError when ``folder`` holds anything but DICOM objects, or cannot be written.
    """
    # Hidden files are the operating system's.
    others = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".dcm" and not p.name.startswith(".")]
    if others or (folder.exists() and not folder.is_dir()):
        raise SessionError(f"'{folder}' holds {others[0].name if others else 'no folder'}: choose another folder")
    with replaced(folder) as part:
        yield part
