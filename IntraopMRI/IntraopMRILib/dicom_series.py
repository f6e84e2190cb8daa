"""A volume from the DICOM objects of one series: the right one of a folder, or none, and where it is kept already.

How its slices make a volume is in :mod:`.dicom_planes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import SimpleITK
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import ras_from_lps_matrix

from .dicom_planes import (
    FEWEST_SLICES,
    PLACED,
    Plane,
    apart,
    lps_from_ijk,
    planes_of,
    stacked,
    voxels,
    without_copies,
)
from .report.dicom.source import Source, digest
from .scan_facts import TAGS, DicomFacts, combined, facts_of

#: A DICOM file says so behind this many bytes (PS3.10, 7.1).
PREAMBLE, MAGIC = 128, b"DICM"
#: How an object begins that was kept without the preamble, as by old archives: a small tag (0008,....).
BARE = re.compile(rb"\x08\x00[\x00\x05\x08\x16]\x00")
#: What volumes that are no DICOM are called; they are named one by one.
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
#: A UID (VR UI, PS3.5 6.2) has at most this many characters.
LONGEST_UID = 64
#: What is read of each object beside its facts and where it lies.
NAMED = ["SeriesNumber", "PhotometricInterpretation", "ContrastBolusAgentSequence"]
#: A part of what one file holds is named by that file with its number behind it.
PART = re.compile(r"(.+)#([1-9]\d*)")
#: So many series are named in an error.
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Series:
    """Objects of one series: their ``files``, ``headers`` without voxels, and what each of these says.

    ``part``: which of the series, in words; empty for all of it. ``number``: of a part of what its files hold, from 1;
    ``frames``: those of it by the file, from 1. 0 and empty where it is all that is in them.
    """

    files: tuple[Path, ...]
    headers: tuple[Any, ...]
    told: tuple[DicomFacts, ...]
    part: str = ""
    number: int = 0
    frames: Mapping[Path, Sequence[int]] = field(default_factory=dict)

    def named(self, folder: Path) -> str:
        """For a person: number, description, how many, and a file below ``folder`` to name it by."""
        first = self.headers[0]
        number, words = first.get("SeriesNumber"), str(first.get("SeriesDescription") or "without description")
        count, what = len(self.files), "file"
        if self.frames:
            count, what = sum(map(len, self.frames.values())), "frame"
        file = self.files[0]
        name = str(file.relative_to(folder) if file.is_relative_to(folder) else file.name)
        name += f"#{self.number}" if self.number else ""
        said = f", {self.part}" if self.part else ""
        plural = "s" if count > 1 else ""
        return f"{'' if number is None else f'{number} '}'{words}'{said} ({count} {what}{plural}, such as {name})"

    def parts(self) -> list[Series]:
        """Each by itself where several pictures at one place were sent as one series and their headers say what they
        are; otherwise the series as it is.
        """
        try:
            groups = apart(self._planes())
        except DataError:
            groups = {}
        if len(groups) < 2:
            return [self]
        return [self._part(said, group, number) for number, (said, group) in enumerate(groups.items(), start=1)]

    def _part(self, said: str, planes: Sequence[Plane], number: int) -> Series:
        frames: dict[Path, list[int]] = {}
        for plane in planes:
            frames.setdefault(plane.file, []).append(plane.frame)
        kept = [entry for entry in zip(self.files, self.headers, self.told, strict=True) if entry[0] in frames]
        files, headers, told = zip(*kept, strict=True)
        if not planes[0].frame:
            return Series(files, headers, told, said)
        told = tuple(facts_of(header, frames[file]) for file, header, _told in kept)
        return Series(files, headers, told, said, number, frames)

    def facts(self) -> DicomFacts:
        """What the headers say together. Raises SessionError when they contradict one another."""
        return combined(self.told, f"'{self.files[0].parent}'")

    def planes(self) -> list[Plane]:
        """Slices in ascending order along their normal. Raises DataError, the end of a sentence, when these make no
        volume.
        """
        first = self.headers[0]
        if self.told[0].modality == "SEG":
            raise DataError("is a segmentation, no scan")
        if int(first.get("SamplesPerPixel") or 1) != 1 or first.get("PhotometricInterpretation") == "PALETTE COLOR":
            raise DataError("is in colour: a screenshot, no scan")
        planes = self._planes()
        computed = {value for plane in planes for value in plane.computed}
        if computed:
            raise DataError(f"shows no anatomy as it was scanned: its image type says {', '.join(sorted(computed))}")
        if len(planes) < FEWEST_SLICES:
            raise DataError(f"has {len(planes)} slices, fewer than {FEWEST_SLICES}: a localiser, or cut off")
        return stacked(planes)

    def _planes(self) -> list[Plane]:
        """Every slice once, as it comes. Raises DataError when headers do not say where they lie."""
        if not all(header.get("Rows") for header in self.headers):
            raise DataError("holds no pictures")
        try:
            every = [plane for pair in zip(self.files, self.headers, strict=True) for plane in planes_of(*pair)]
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"has a header that cannot be read ({error})") from error
        return [plane for plane in without_copies(every) if not self.frames or plane.frame in self.frames[plane.file]]


def is_dicom(path: Path) -> bool:
    """Whether to read as DICOM: a folder, or a file that says so, or begins as one; or a part of such a file."""
    path, _number = _part_of(path)
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            begin = file.read(PREAMBLE + len(MAGIC))
    except OSError:
        return False
    return begin[PREAMBLE:] == MAGIC or BARE.match(begin) is not None


def read_series(path: Path) -> tuple[Image, DicomFacts]:
    """The volume of the only series in a folder that is one; or of the series that a file in its folder belongs to, or
    of one of several parts that a file holds ('scan.dcm#2').

    Raises an IntraopError that names what there is when no series or more than one can be meant, when that series is no
    volume, or when its headers contradict one another.
    """
    path, number = _part_of(path)
    if not path.exists():
        raise DataError(f"there is no volume at {path}; name a file, or a folder with a DICOM series")
    if path.name == "DICOMDIR":
        path = path.parent
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*") if path.is_dir() else folder.iterdir())
    found = [part for series in series_in(files) for part in series.parts()]
    if not path.is_dir():
        found = [series for series in found if path in series.files and number in (0, series.number)]
    usable, others = [], []
    for series in found:
        try:
            usable.append((series, series.planes()))
        except DataError as error:
            others.append(f"{series.named(folder)} {error}")
    if len(usable) != 1:
        raise DataError(_which(path, number, folder, [series for series, _planes in usable], others, bool(found)))
    try:
        return _read(*usable[0])
    except DataError as error:
        raise DataError(f"{path}: the series {usable[0][0].named(folder)} {error}") from error


def read_known(files: Mapping[str, Path | None]) -> DicomFacts:
    """Facts of a volume that another program has read from these instances: SOP instance UID to file, None unknown.

    ``source`` is given when the files are all there and make one volume; otherwise ``source_unknown`` says why not.
    Raises DataError when no file can be read, SessionError when they contradict one another.
    """
    paths = [path for path in files.values() if path is not None]
    found = series_in(paths)
    if not found:
        raise DataError(f"the DICOM header of {paths[0].name if paths else 'no file'} cannot be read: load it again")
    if len(found) > 1:
        raise SessionError(
            f"the volume was made from {len(found)} series: {'; '.join(s.named(paths[0].parent) for s in found)}"
        )
    series = found[0]
    facts = series.facts()
    there = {str(header.SOPInstanceUID) for header in series.headers}
    if there != set(files):
        lacking = len(set(files) - there)
        return replace(facts, source_unknown=f"{lacking} of its {len(files)} instances are not on this computer")
    try:
        return _read(series, series.planes())[1]
    except DataError as error:
        return replace(facts, source_unknown=f"the series that it came as {error}")


def series_in(files: Sequence[Path]) -> list[Series]:
    """The DICOM files among these by their series; others are left out. Raises DataError for one that is damaged."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    found: dict[str, list[tuple[Path, Any, DicomFacts]]] = {}
    for path in files:
        if not path.is_file() or path.name == "DICOMDIR" or path.name.startswith("."):
            continue
        try:
            bare = is_dicom(path)
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*TAGS, *NAMED, *PLACED], force=bare)
            if not header.get("SOPInstanceUID"):
                raise InvalidDicomError("it names no SOP instance")
            if int(header.get("NumberOfFrames") or 1) > 1:
                # Its sequences say more, and take long to read.
                header = pydicom.dcmread(path, stop_before_pixels=True, force=bare)
            told = facts_of(header)
            found.setdefault(told.series_uid, []).append((path, header, told))
        except (InvalidDicomError, OSError, ValueError, EOFError, KeyError, IndexError, TypeError) as error:
            if bare:
                raise DataError(f"the DICOM header of {path.name} cannot be read ({error}): export it again") from error
    each = (zip(*members, strict=True) for members in found.values())
    return [Series(files, headers, told) for files, headers, told in each]


def _part_of(path: Path) -> tuple[Path, int]:
    """A file, and the number of the part of it that is meant; 0 for all of it."""
    found = None if path.exists() else PART.fullmatch(path.name)
    return (path, 0) if found is None else (path.with_name(found[1]), int(found[2]))


def _which(path: Path, number: int, folder: Path, usable: Sequence[Series], others: Sequence[str], found: bool) -> str:
    """What there is in the place of one volume, and what to do."""
    each = [series.named(folder) for series in usable] or list(others) or ["no DICOM file"]
    listed = "; ".join(each[:SHOWN]) + (f"; and {len(each) - SHOWN} more" if len(each) > SHOWN else "")
    what = f"{len(usable)} series of volumes" if usable else "no DICOM series that is a volume"
    if number and not found:
        return f"{path} holds no part {number}: name the file alone, and its parts are listed"
    remedy = "name a file of the one that is meant" if usable else "name the folder of the 3D series"
    if any(series.number for series in usable):
        remedy += ", with its number"
    if len(others) == 1 and not usable:
        remedy = "export it again, or name another one"
    volumes = sorted(file.name for file in folder.iterdir() if file.name.endswith(VOLUMES)) if path.is_dir() else []
    if volumes and not found:
        remedy = f"name one of its volumes by its file: {', '.join(volumes[:4])}"
    return f"{path} holds {what}: {listed}; {remedy}"


def _read(series: Series, planes: list[Plane]) -> tuple[Image, DicomFacts]:
    """Voxels where the headers put them, with what is known of their origin. Raises as :func:`read_series`."""
    facts = series.facts()
    try:
        array = voxels(planes)
    except RuntimeError as error:
        raise DataError(
            f"has voxels that cannot be read: {_unreadable(planes, str(error))}; export it again, uncompressed"
        ) from error
    columns, rows = planes[0].size
    if array.shape != (len(planes), rows, columns):
        raise DataError(f"has {array.shape} voxels where its headers say {(len(planes), rows, columns)}")
    if array.min() == array.max():
        raise DataError(f"is empty: every voxel is {array.flat[0]}")
    matrix = lps_from_ijk(planes)
    why = _incomplete(series, planes, facts)
    if why:
        facts = replace(facts, source_unknown=why)
    else:
        source = Source(
            facts.study["StudyInstanceUID"],
            facts.series_uid,
            facts.frame_uid,
            str(series.headers[0].SOPClassUID),
            facts.modality,
            tuple(plane.sop_uid for plane in planes),
            tuple(plane.frame for plane in planes) if planes[0].frame else (),
            tuple(map(tuple, matrix.tolist())),
            (columns, rows, len(planes)),
            digest(array),
        )
        facts = replace(facts, source=source.text)
    image = Image(
        array,
        ras_from_lps_matrix(matrix),
        facts.series or series.files[0].parent.name,
        facts.taken_utc_s,
        facts.patient_id,
        metadata=facts.metadata,
    )
    return image, facts


def _unreadable(planes: Sequence[Plane], all_of_them: str) -> str:
    """The first file that fails by itself, and how it is compressed; or what ITK said of all of them."""
    import pydicom

    for file in dict.fromkeys(plane.file for plane in planes):
        try:
            SimpleITK.ReadImage(str(file))
        except RuntimeError:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[], force=True)
            syntax = header.file_meta.get("TransferSyntaxUID")
            compressed = f", or its compression ({syntax.name}) is not known here" if syntax else ""
            return f"{file.name} is damaged or cut off{compressed}"
    return all_of_them.strip().splitlines()[-1]


def _incomplete(series: Series, planes: list[Plane], facts: DicomFacts) -> str:
    """Why these objects cannot be referred to, in words; empty when they can."""
    from pydicom.uid import RE_VALID_UID

    classes = {str(header.get("SOPClassUID") or "") for header in series.headers}
    if len(classes) > 1:
        return f"its slices are of {len(classes)} SOP classes"
    named = {
        "study": facts.study.get("StudyInstanceUID", ""),
        "series": facts.series_uid,
        "frame of reference": facts.frame_uid,
        "SOP class": classes.pop(),
    }
    for what, uid in (*named.items(), *(("SOP instance", plane.sop_uid) for plane in planes)):
        if len(uid) > LONGEST_UID or not re.fullmatch(RE_VALID_UID, uid):
            return f"its headers name no valid {what} UID{f': {uid}' if uid else ''}"
    if len({(plane.sop_uid, plane.frame) for plane in planes}) < len(planes):
        return "several of its slices have one SOP instance UID"
    return ""
