"""Slices from the headers of DICOM objects: what each shows, where it lies, and the voxels of those that are stacked.

The place of each slice is taken from its own header, or from its own frame of an object that holds several. What does
not stack into a volume at equal steps is refused: a reader that evens it out shows anatomy where it is not.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from IntraopMRIReconstructionLib.data import ORTHONORMAL_TOLERANCE, AnyArray, Matrix
from IntraopMRIReconstructionLib.errors import DataError

#: Fewer slices are a localiser or a single picture.
FEWEST_SLICES = 8
#: Directions of two slices may differ by so much (their cosines are rounded to 6 digits or so).
SAME_DIRECTION = 1e-4
#: A slice may be so far from where equal steps along the normal put it, mm: a tenth of a voxel is seen in no measure,
#: and a missing slice or a tilted gantry is many times as much.
EVEN_MM = 0.1
#: Values of ImageType and FrameType that say a picture was computed from others, shows a quantity, or only one side of
#: the complex signal: no anatomy as a scanner took it. What ends in MAP is one as well.
COMPUTED = frozenset((
    "SUBTRACTION", "SUBTRACT", "SUB", "DIVISION", "STD_DEVIATION", "QUANTITY", "MIP", "MINIP", "PROJECTION IMAGE",
    "SECONDARY CAPTURE", "LOCALIZER", "P", "PHASE", "R", "REAL", "I", "IMAGINARY", "ADC", "FA", "RELCBV", "RELCBF",
    "RELMTT", "CBV", "CBF", "MTT", "TTP",
))  # fmt: skip
MAP = re.compile(r".*[ _]MAP")
#: What tells several pictures at one place apart that were sent as one series: kinds of picture, echoes, times. By the
#: tag of an object with one picture, and for a frame of several by sequence and tag (PS3.3, C.7.6.16 and C.8.13.5).
TOLD_APART = {
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "ComplexImageComponent": ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    "EchoNumbers": ("", ""),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
}
#: The first of them say what kind of picture it is.
KINDS = 2
#: What is read of an object with one picture.
PLACED = [
    "SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "PixelRepresentation", *TOLD_APART,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice: where it is kept (``frame``: from 1, 0 in an object of its own), and where it lies, LPS mm.

    ``axes``: directions of columns and rows in the picture, (2, 3); ``step_mm``: between columns, between rows.
    ``scale``: slope and intercept; ``file_scale``: those of the first frame, which GDCM takes for all frames;
    ``signed``: of the stored numbers. ``said``: what TOLD_APART finds of it.
    """

    file: Path
    sop_uid: str
    frame: int
    origin: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    step_mm: npt.NDArray[np.float64]
    size: tuple[int, int]
    scale: tuple[float, float]
    file_scale: tuple[float, float]
    signed: bool
    said: tuple[str, ...]

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit vector, (3,)."""
        return np.asarray(np.cross(*self.axes))

    @property
    def computed(self) -> set[str]:
        """What says that it is no anatomy as a scanner took it."""
        kinds = {word.strip().upper() for text in self.said[:KINDS] for word in text.split("\\")}
        return {kind for kind in kinds if kind in COMPUTED or MAP.fullmatch(kind)}


def planes_of(file: Path, header: Any) -> Iterator[Plane]:
    """Every slice of an object. Raises DataError, the end of a sentence, when it does not say where they lie."""
    count = int(header.get("NumberOfFrames") or 1)
    groups = items(header.get("PerFrameFunctionalGroupsSequence"))
    if count > 1 and len(groups) != count:
        raise DataError("has several frames in an object and does not say where each lies")
    first_scale = None
    for number in range(count):
        within = [groups[number], *items(header.get("SharedFunctionalGroupsSequence"))] if groups else []

        def told(sequence: str, tag: str, within: list[Any] = within) -> Any:
            there = [item for group in within for item in items(group.get(sequence))]
            return next((item.get(tag) for item in there), None) if within else header.get(tag)

        position = told("PlanePositionSequence", "ImagePositionPatient")
        axes = told("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = told("PixelMeasuresSequence", "PixelSpacing")
        if not position or not axes or not spacing:
            raise DataError("does not say where its slices lie")
        slope = told("PixelValueTransformationSequence", "RescaleSlope")
        intercept = told("PixelValueTransformationSequence", "RescaleIntercept")
        scale = float(1 if slope is None else slope), float(intercept or 0)
        if not (np.isfinite(scale).all() and scale[0]):
            raise DataError(f"has no scale: its rescale slope is {scale[0]:g}, its intercept {scale[1]:g}")
        first_scale = first_scale or scale
        own = {tag: told(*place) if within else None for tag, place in TOLD_APART.items()}
        yield Plane(
            file,
            str(header.SOPInstanceUID),
            number + 1 if groups else 0,
            np.array(position, dtype=np.float64),
            np.array(axes, dtype=np.float64).reshape(2, 3),
            np.array([spacing[1], spacing[0]], dtype=np.float64),
            (int(header.Columns), int(header.Rows)),
            scale,
            first_scale,
            bool(header.get("PixelRepresentation")),
            tuple(_text(header.get(tag) if own[tag] is None else own[tag]) for tag in TOLD_APART),
        )


def apart(planes: Sequence[Plane]) -> dict[str, list[Plane]]:
    """Planes by what tells them apart, in words, where several lie at one place; all by "" where nothing does."""
    places = [tuple(plane.origin) for plane in planes]
    if len(set(places)) == len(places):
        return {"": list(planes)}
    for count in range(1, len(TOLD_APART) + 1):
        groups: dict[tuple[str, ...], list[Plane]] = {}
        for plane in planes:
            groups.setdefault(plane.said[:count], []).append(plane)
        sizes = [len(group) for group in groups.values()]
        alone = all(len({tuple(plane.origin) for plane in group}) == len(group) for group in groups.values())
        if alone and max(sizes) >= FEWEST_SLICES:
            return {_difference(key, list(groups)): group for key, group in groups.items()}
    return {"": list(planes)}


def without_copies(planes: Sequence[Plane]) -> list[Plane]:
    """Each slice once, though its file lies there twice. Raises DataError for two contents under one identity."""
    found: dict[tuple[Any, ...], Plane] = {}
    for plane in planes:
        key = (plane.sop_uid, plane.frame, *plane.origin)
        other = found.setdefault(key, plane)
        if other is not plane and not filecmp.cmp(other.file, plane.file, shallow=False):
            raise DataError(f"has two objects with one SOP instance UID: {other.file.name} and {plane.file.name}")
    return list(found.values())


def stacked(planes: Sequence[Plane]) -> list[Plane]:
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
    normal = first.normal
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


def lps_from_ijk(planes: Sequence[Plane]) -> Matrix:
    """(4, 4), mm, of planes that are stacked."""
    first, last = planes[0], planes[-1]
    matrix = np.eye(4)
    matrix[:3, :2] = first.axes.T * first.step_mm
    matrix[:3, 2] = (last.origin - first.origin) @ first.normal / (len(planes) - 1) * first.normal
    matrix[:3, 3] = first.origin
    return matrix


def voxels(planes: Sequence[Plane]) -> AnyArray:
    """Scaled grey values (k, j, i). Raises RuntimeError when ITK cannot read them."""
    if planes[0].frame:
        return _frames(planes)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(plane.file) for plane in planes])
    if len({(plane.scale, plane.signed) for plane in planes}) > 1:
        # Else the first slice says for all of them what numbers hold, and those of others are cut off.
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))


def _frames(planes: Sequence[Plane]) -> AnyArray:
    """Of objects that hold several."""
    read = {
        file: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
        for file in dict.fromkeys(plane.file for plane in planes)
    }
    taken = [read[plane.file][plane.frame - 1] for plane in planes]
    if any(plane.scale != plane.file_scale for plane in planes):
        taken = [_rescaled(values, plane) for values, plane in zip(taken, planes, strict=True)]
    return np.stack(taken)


def _rescaled(values: AnyArray, plane: Plane) -> AnyArray:
    """Values of a frame that were scaled as the first one of its object, by its own scale."""
    (slope, intercept), (wrong_slope, wrong_intercept) = plane.scale, plane.file_scale
    stored = np.rint((values.astype(np.float64) - wrong_intercept) / wrong_slope)
    return np.asarray((stored * slope + intercept).astype(np.float32))


def items(value: Any) -> list[Any]:
    """Items of a sequence or of an element of several values, which may be absent, or of one."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _difference(key: Sequence[str], keys: Sequence[Sequence[str]]) -> str:
    """What a group says where groups differ, in words."""
    different = [n for n, values in enumerate(zip(*keys, strict=True)) if len(set(values)) > 1]
    return ", ".join(f"{[*TOLD_APART][n]} {key[n] or 'not said'}" for n in different)


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)
