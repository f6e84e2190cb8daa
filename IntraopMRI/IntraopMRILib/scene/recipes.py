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
from IntraopMRIReconstructionLib.reconstruct.quantity_image import UNIT
from IntraopMRIReconstructionLib.scene.quantity_colors import inColour, legend

from ..register.carry_over import shown_arrows, shown_distance, shown_shift, shown_uncertainty
from ..register.deformable import DeformableRegistration
from ..session.updates import HeatMeasured, MapReady
from . import colors, conversion, looks
from .contents import ATTRIBUTE, Content, nodeOf
from .transforms import gridTransform

#: Roles of what shows a brain shift.
SHIFT_MAP, UNCERTAINTY_MAP, ARROWS, CAVITY = "result.shift", "result.uncertainty", "result.arrows", "result.cavity"
DISAGREEMENT_MAP = "result.disagreement"
#: The colours of a map end at least here, mm, so that noise does not look like a shift.
LEAST_TOP_MM = 2.0
#: They end where this part (%) of the brain lies below: a few voxels at the cavity's wall would darken all others.
TOP_PERCENT = 99.0


def volume(image: Image, name: str) -> Content:
    """Scalar volume with grey levels that show its tissue."""
    data = conversion.vtkImageOf(image.array)
    window, level = conversion.windowLevel(image.array)
    matrix = conversion.vtkMatrix(image.ras_from_ijk)

    def fill(node: Any) -> None:
        # Grey levels first: a display that chooses its own looks through all voxels, on the main thread.
        looks.volume(node, window, level)
        node.SetAndObserveImageData(data)
        node.SetIJKToRASMatrix(matrix)

    return Content("vtkMRMLScalarVolumeNode", name, fill, attributes=origin(image))


def preview(image: Image, name: str) -> Content:
    """Volume of a scan that still arrives; a saved scene does not keep it."""
    return replace(volume(image, name), saved=False)


def maps(found: MapReady) -> dict[str, Content]:
    """Maps of quantities, by number as roles, and the picture below them; not known (NaN) and near 0 is clear."""
    result = {str(number): _quantity(image) for number, image in enumerate(found.maps)}
    if found.picture is not None:
        result["picture"] = volume(found.picture, found.picture.name or "Picture")
        edge = model("Measured inside", conversion.box(found.picture), looks.frame)
        result["frame"] = replace(edge, saved=False)
    return result


def surroundings(scan: Any) -> Content:
    """A scan's node, dimmed, to stand around a map that shows less of the patient; its voxels are not copied."""
    data, matrix = scan.GetImageData(), conversion.vtkMatrix(np.eye(4))
    scan.GetIJKToRASMatrix(matrix)

    def fill(node: Any) -> None:
        looks.dimmed(node, scan)
        node.SetAndObserveImageData(data)
        node.SetIJKToRASMatrix(matrix)

    attributes = {"Uid": scan.GetAttribute(f"{ATTRIBUTE}Uid") or ""}
    return Content(scan.GetClassName(), f"{scan.GetName()}, dimmed", fill, attributes=attributes, saved=False)


def heat(found: HeatMeasured) -> dict[str, Content]:
    """What is drawn of an ablation, by role: what has reached the lethal dose, and what a person has marked."""
    result = {}
    if found.numbers.lethal is not None:
        segments, tints = {1: ("lethal", "Above the lethal dose", colors.STORED)}, {"lethal": colors.LETHAL}
        dose = segmentation(found.numbers.lethal, "Lethal dose (240 CEM43)", segments, looks.lethal)
        result["lethal"] = replace(dose, tints=tints)
    if found.heating.spot_ras_mm is not None:
        mesh = conversion.sphere(found.heating.spot_ras_mm, found.heating.radius_mm)
        result["mark"] = model("Heat, as marked", mesh, looks.mark)
    return result


def _quantity(image: Image) -> Content:
    """Volume in colours with a legend that names what they mean, and its unit."""
    data, matrix = conversion.vtkImageOf(image.array), conversion.vtkMatrix(image.ras_from_ijk)

    def fill(node: Any) -> None:
        inColour(node, image)
        node.SetAndObserveImageData(data)
        node.SetIJKToRASMatrix(matrix)
        legend(node, image)

    attributes = {**origin(image), "Unit": image.metadata[UNIT]}
    return Content("vtkMRMLScalarVolumeNode", image.name, fill, attributes=attributes)


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
    return segmentation(whole, name, {1: ("tumour", name, colors.TUMOUR)}, looks.tumour)


def at_risk(labels: Image, name: str) -> Content:
    """Outline of a structure to spare; not 0 belongs to it."""
    whole = replace(labels, array=(labels.array != 0).astype(np.uint8))
    return segmentation(whole, name, {1: ("risk", name, colors.AT_RISK)}, looks.outline)


def bone(labels: Image, name: str) -> Content:
    """Outline of a vertebra before the operation; not 0 belongs to it."""
    whole = replace(labels, array=(labels.array != 0).astype(np.uint8))
    return segmentation(whole, name, {1: ("bone", name, colors.TUMOUR)}, looks.bone)


def piece(image: Image, name: str) -> Content:
    """Part of a volume, to be laid over another one; its lowest value is not shown."""
    whole = volume(image, name)
    lowest = float(image.array.min())

    def fill(node: Any) -> None:
        whole.fill(node)
        looks.cutOut(node, lowest)

    return replace(whole, fill=fill)


def planned(name: str, entry: npt.ArrayLike, tip: npt.ArrayLike, radius_mm: float) -> dict[str, Content]:
    """A planned trajectory ((3,) RAS mm), by role: a line and its dashes. DataError when it has no length."""
    start, end = segment(entry, tip, f"plan '{name}'")
    mesh = conversion.dashes(start, end, radius_mm)
    return {
        f"plan.{name}.line": line(f"{name} planned", start, end),
        f"plan.{name}.dashes": model(f"{name} planned (dashes)", mesh, looks.planned),
    }


def actual(name: str, entry: npt.ArrayLike, tip: npt.ArrayLike, radius_mm: float) -> dict[str, Content]:
    """An implant as it was found ((3,) RAS mm), by role: axis line and cylinder. DataError when it has no length."""
    start, end = segment(entry, tip, f"implant '{name}'")
    mesh = conversion.cylinder(start, end, radius_mm)
    return {
        f"implant.{name}.line": line(f"{name} actual", start, end),
        f"implant.{name}.cylinder": model(f"{name} actual (cylinder)", mesh, looks.actual),
    }


def residual(left: Image, resected: Image | None) -> Content:
    """Residual (red) and resected part, labels on one grid (not 0 is part of it); without a session both are grey."""
    part = left.array != 0
    joined = part.astype(np.uint8)
    segments, tints = {1: ("residual", "Residual", colors.STORED)}, {"residual": colors.RESIDUAL}
    if resected is not None:
        joined[(resected.array != 0) & ~part] = 2
        segments[2], tints["resected"] = ("resected", "Resected", colors.STORED_RESECTED), colors.RESECTED
    labels = replace(left, array=joined)
    return replace(segmentation(labels, "Residual and resected", segments, looks.residual), tints=tints)


def piece_mark(name: str, place: Sequence[float], radius_mm: float) -> Content:
    """A ball around a piece of the residual: a circle in the slices, faint in 3D; a saved scene does not keep it."""
    return replace(model(name, conversion.sphere(place, radius_mm), looks.mark), saved=False)


def named_point(name: str, place: Sequence[float], show: Callable[[Any], None]) -> Content:
    """One point, locked, labelled with the title of its node."""

    def fill(node: Any) -> None:
        node.RemoveAllControlPoints()
        node.AddControlPoint(*place, node.GetName())
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


def brain_shift(found: DeformableRegistration) -> dict[str, Content]:
    """What shows a brain shift, by role: a map of it and one of its uncertainty, arrows, the cavity if there is one."""
    result: dict[str, Content] = {}
    for role, image, scale in (
        (SHIFT_MAP, shown_shift(found), colors.SHIFT_SCALE),
        (UNCERTAINTY_MAP, shown_uncertainty(found), colors.UNCERTAINTY_SCALE),
    ):
        result |= _map(role, image, scale)
    result[f"colors.{ARROWS}"] = _oneColor("Brain shift arrows colour", colors.ARROW)
    result[ARROWS] = _arrows(shown_arrows(found))
    if np.any(found.cavity.array):
        # Darker than the residual: beside it both are grey in a Slicer without a session.
        segments, tints = {1: ("cavity", "Cavity", colors.STORED_RESECTED)}, {"cavity": colors.CAVITY}
        whole = replace(found.cavity, array=(found.cavity.array != 0).astype(np.uint8))
        cavity = segmentation(whole, "Resection cavity", segments, looks.cavity)
        result[CAVITY] = replace(cavity, tints=tints)
    return result


def disagreement(distance: Image, found: DeformableRegistration) -> dict[str, Content]:
    """Map of how far (mm) another registration is from ``found``, by role; ``distance``: (k, j, i) on its grid."""
    return _map(DISAGREEMENT_MAP, shown_distance(distance, found), colors.UNCERTAINTY_SCALE)


def _map(role: str, image: Image, scale: colors.Scale) -> dict[str, Content]:
    known = image.array[image.array >= 0]
    top = max(LEAST_TOP_MM, float(np.ceil(np.percentile(known, TOP_PERCENT))) if known.size else 0.0)
    table = f"colors.{role}"
    return {table: _colorTable(f"{image.name} colours", scale), role: _colorMap(image, top, table)}


def _arrows(displacement: Image) -> Content:
    """Displacements that are only drawn, where the map is: nothing hangs under them."""
    data = gridTransform(displacement)

    def fill(node: Any) -> None:
        node.SetAndObserveTransformToParent(data)

    def show(node: Any) -> None:
        looks.arrows(node, *(nodeOf(node.GetScene(), role) for role in (SHIFT_MAP, f"colors.{ARROWS}")))

    return Content("vtkMRMLGridTransformNode", displacement.name, fill, show, saved=False)


def _oneColor(name: str, color: colors.Color) -> Content:
    def fill(node: Any) -> None:
        function = node.GetColorTransferFunction()
        function.RemoveAllPoints()
        for value in (0.0, 100.0):
            function.AddRGBPoint(value, *color)
        node.SetHideFromEditors(True)

    return Content("vtkMRMLProceduralColorNode", name, fill, saved=False)


def _colorTable(name: str, scale: colors.Scale) -> Content:
    table = scale.table()

    def fill(node: Any) -> None:
        node.SetTypeToUser()
        node.SetNumberOfColors(len(table))
        for index, color in enumerate(table):
            node.SetColor(index, str(index), *color)
        node.SetHideFromEditors(True)

    return Content("vtkMRMLColorTableNode", name, fill, saved=False)


def _colorMap(image: Image, top: float, tableRole: str) -> Content:
    """Volume in colours from 0 to ``top`` with a legend; values below 0 are not shown."""
    data, matrix = conversion.vtkImageOf(image.array), conversion.vtkMatrix(image.ras_from_ijk)

    def fill(node: Any) -> None:
        # Colours first, as the grey levels of :func:`volume`.
        looks.colorMap(node, top, nodeOf(node.GetScene(), tableRole))
        node.SetAndObserveImageData(data)
        node.SetIJKToRASMatrix(matrix)

    return Content("vtkMRMLScalarVolumeNode", image.name, fill, attributes=origin(image), saved=False)


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
