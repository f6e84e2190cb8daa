"""Outlined structures from files as tools save them: labels in NIfTI or NRRD, Slicer's segmentations, DICOM
segmentations and RT structure sets.

All come as masks in RAS. Contours have no voxels of their own: they are filled on the volume that they were drawn on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import AnyArray, Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, apply, invert
from IntraopMRIReconstructionLib.simulate.volumes import read_layers

from .dicom_series import is_dicom, read_series
from .report.dicom.packages import highdicom
from .scan_facts import FRAME

#: Objects of DICOM that hold structures, by their modality.
SEG, CONTOURS = "SEG", "RTSTRUCT"
#: More values than this no segmentation has.
MOST_LABELS = 255
#: Points of a contour may be so far from the slice that it was drawn on, in slices: positions are rounded.
ON_SLICE = 0.1
#: So much of a label lies within the volume that it was drawn on: a volume may cut it at a side.
LEAST_INSIDE = 0.5
#: So many names are shown in an error.
SHOWN = 8
#: Kinds of contours that enclose something (PS3.3, C.8.8.6.3).
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True, eq=False)
class Structure:
    """``number``: its value or number in the file; ``name``: empty where the file gives none; ``mask``: makes it.

    ``empty``: it has a name and no voxel.
    """

    number: str
    name: str
    mask: Callable[[], Image]
    empty: bool = False

    @property
    def text(self) -> str:
        """For a person."""
        return f"{self.number} '{self.name}'" if self.name else self.number


def read_segmentation(path: Path, drawn_on: Image | None = None) -> list[Structure]:
    """The structures of a file, or of the only DICOM object of structures in a folder; none when there are none.

    ``drawn_on``: the volume that they were outlined on: contours need it, and a DICOM object must be of its patient and
    its frame of reference. Raises DataError when the file is no segmentation or is not of that volume.
    """
    if is_dicom(path):
        found = _of_dicom(path, drawn_on)
        if found is not None:
            return found
        return _of_layers(path, [read_series(path)[0]], {})
    return _of_layers(path, *read_layers(path))


def read_structure(path: Path, which: str, drawn_on: Image | None, option: str) -> Image:
    """The one structure that is meant as 1, by its number or its name; the only one when ``which`` is empty.

    Raises DataError as :func:`read_segmentation`, and when several or none can be meant: ``option`` is how to say it.
    """
    found = [structure for structure in read_segmentation(path, drawn_on) if which or not structure.empty]
    listed = ", ".join(structure.text for structure in found[:SHOWN]) + (" ..." if len(found) > SHOWN else "")
    if not found:
        raise DataError(f"{path} is empty: nothing is outlined in it; save the segmentation again")
    meant = [s for s in found if which in ("", s.number, s.name)]
    if not meant:
        raise DataError(f"{path} holds no structure '{which}', only {listed}: name one of them with {option}")
    if len(meant) > 1:
        raise DataError(f"{path} holds {len(meant)} structures ({listed}): name the one that is meant with {option}")
    if meant[0].empty:
        raise DataError(f"{path} holds no voxel of {meant[0].text}: segment it, or name another one of {listed}")
    label = meant[0].mask()
    if drawn_on is not None:
        check_within(label, drawn_on, str(path))
    return label


def check_within(label: Image, drawn_on: Image, what: str) -> None:
    """Raises DataError when most of a label lies beyond the volume: it was drawn on another one, or lost its place."""
    voxels = np.argwhere(label.array)[:, ::-1].astype(np.float64)
    if not len(voxels):
        return
    there = apply(invert(drawn_on.ras_from_ijk) @ label.ras_from_ijk, voxels)
    inside = ((there > -1.0) & (there < drawn_on.array.shape[::-1])).all(axis=1).mean()
    if inside < LEAST_INSIDE:
        raise DataError(
            f"{what} lies outside of the volume '{drawn_on.name}' ({100 * inside:.0f} % of it is inside): name the "
            "volume that it was drawn on, or save it with its place"
        )


def _of_layers(path: Path, layers: Sequence[Image], header: Mapping[str, str]) -> list[Structure]:
    """A layer holds a value for each structure; Slicer names them, and uses more layers where they overlap."""
    keys = [key.removesuffix("_Name") for key in header if re.fullmatch(r"Segment\d+_Name", key)]
    named = {}
    for key in sorted(keys, key=lambda key: int(key.removeprefix("Segment"))):
        try:
            place = int(header.get(f"{key}_Layer", "0")), float(header.get(f"{key}_LabelValue", "1"))
        except ValueError as error:
            raise DataError(
                f"{path} does not say which voxels are {key} ({error}): save the segmentation again"
            ) from error
        named[place] = header[f"{key}_Name"].strip()
    there = []
    for number, layer in enumerate(layers):
        values = [float(value) for value in np.unique(layer.array) if value != 0]
        if len(values) > MOST_LABELS:
            raise DataError(f"{path} holds {len(values)} values, so it is no segmentation: name that of the structure")
        there += [(number, value) for value in values]

    def mask(number: int, value: float, name: str) -> Image:
        layer = layers[number]
        inside = (layer.array == value).astype(np.uint8)
        return Image(inside, layer.ras_from_ijk, name or path.name.split(".")[0])

    several = len(layers) > 1
    return [
        Structure(
            str(count) if several else f"{key[1]:g}",
            named.get(key, ""),
            partial(mask, *key, named.get(key, "")),
            key not in there,
        )
        for count, key in enumerate(dict.fromkeys([*named, *there]), start=1)
    ]


def _of_dicom(path: Path, drawn_on: Image | None) -> list[Structure] | None:
    """Of the only object of structures; None when there is none, so that it may be a series of pictures."""
    import pydicom

    there = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and is_dicom(file):
            told = {"stop_before_pixels": True, "specific_tags": ["Modality"], "force": True}
            header = _said(file, partial(pydicom.dcmread, file, **told))
            if header.get("Modality") in (SEG, CONTOURS):
                there.append(file)
    if not there:
        return None
    if len(there) > 1:
        shown = ", ".join(str(file.relative_to(path)) for file in there[:SHOWN])
        raise DataError(f"{path} holds {len(there)} DICOM objects of structures: name one of the files {shown}")
    file = there[0]
    content = _said(file, partial(pydicom.dcmread, file, force=True))
    if drawn_on is not None:
        _check_origin(file, content, drawn_on)
    work = _segments(content) if content.Modality == SEG else _contours(file, content, drawn_on)
    return [
        replace(structure, mask=partial(_said, file, structure.mask)) for structure in _said(file, lambda: list(work))
    ]


def _said(file: Path, work: Callable[[], Any]) -> Any:
    """What ``work`` returns. Raises DataError that names the file for what the libraries raise about its content."""
    try:
        return work()
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read as DICOM {SEG} or {CONTOURS} ({error}): export it again") from error


def _check_origin(file: Path, content: Any, drawn_on: Image) -> None:
    """Raises DataError when the object says that it is of another patient or frame of reference than the volume."""
    frames = [content, *(content.get("ReferencedFrameOfReferenceSequence") or [])]
    for what, told, known in (
        ("patient", [str(content.get("PatientID") or "")], drawn_on.patient_id),
        ("frame of reference", [str(f.get(FRAME) or "") for f in frames], drawn_on.metadata.get(FRAME, "")),
    ):
        told = [value for value in told if value]
        if told and known and known not in told:
            raise DataError(
                f"{file.name} was drawn on another {what} than the volume '{drawn_on.name}': {told[0]} and {known}; "
                "name the volume that it belongs to"
            )


def _segments(content: Any) -> Iterator[Structure]:
    """Of a DICOM segmentation, binary, labelled or fractional; inside is where the fraction is a half at least."""
    objects = highdicom().seg.Segmentation.from_dataset(content, copy=False)
    for number in objects.segment_numbers:
        name = str(objects.get_segment_description(number).segment_label)

        def mask(number: int, name: str) -> Image:
            volume = objects.get_volume(segment_numbers=[number], dtype=np.float32)
            # Its indices are k, j, i and the segment.
            lps_from_ijk = np.asarray(volume.affine)[:, [2, 1, 0, 3]]
            return Image((volume.array[..., 0] >= 0.5).astype(np.uint8), RAS_FROM_LPS @ lps_from_ijk, name)

        yield Structure(str(number), name, partial(mask, number, name))


def _contours(file: Path, content: Any, drawn_on: Image | None) -> Iterator[Structure]:
    """Of an RT structure set; what is drawn without an inside, such as points, is left out."""
    if drawn_on is None:
        raise DataError(f"{file} holds contours, which need the volume that they were drawn on: save a segmentation")
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in content.StructureSetROISequence}
    for roi in content.ROIContourSequence:
        number = int(roi.ReferencedROINumber)
        closed = [
            np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            for contour in roi.get("ContourSequence") or []
            if contour.ContourGeometricType in CLOSED
        ]
        if closed:
            name = names.get(number, "")
            yield Structure(str(number), name, partial(_filled, closed, drawn_on, f"{file}: '{name}'", name))


def _filled(contours: Sequence[npt.NDArray[np.float64]], grid: Image, what: str, name: str) -> Image:
    """Voxels of ``grid`` whose centres the contours (n, 3), LPS mm, enclose an odd number of times.

    Raises DataError when they do not lie on slices of the grid, or leave slices out.
    """
    ijk_from_lps = invert(grid.ras_from_ijk) @ RAS_FROM_LPS
    drawn = [apply(ijk_from_lps, contour) for contour in contours]
    axis = int(np.argmin(np.max([np.ptp(points, axis=0) for points in drawn], axis=0)))
    array = np.zeros(grid.array.shape[::-1], dtype=np.bool_)
    others = [other for other in range(3) if other != axis]
    for points in drawn:
        height = round(float(points[:, axis].mean()))
        if np.abs(points[:, axis] - height).max() > ON_SLICE:
            raise DataError(f"{what} was not drawn on slices of '{grid.name}': name the volume that it was drawn on")
        if not 0 <= height < array.shape[axis]:
            raise DataError(f"{what} reaches beyond '{grid.name}': name the volume that it was drawn on")
        array[(slice(None),) * axis + (height,)] ^= _inside(points[:, others], np.delete(array.shape, axis))
    heights = np.flatnonzero(array.any(axis=tuple(others)))
    if len(heights) > 1 and np.median(np.diff(heights)) > 1:
        raise DataError(f"{what} has contours on some slices only: interpolate between them where it was drawn")
    return Image(array.transpose().astype(np.uint8), grid.ras_from_ijk, name)


def _inside(polygon: npt.NDArray[np.float64], size: Sequence[int] | npt.NDArray[Any]) -> AnyArray:
    """Which points of whole numbers (size) a closed polygon (n, 2) encloses, by the even-odd rule."""
    first, second = np.indices(tuple(int(n) for n in size), sparse=True)
    result = np.zeros(tuple(int(n) for n in size), dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > second) != (y1 > second)
        if crosses.any():
            result ^= crosses & (first < x0 + (second - y0) * (x1 - x0) / (y1 - y0))
    return result
