"""A volume from the DICOM objects of one series: the right one of a folder, or none, and where it is kept already.

The place of each slice is taken from its own header. What does not stack into a volume at equal steps is refused: a
reader that evens it out shows anatomy where it is not.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from IntraopMRIReconstructionLib.data import ORTHONORMAL_TOLERANCE, AnyArray, Image
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import ras_from_lps_matrix

from .report.dicom.source import Source, digest
from .scan_facts import TAGS, DicomFacts, combined, facts_of

#: A DICOM file says so behind this many bytes (PS3.10, 7.1).
PREAMBLE, MAGIC = 128, b"DICM"
#: Fewer slices are a localiser or a single picture.
FEWEST_SLICES = 8
#: Directions of two slices may differ by so much (their cosines are rounded to 6 digits or so).
SAME_DIRECTION = 1e-4
#: A slice may be so far from where equal steps along the normal put it, mm: a tenth of a voxel is seen in no measure,
#: and a missing slice or a tilted gantry is many times as much.
EVEN_MM = 0.1
#: Values of ImageType that say a picture was computed from others, or shows phase: no anatomy as a scanner took it.
COMPUTED = (
    "SUBTRACTION", "SUBTRACT", "SUB", "MIP", "MINIP", "PROJECTION IMAGE", "SECONDARY CAPTURE", "LOCALIZER", "P",
    "PHASE", "PHASE MAP",
)  # fmt: skip
#: What tells several pictures at one place apart that were sent as one series: kinds of picture, echoes, times.
TOLD_APART = [
    "ImageType",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "InversionTime",
    "AcquisitionNumber",
]
#: How an object begins that was kept without the preamble, as by old archives: a small tag (0008,....).
BARE = re.compile(rb"\x08\x00[\x00\x05\x08\x16]\x00")
#: What volumes that are no DICOM are called; they are named one by one.
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
#: A UID (VR UI, PS3.5 6.2) has at most this many characters.
LONGEST_UID = 64
#: What is read of each object beside its facts.
PLACED = [
    "SOPClassUID", "SeriesNumber", "ImageType", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "PixelRepresentation", "ContrastBolusAgentSequence", *TOLD_APART[1:],
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice: where it is kept (``frame``: from 1, 0 in an object of its own), and where it lies, LPS mm.

    ``axes``: directions of columns and rows in the picture, (2, 3); ``step_mm``: between columns, between rows.
    ``scale``: slope and intercept; ``signed``: of the stored numbers.
    """

    file: Path
    sop_uid: str
    frame: int
    origin: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    step_mm: npt.NDArray[np.float64]
    size: tuple[int, int]
    scale: tuple[float, float]
    signed: bool


@dataclass(frozen=True, eq=False)
class Series:
    """Objects of one series: their ``files``, ``headers`` without voxels, and what each of these says.

    ``part``: which of the series, in words; empty for all of it.
    """

    files: tuple[Path, ...]
    headers: tuple[Any, ...]
    told: tuple[DicomFacts, ...]
    part: str = ""

    def named(self, folder: Path) -> str:
        """For a person: number, description, how many, and a file below ``folder`` to name it by."""
        first = self.headers[0]
        number, words = first.get("SeriesNumber"), str(first.get("SeriesDescription") or "without description")
        count = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        file = self.files[0]
        file = file.relative_to(folder) if file.is_relative_to(folder) else Path(file.name)
        return f"{'' if number is None else f'{number} '}'{words}'{self.part} ({count}, such as {file})"

    def parts(self) -> list[Series]:
        """Each by itself where several pictures at one place were sent as one series and their headers say what they
        are; otherwise the series as it is.
        """
        places = [str(header.get("ImagePositionPatient")) for header in self.headers]
        if len(set(places)) == len(places) or any(header.get("NumberOfFrames") for header in self.headers):
            return [self]
        for count in range(1, len(TOLD_APART) + 1):
            groups: dict[tuple[str, ...], list[int]] = {}
            for number, header in enumerate(self.headers):
                groups.setdefault(tuple(_text(header.get(tag)) for tag in TOLD_APART[:count]), []).append(number)
            if len(groups) > 1 and all(len({places[n] for n in group}) == len(group) for group in groups.values()):
                return [self._part(key, groups, group) for key, group in groups.items()]
        return [self]

    def _part(self, key: tuple[str, ...], keys: Collection[tuple[str, ...]], numbers: Sequence[int]) -> Series:
        different = [n for n, values in enumerate(zip(*keys, strict=True)) if len(set(values)) > 1]
        said = ", ".join(f"{TOLD_APART[n]} {key[n] or 'not said'}" for n in different)
        return Series(
            tuple(self.files[n] for n in numbers),
            tuple(self.headers[n] for n in numbers),
            tuple(self.told[n] for n in numbers),
            f", {said}",
        )

    def facts(self) -> DicomFacts:
        """What the headers say together. Raises SessionError when they contradict one another."""
        return combined(self.told, f"'{self.files[0].parent}'")

    def planes(self) -> list[Plane]:
        """Slices in ascending order along their normal. Raises DataError, the end of a sentence, when these make no
        volume.
        """
        first = self.headers[0]
        if not first.get("Rows"):
            raise DataError("holds no pictures")
        if self.told[0].modality == "SEG":
            raise DataError("is a segmentation, no scan")
        if int(first.get("SamplesPerPixel") or 1) != 1:
            raise DataError("is in colour: a screenshot, no scan")
        computed = {str(value).upper() for value in _list(first.get("ImageType"))} & set(COMPUTED)
        if computed:
            raise DataError(f"shows no anatomy as it was scanned: its image type says {', '.join(sorted(computed))}")
        try:
            planes = [plane for pair in zip(self.files, self.headers, strict=True) for plane in _planes(*pair)]
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"has a header that cannot be read ({error})") from error
        planes = _without_copies(planes)
        if len(planes) < FEWEST_SLICES:
            raise DataError(f"has {len(planes)} slices, fewer than {FEWEST_SLICES}: a localiser, or cut off")
        return _stacked(planes)


def is_dicom(path: Path) -> bool:
    """Whether to read as DICOM: a folder, or a file that says so, or begins as one."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            begin = file.read(PREAMBLE + len(MAGIC))
    except OSError:
        return False
    return begin[PREAMBLE:] == MAGIC or BARE.match(begin) is not None


def read_series(path: Path) -> tuple[Image, DicomFacts]:
    """The volume of the only series in a folder that is one; or of the series that a file in its folder belongs to.

    Raises an IntraopError that names what there is when no series or more than one can be meant, when that series is no
    volume, or when its headers contradict one another.
    """
    if not path.exists():
        raise DataError(f"there is no volume at {path}; name a file, or a folder with a DICOM series")
    if path.name == "DICOMDIR":
        path = path.parent
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*") if path.is_dir() else folder.iterdir())
    found = [part for series in series_in(files) for part in series.parts()]
    if not path.is_dir():
        found = [series for series in found if path in series.files]
    usable, others = [], []
    for series in found:
        try:
            usable.append((series, series.planes()))
        except DataError as error:
            others.append(f"{series.named(folder)} {error}")
    if len(usable) != 1:
        listed = "; ".join([series.named(folder) for series, _planes in usable] or others or ["no DICOM file"])
        number = f"{len(usable)} series of volumes" if usable else "no DICOM series that is a volume"
        remedy = "name a file of the one that is meant" if usable else "name the folder of the 3D series"
        if len(others) == 1:
            remedy = "export it again, or name another one"
        volumes = sorted(file.name for file in folder.iterdir() if file.name.endswith(VOLUMES)) if path.is_dir() else []
        if volumes and not found:
            remedy = f"name one of its volumes by its file: {', '.join(volumes[:4])}"
        raise DataError(f"{path} holds {number}: {listed}; {remedy}")
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
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*TAGS, *PLACED], force=bare)
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


def _planes(file: Path, header: Any) -> Iterator[Plane]:
    """Every slice of an object. Raises DataError when it does not say where they lie."""
    count = int(header.get("NumberOfFrames") or 1)
    groups = _list(header.get("PerFrameFunctionalGroupsSequence"))
    if count > 1 and len(groups) != count:
        raise DataError("has several frames in an object and does not say where each lies")
    for number in range(count):
        within = [groups[number], *_list(header.get("SharedFunctionalGroupsSequence"))] if groups else []

        def told(sequence: str, tag: str, within: list[Any] = within) -> Any:
            items = [item for group in within for item in _list(group.get(sequence))]
            return next((item.get(tag) for item in items), None) if within else header.get(tag)

        position = told("PlanePositionSequence", "ImagePositionPatient")
        axes = told("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = told("PixelMeasuresSequence", "PixelSpacing")
        if not position or not axes or not spacing:
            raise DataError("does not say where its slices lie")
        slope = told("PixelValueTransformationSequence", "RescaleSlope")
        intercept = told("PixelValueTransformationSequence", "RescaleIntercept")
        yield Plane(
            file,
            str(header.SOPInstanceUID),
            number + 1 if groups else 0,
            np.array(position, dtype=np.float64),
            np.array(axes, dtype=np.float64).reshape(2, 3),
            np.array([spacing[1], spacing[0]], dtype=np.float64),
            (int(header.Columns), int(header.Rows)),
            (float(1 if slope is None else slope), float(intercept or 0)),
            bool(header.get("PixelRepresentation")),
        )


def _without_copies(planes: Sequence[Plane]) -> list[Plane]:
    """Each slice once, though its file lies there twice. Raises DataError for two contents under one identity."""
    found: dict[tuple[Any, ...], Plane] = {}
    for plane in planes:
        key = (plane.sop_uid, plane.frame, *plane.origin)
        other = found.setdefault(key, plane)
        if other is not plane and not filecmp.cmp(other.file, plane.file, shallow=False):
            raise DataError(f"has two objects with one SOP instance UID: {other.file.name} and {plane.file.name}")
    return list(found.values())


def _stacked(planes: list[Plane]) -> list[Plane]:
    """In ascending order along the normal. Raises DataError unless they lie at equal steps along it."""
    first = planes[0]
    # Turned round, so that what is no number fails too.
    if not (np.abs(first.axes @ first.axes.T - np.eye(2)) <= ORTHONORMAL_TOLERANCE).all():
        raise DataError("has rows and columns that are not at right angles")
    if not (all(np.isfinite(plane.origin).all() for plane in planes) and (first.step_mm > 0).all()):
        raise DataError("does not say where its slices lie")
    for plane in planes:
        if plane.size != first.size or not np.allclose(plane.step_mm, first.step_mm, rtol=SAME_DIRECTION):
            raise DataError("has slices of several sizes")
        if np.abs(plane.axes - first.axes).max() > SAME_DIRECTION:
            raise DataError("has slices in several directions")
    normal = _normal(first)
    planes = sorted(planes, key=lambda plane: float(plane.origin @ normal))
    origins = np.array([plane.origin for plane in planes])
    heights = origins @ normal
    steps = np.diff(heights)
    if steps.min() < EVEN_MM / 2:
        places = 1 + int((steps >= EVEN_MM / 2).sum())
        raise DataError(
            f"has {len(planes)} pictures at {places} places (echoes, phases, times?), of which one alone is needed"
        )
    along = np.linspace(heights[0], heights[-1], len(planes))
    if np.abs(heights - along).max() > EVEN_MM:
        raise DataError(
            f"has slices at unequal distances ({steps.min():.2f} to {steps.max():.2f} mm): one is missing, or they do "
            "not belong together"
        )
    aside = origins - heights[:, None] * normal
    leaning = float(np.linalg.norm(aside - aside[0], axis=1).max())
    if leaning > EVEN_MM:
        raise DataError(
            f"is stacked aslant: its slices are displaced by up to {leaning:.1f} mm along themselves (gantry "
            "tilt): load it with Slicer's DICOM module, harden its transform, and save it as NRRD"
        )
    return planes


def _read(series: Series, planes: list[Plane]) -> tuple[Image, DicomFacts]:
    """Voxels where the headers put them, with what is known of their origin. Raises as :func:`read_series`."""
    facts = series.facts()
    try:
        array = _voxels(planes)
    except RuntimeError as error:
        raise DataError(
            f"has voxels that cannot be read: {_unreadable(planes, str(error))}; export it again"
        ) from error
    columns, rows = planes[0].size
    if array.shape != (len(planes), rows, columns):
        raise DataError(f"has {array.shape} voxels where its headers say {(len(planes), rows, columns)}")
    if array.min() == array.max():
        raise DataError(f"is empty: every voxel is {array.flat[0]}")
    lps_from_ijk = np.eye(4)
    lps_from_ijk[:3, :2] = planes[0].axes.T * planes[0].step_mm
    lps_from_ijk[:3, 2] = (
        (planes[-1].origin - planes[0].origin) @ _normal(planes[0]) / (len(planes) - 1) * _normal(planes[0])
    )
    lps_from_ijk[:3, 3] = planes[0].origin
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
            tuple(map(tuple, lps_from_ijk.tolist())),
            (columns, rows, len(planes)),
            digest(array),
        )
        facts = replace(facts, source=source.text)
    image = Image(
        array,
        ras_from_lps_matrix(lps_from_ijk),
        facts.series or series.files[0].parent.name,
        facts.taken_utc_s,
        facts.patient_id,
        metadata=facts.metadata,
    )
    return image, facts


def _voxels(planes: list[Plane]) -> AnyArray:
    """Scaled grey values (k, j, i). Raises DataError for frames of several scales, RuntimeError when ITK fails."""
    uneven = len({(plane.scale, plane.signed) for plane in planes}) > 1
    if planes[0].frame:
        if uneven or len({plane.file for plane in planes}) > 1:
            raise DataError("has frames of several scales, or in several objects")
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(planes[0].file)))
        return np.ascontiguousarray(array[[plane.frame - 1 for plane in planes]])
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(plane.file) for plane in planes])
    if uneven:
        # Else the first slice says for all of them what numbers hold, and those of others are cut off.
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))


def _unreadable(planes: Sequence[Plane], all_of_them: str) -> str:
    """The first file that fails by itself, with what ITK says; or what it said of all of them."""
    for file in dict.fromkeys(plane.file for plane in planes):
        try:
            SimpleITK.ReadImage(str(file))
        except RuntimeError:
            return f"{file.name} is damaged, cut off or compressed in a way that is not known here"
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


def _normal(plane: Plane) -> npt.NDArray[np.float64]:
    return np.asarray(np.cross(*plane.axes))


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)


def _list(value: Any) -> list[Any]:
    """Items of a sequence or of an element of several values, which may be absent, or of one."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)
