"""How each kind of thing in a session becomes the content of one node."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError

from . import colors, conversion, looks
from .contents import Content
from .transforms import gridTransform


def volume(image: Image, name: str) -> Content:
    """Scalar volume with grey levels that show its tissue."""
    data = conversion.vtkImageOf(image.array)
    window, level = conversion.windowLevel(image.array)
    matrix = conversion.vtkMatrix(image.ras_from_ijk)

    def fill(node: Any) -> None:
        node.SetAndObserveImageData(data)
        node.SetIJKToRASMatrix(matrix)
        looks.volume(node, window, level)

    return Content("vtkMRMLScalarVolumeNode", name, fill, attributes=origin(image))


def segmentation(labels: Image, name: str, segments: Mapping[int, Any], show: Callable[[Any], None]) -> Content:
    """Segmentation with one segment a label: value to (segment id, name, colour)."""
    data = conversion.segmentationOf(labels, segments)

    def fill(node: Any) -> None:
        node.SetAndObserveSegmentation(data)
        show(node)

    return Content("vtkMRMLSegmentationNode", name, fill, attributes=origin(labels))


def tumour(labels: Image, name: str) -> Content:
    """Outline of the tumour before the operation; not 0 is tumour. DataError when there is none."""
    if not np.any(labels.array):
        raise DataError("the tumour segmentation is empty: no voxel differs from 0; choose the right segmentation")
    whole = replace(labels, array=(labels.array != 0).astype(np.uint8))
    return segmentation(whole, name, {1: ("tumour", name, colors.TUMOUR)}, looks.outline)


def residual(left: Image, resected: Image | None) -> Content:
    """Residual (red) and resected part, labels on one grid (not 0 is part of it)."""
    part = left.array != 0
    joined = part.astype(np.uint8)
    segments = {1: ("residual", "Residual", colors.RESIDUAL)}
    if resected is not None:
        joined[(resected.array != 0) & ~part] = 2
        segments[2] = ("resected", "Resected", colors.RESECTED)
    labels = replace(left, array=joined)
    return segmentation(labels, "Residual and resected", segments, looks.residual)


def points(name: str, placed: Mapping[str, Sequence[float]], show: Callable[[Any], None]) -> Content:
    """Named points, locked."""

    def fill(node: Any) -> None:
        node.RemoveAllControlPoints()
        for label, position in placed.items():
            node.AddControlPoint(*position, label)
        node.SetLocked(True)

    return Content("vtkMRMLMarkupsFiducialNode", name, fill, show)


def line(name: str, start: Sequence[float], end: Sequence[float]) -> Content:
    """Line from entry to tip, locked, that keeps the coordinates; a mesh beside it is what is seen."""

    def fill(node: Any) -> None:
        node.RemoveAllControlPoints()
        node.AddControlPoint(*start, "entry")
        node.AddControlPoint(*end, "tip")
        node.SetLocked(True)

    return Content("vtkMRMLMarkupsLineNode", name, fill, looks.hiddenLine)


def model(name: str, mesh: Any, show: Callable[[Any], None], parent: str = "") -> Content:
    """Surface (vtkPolyData)."""
    return Content("vtkMRMLModelNode", name, lambda node: node.SetAndObservePolyData(mesh), show, parent=parent)


def transform(name: str, matrix: npt.ArrayLike, attributes: Mapping[str, str]) -> Content:
    """Linear transform to its parent, (4, 4), mm."""
    data = conversion.vtkMatrix(matrix)

    def fill(node: Any) -> None:
        node.SetMatrixTransformToParent(data)

    return Content("vtkMRMLLinearTransformNode", name, fill, attributes=attributes)


def shift(name: str, displacement: Image) -> Content:
    """Grid transform from its parent: displacements (k, j, i, 3), RAS mm."""
    data = gridTransform(displacement)
    return Content("vtkMRMLGridTransformNode", name, lambda node: node.SetAndObserveTransformFromParent(data))


def origin(image: Image) -> dict[str, str]:
    """Attributes that say what a node shows: uid, patient, time, source."""
    result = {"Uid": image.uid, **{f"Source.{key}": value for key, value in image.metadata.items()}}
    if image.patient_id:
        result["PatientId"] = image.patient_id
    if image.acquired_utc_s is not None:
        result["AcquiredUtc"] = utc(image.acquired_utc_s)
    return result


def utc(seconds: float) -> str:
    """POSIX seconds as ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")


def point(values: npt.ArrayLike, what: str) -> list[float]:
    """Three finite coordinates in mm, or DataError that names ``what``."""
    position = np.asarray(values, dtype=np.float64)
    if position.shape != (3,) or not np.isfinite(position).all():
        raise DataError(f"{what} must be three finite RAS coordinates in mm, got {position.tolist()}")
    return list(position.tolist())


def segment(start: npt.ArrayLike, end: npt.ArrayLike, what: str) -> tuple[list[float], list[float]]:
    """Both ends of something with a length, or DataError that names ``what``."""
    ends = point(start, f"entry of {what}"), point(end, f"tip of {what}")
    if ends[0] == ends[1]:
        raise DataError(f"{what} has no length: entry and tip are both {ends[0]}")
    return ends
