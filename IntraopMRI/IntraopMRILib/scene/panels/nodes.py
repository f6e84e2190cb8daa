"""Nodes that a person chose in the panel to the frozen types that a session works on, and a simulated case to nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
from IntraopMRIReconstructionLib.data import GEOMETRY, AnyArray, Image
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.scene.attributes import PROVENANCE_ATTRIBUTE
from scipy import ndimage
from slicer.i18n import tr as _
from vtkmodules.util.numpy_support import vtk_to_numpy

from ...dicom_series import read_known
from ...scan_facts import DicomFacts
from .. import colors, conversion, looks, recipes
from ..contents import Content
from ..parameters import Metal
from ..scan_nodes import dicomFiles
from .planned_lines import POINTS_OF_LINE, diameterOf, plannedLines

#: Parts of a tumour by the words in a segment's name, as the assessment numbers them; the first match counts. Oedema
#: that counted as enhancing before surgery, and never enhances, would be told to be resected.
PARTS = (
    *((words, 3) for words in ("non-enhancing", "non enhancing", "nonenhancing", "infiltr")),
    *((words, 3) for words in ("edema", "oedema", "ödem", "flair", "snfh")),
    *((words, 2) for words in ("necro", "ncr", "cyst")),
    ("enhancing", 1),
)
WHOLE = 1
#: Matrices of grids that differ by less, in mm, are the same: far below any voxel.
SAME_GRID = 1e-4


def partOf(segmentName: str) -> int:
    """Label that a segment stands for; a name that says nothing means the whole enhancing tumour."""
    name = segmentName.lower()
    return next((value for words, value in PARTS if words in name), WHOLE)


def imageLater(node: Any, patientId: str) -> Callable[[], Image]:
    """A volume node as an Image in RAS, mm: taken from the node at once, copied by the call that it returns.

    Raises SessionError when it has no voxels, hangs under a transform, or when its orientation was assumed.
    """
    from ...session.products import check_placed

    if node.GetImageData() is None or 0 in node.GetImageData().GetDimensions():
        raise SessionError(
            _("the volume '{name}' has no voxels: choose the preoperative volume").format(name=node.GetName())
        )
    if node.GetParentTransformNode() is not None:
        raise SessionError(
            _("the volume '{name}' hangs under a transform: harden it or choose the original").format(
                name=node.GetName()
            )
        )
    array, name = slicer.util.arrayFromVolume(node), node.GetName()
    check_placed(name, {GEOMETRY: node.GetAttribute(PROVENANCE_ATTRIBUTE + GEOMETRY) or ""})
    matrix = slicer.util.arrayFromVTKMatrix(_ijkToRas(node))
    return lambda: Image(array.copy(), matrix, name=name, patient_id=patientId)


def planLater(parameters: Any, baseline: Any = None) -> Callable[[], Any]:
    """What is known before the operation: taken from the nodes at once, made by the call that it returns.

    That call may be made in any thread: it copies and counts voxels, for which the main thread has no time. Both raise
    an IntraopError that says what is missing or wrong. ``baseline``: what was left at an earlier operation. Structures
    that are called as a vertebra (C1 to S1) are no risks: each is registered on its own and carries the implant that is
    planned in it; a pedicle, with that word in its name, grades the screw that is planned through it; one that is
    called Nidus is what shall be gone. Landmarks that are named for a measure, and the planned motion of a bone, say
    what the procedure is about.
    """
    volume = parameters.preopVolume
    if volume is None:
        raise SessionError(_("no preoperative volume is chosen: choose it on page 1"))
    files, patientName = dicomFiles(volume), parameters.patientName
    patient, procedure = parameters.patientId, parameters.procedureName or _("Intraoperative control")
    preoperative = imageLater(volume, patient)
    tumour, risks = (
        None if node is None else Segments(node, volume)
        for node in (parameters.tumourSegmentation, parameters.riskSegmentation)
    )
    targets, landmarks = pointsOf(parameters.plannedTarget), pointsOf(parameters.plannedLandmarks)
    metal, screws, motion = parameters.implantMetal.key, implantsOf(parameters), None
    if parameters.plannedCorrection is not None:
        matrix = conversion.vtkMatrix(np.eye(4))
        parameters.plannedCorrection.GetMatrixTransformToWorld(matrix)
        motion = slicer.util.arrayFromVTKMatrix(matrix)

    def make() -> Any:
        from ...assess.implant import METALS_PPM, Trajectory
        from ...session import Plan
        from ...session.implants import told_apart
        from ...session.measures import kinds_of

        header = DicomFacts()
        if files:
            # A header that cannot be read says nothing; what the panel says stands.
            with contextlib.suppress(DataError):
                header = read_known(files)
        before = preoperative()
        before = replace(before, patient_id=header.patient_id or before.patient_id, metadata=header.metadata)
        known = header.patient or ({"PatientName": patientName} if patientName else {})
        trajectories = [Trajectory(*screw, METALS_PPM.get(metal)) for screw in screws]
        outlined = told_apart({} if risks is None else risks.structures(), trajectories)
        vertebrae, atRisk = outlined.vertebrae, dict(outlined.at_risk)
        nidus = next((atRisk.pop(name) for name in list(atRisk) if name.lower() == "nidus"), None)
        # Vertebrae with nothing else to assess: the alignment is what matters.
        alignment = len(vertebrae) > 1 and tumour is None and not trajectories
        return Plan(
            patient,
            procedure,
            before,
            None if tumour is None else tumour.tumour(),
            tuple(trajectories),
            targets,
            atRisk,
            landmarks,
            vertebrae,
            outlined.implanted,
            outlined.pedicles,
            measures=kinds_of(landmarks, nidus is not None, motion is not None, alignment),
            nidus=nidus,
            correction=motion,
            patient=known,
            baseline=baseline,
        )

    return make


def implantsOf(parameters: Any) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, str]]:
    """Entry, tip (3,) in the world, diameter in mm and name of each planned line. SessionError for one that is not
    placed or has the name of another."""
    found: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, str]] = []
    for line in plannedLines(parameters):
        if line.GetNumberOfControlPoints() < POINTS_OF_LINE:
            raise SessionError(
                _("the planned implant '{name}' needs two points, entry and tip").format(name=line.GetName())
            )
        if line.GetName() in [name for *_places, name in found]:
            raise SessionError(
                _("two planned implants are called '{name}': name them apart").format(name=line.GetName())
            )
        entry, tip = (placeOf(line, index, line.GetNthControlPointLabel(index)) for index in (0, 1))
        found.append((entry, tip, diameterOf(line, parameters), line.GetName()))
    return found


def pointsOf(markups: Any) -> dict[str, npt.NDArray[np.float64]]:
    """Points of a markups node (or None) by their names, in the world (preoperative RAS). SessionError for doubles."""
    found: dict[str, npt.NDArray[np.float64]] = {}
    for index in range(0 if markups is None else markups.GetNumberOfControlPoints()):
        name = markups.GetNthControlPointLabel(index) or f"{markups.GetName()} {index + 1}"
        if name in found:
            raise SessionError(
                _(
                    "two points of '{list}' are called '{name}': name them apart, since each is decided on by its name"
                ).format(list=markups.GetName(), name=name)
            )
        found[name] = placeOf(markups, index, name)
    return found


def placeOf(markups: Any, index: int, name: str) -> npt.NDArray[np.float64]:
    """A point in the world, whatever transform its markups hang under. SessionError for one that is not placed."""
    if markups.GetNthControlPointPositionStatus(index) != markups.PositionDefined:
        raise SessionError(
            _("the point '{name}' of '{list}' is not placed: place it or remove it").format(
                name=name, list=markups.GetName()
            )
        )
    place = [0.0, 0.0, 0.0]
    markups.GetNthControlPointPositionWorld(index, place)
    return np.array(place)


class Segments:
    """Segments of a node on the grid of a volume node: taken at once, worked out in any thread."""

    def __init__(self, segmentation: Any, reference: Any) -> None:
        self.name, self._volume = segmentation.GetName(), reference.GetName()
        self._shape = slicer.util.arrayFromVolume(reference).shape[:3]
        self._grid = slicer.util.arrayFromVTKMatrix(_ijkToRas(reference))
        ids = segmentation.GetSegmentation().GetSegmentIDs()
        self._parts = [self._part(segmentation, segmentId, reference) for segmentId in ids]
        labels = (segmentation.GetSegmentation().GetSegment(each).GetRepresentation("Binary labelmap") for each in ids)
        #: Whether there is a voxel anywhere; a segment without labels may be a surface.
        self._drawn = any(
            label is None or (label.GetNumberOfPoints() and label.GetScalarRange()[1]) for label in labels
        )

    def tumour(self) -> Image:
        """All segments as one label image on the grid of the volume; see PARTS. SessionError when it has no voxel."""
        labels = np.zeros(self._shape, dtype=np.uint8)
        for part in self._parts:
            found = part.covered()
            if found is not None:
                box, mask = found
                labels[box][mask & (labels[box] == 0)] = partOf(part.name)
        if not labels.any():
            raise SessionError(
                _(
                    "'{name}' covers no voxel of '{volume}': it is empty, or was drawn on another volume. Choose the "
                    "segmentation that belongs to this one"
                ).format(name=self.name, volume=self._volume)
            )
        return Image(labels, self._grid, name=self.name)

    def outline(self) -> Image:
        """The same of an outline that may be empty: nobody has drawn a voxel. SessionError when it lies elsewhere."""
        if not self._drawn:
            return Image(np.zeros(self._shape, dtype=np.uint8), self._grid, name=self.name)
        return self.tumour()

    def structures(self) -> dict[str, Image]:
        """Segments by their names, each on the part of the grid that it covers. SessionError: empty, or twice."""
        structures: dict[str, Image] = {}
        for part in self._parts:
            found, name = part.covered(), part.name
            if found is None:
                raise SessionError(
                    _(
                        "the structure at risk '{name}' is empty or lies outside '{volume}': segment it there, or "
                        "remove the segment"
                    ).format(name=name, volume=self._volume)
                )
            if name in structures:
                raise SessionError(_("two structures at risk are called '{name}': name them apart").format(name=name))
            box, mask = found
            corner = self._grid.copy()
            corner[:3, 3] = apply(self._grid, np.array([side.start for side in box[::-1]], dtype=np.float64))
            structures[name] = Image(mask.astype(np.uint8), corner, name)
        return structures

    def _part(self, segmentation: Any, segmentId: str, reference: Any) -> _Part:
        """A labelmap on that very grid, the usual case, is read where it lies: resampling the whole grid for each
        segment would hold the main thread for as long as a person notices."""
        segment = segmentation.GetSegmentation().GetSegment(segmentId)
        labels = segment.GetRepresentation("Binary labelmap")
        matrix = conversion.vtkMatrix(np.eye(4))
        if labels is not None:
            labels.GetImageToWorldMatrix(matrix)
        apart = np.abs(slicer.util.arrayFromVTKMatrix(matrix) - self._grid).max()
        if labels is None or segmentation.GetParentTransformNode() is not None or apart > SAME_GRID:
            array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, reference)
            return _Part(segment.GetName(), array, (0, 0, 0), 1)
        offset = tuple(max(0, start) for start in labels.GetExtent()[4::-2])
        return _Part(segment.GetName(), _within(labels, self._shape), offset, segment.GetLabelValue())


@dataclass(frozen=True, eq=False)
class _Part:
    """A segment where ``array`` (k, j, i), whose first voxel is ``offset`` of the grid, has ``value``; or None."""

    name: str
    array: AnyArray | None
    offset: tuple[int, ...]
    value: int

    def covered(self) -> tuple[tuple[slice, ...], npt.NDArray[np.bool_]] | None:
        """The box (k, j, i) that it covers on the grid and the mask in it; None when it is empty there."""
        if self.array is None:
            return None
        mask = self.array == self.value
        boxes = ndimage.find_objects(mask.view(np.uint8))
        if not boxes:
            return None
        placed = tuple(
            slice(side.start + start, side.stop + start) for side, start in zip(boxes[0], self.offset, strict=True)
        )
        return placed, mask[boxes[0]]


def _within(labels: Any, shape: tuple[int, ...]) -> AnyArray | None:
    """Voxels of a vtkOrientedImageData as far as they lie in a grid of that ``shape`` (k, j, i)."""
    i0, i1, j0, j1, k0, k1 = labels.GetExtent()
    if i1 < i0 or j1 < j0 or k1 < k0 or labels.GetPointData().GetScalars() is None:
        return None
    array = vtk_to_numpy(labels.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    inside = tuple(slice(max(0, -start), max(0, size - start)) for start, size in zip((k0, j0, i0), shape, strict=True))
    return np.asarray(array[inside])


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A simulated case with what it shows, converted. ``tumour``, ``structures``: vtkSegmentation, None without.

    ``structures``: those at risk, or vertebrae.
    """

    case: Any
    volume: Content
    tumour: Any
    structures: Any


def prepareCase(case: Any) -> PreparedCase:
    """Convert a simulated case; in any thread."""
    image = case.preop if case.preop is not None else case.spine_preop
    tumour = structures = None
    if case.preop is not None and case.tumour is not None:
        names = {1: "enhancing", 2: "necrosis", 3: "non-enhancing"}
        segments = {value: (name, name, colors.TUMOUR) for value, name in names.items()}
        tumour = conversion.segmentationOf(case.tumour, segments)
    for labels, names, color in (
        (case.at_risk, case.plan.at_risk, colors.AT_RISK),
        (case.vertebrae, case.plan.vertebrae, colors.ANATOMY),
    ):
        if labels is not None:
            parts = {value: (name, name, color) for value, name in enumerate(names, start=1)}
            structures = conversion.segmentationOf(labels, parts)
    return PreparedCase(case, recipes.volume(image, _("Preoperative volume")), tumour, structures)


def showSimulatedCase(prepared: PreparedCase, parameters: Any) -> Iterator[None]:
    """Put a simulated case into the scene and choose it, as a person would with the patient's own data.

    One node a step: all at once would hold the main thread for as long as a person notices. Chosen is all of it at the
    end, so that nothing rests on a part.
    """
    plan = prepared.case.plan
    chosen: dict[str, Any] = {"patientId": plan.patient_id, "patientName": plan.patient_name}
    volume = slicer.mrmlScene.AddNewNodeByClass(prepared.volume.nodeClass, prepared.volume.name)
    volume.CreateDefaultDisplayNodes()
    prepared.volume.fill(volume)
    chosen["preopVolume"] = volume
    yield
    if prepared.tumour is not None:
        chosen["procedureName"] = _("Tumour resection, intraoperative control")
        chosen["tumourSegmentation"] = _segmentationNode(_("Tumour"), prepared.tumour)
        yield
        if prepared.structures is not None:
            chosen["riskSegmentation"] = _segmentationNode(_("At risk"), prepared.structures)
            yield
        if plan.points:
            target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("Target"))
            target.CreateDefaultDisplayNodes()
            looks.targets(target)
            # Entry and target lie near one another: larger, their names would too.
            target.GetDisplayNode().SetTextScale(2.6)
            for name, place in plan.points.items():
                target.AddControlPoint(*place, name)
            chosen["plannedTarget"] = target
            yield
    elif plan.implant is not None:
        chosen["procedureName"] = _("Pedicle screw, intraoperative control")
        side = _("right") if plan.implant.entry_ras_mm[0] > 0 else _("left")
        line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", _("Screw L3 {side}").format(side=side))
        line.CreateDefaultDisplayNodes()
        looks.plannedLine(line)
        line.AddControlPoint(*plan.implant.entry_ras_mm, "entry")
        line.AddControlPoint(*plan.implant.tip_ras_mm, "tip")
        metal = Metal.ofSusceptibility(plan.implant.susceptibility_ppm)
        chosen |= {"implantDiameterMm": plan.implant.diameter_mm, "implantMetal": metal, "plannedImplant": line}
        yield
        if prepared.structures is not None:
            node = _segmentationNode(_("Vertebrae"), prepared.structures)
            node.GetDisplayNode().SetVisibility(False)
            chosen["riskSegmentation"] = node
            yield
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    yield
    with slicer.util.NodeModify(parameters):
        for name, value in chosen.items():
            parameters.setValue(name, value)


def _segmentationNode(name: str, segmentation: Any) -> Any:
    """A node with outlines only: the image inside is read."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetAndObserveSegmentation(segmentation)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(0.0)
    return node


def _ijkToRas(node: Any) -> Any:
    matrix = conversion.vtkMatrix(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    return matrix
