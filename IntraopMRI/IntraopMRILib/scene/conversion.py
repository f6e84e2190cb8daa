"""Frozen types to VTK objects: images, segmentations, matrices and small meshes. Touches no scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
import slicer
import vtk
from IntraopMRIReconstructionLib.data import AnyArray, Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import closed_mm
from scipy import ndimage
from vtkmodules.util.numpy_support import numpy_to_vtk

from .colors import Color

#: Types that VTK, NRRD and Slicer's editors all handle; wider ones are narrowed to these.
_NARROWER = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.int32}
#: Window beyond the brightest tissue.
_HEADROOM = 1.2
#: Upper end of the grey scale over the upper quartile of tissue: twice leaves room for enhancement.
_OVER_QUARTILE = 2.0
#: Sides of the cylinders and tubes.
_SIDES = 24
#: Length of a dash and of the gap behind it in a planned trajectory, mm.
DASH_MM, GAP_MM = 3.0, 2.0
#: Gaps of a head's outline that are closed, voxels of the coarse grid.
CLOSED_VOXELS = 2
#: Neighbours in a plane across the first axis.
_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def vtkMatrix(matrix: npt.ArrayLike) -> Any:
    """(4, 4) array to vtkMatrix4x4."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result


def vtkImageOf(array: AnyArray) -> Any:
    """(k, j, i) array to vtkImageData with unit spacing; the content is copied."""
    if array.ndim != 3:
        raise DataError(f"a volume in the scene must have shape (k, j, i), got {array.shape}: pass one component")
    if array.dtype.kind not in "fiub":
        raise DataError(f"a volume in the scene must be real, got {array.dtype}: take the magnitude first")
    narrowed = np.ascontiguousarray(array, dtype=_NARROWER.get(array.dtype, array.dtype))
    if narrowed.dtype.kind == "b":
        narrowed = narrowed.astype(np.uint8)
    if np.shares_memory(narrowed, array):
        narrowed = narrowed.copy()
    result = vtk.vtkImageData()
    result.SetDimensions(*reversed(array.shape))
    # The copy is made by numpy, which lets other threads run meanwhile; VTK's own would hold them up.
    result.GetPointData().SetScalars(numpy_to_vtk(narrowed.ravel(), deep=False))
    return result


def windowLevel(array: AnyArray) -> tuple[float, float]:
    """Window and level that show the tissue: from the darkest to above the 99.5th percentile of what is not air.

    The headroom keeps white matter below white, so that enhancement stands out. Fat beside a surface coil is far
    brighter than the brain and must not darken it: the upper end stays within a multiple of the upper quartile.
    """
    sample = array.ravel()[:: max(1, array.size // 200_000)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0 or sample.max() <= sample.min():
        return 1.0, 0.5
    low = float(sample.min())
    tissue = sample[sample > low + 0.05 * (sample.max() - low)]
    quartile, top = np.percentile(tissue, (75.0, 99.5)) - low
    window = float(min(_HEADROOM * top, _OVER_QUARTILE * quartile))
    return window, low + window / 2.0


def segmentationOf(labels: Image, segments: Mapping[int, tuple[str, str, Color]]) -> Any:
    """Label image to vtkSegmentation with a closed surface for 3D.

    ``segments``: label value to (segment id, name, colour). A label without a voxel becomes an empty segment, so that
    'no residual' is said by the scene and not by a missing name. Only the box around each label is copied.

    The surface is the one that Slicer makes (vtkBinaryLabelmapToClosedSurfaceConversionRule with its defaults), so that
    it stays as it is when a person edits the segment. Slicer's own call would stop every other thread meanwhile.
    """
    if labels.array.ndim != 3 or labels.array.dtype.kind not in "iub":
        raise DataError(f"labels must be integers of shape (k, j, i), got {labels.array.dtype} {labels.array.shape}")
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName("Binary labelmap")
    for value, (identifier, name, color) in segments.items():
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*color)
        label = _orientedLabel(labels.array == value, labels.ras_from_ijk)
        segment.AddRepresentation("Binary labelmap", label)
        segment.AddRepresentation("Closed surface", _closedSurface(label, labels.ras_from_ijk))
        segmentation.AddSegment(segment, identifier)
    return segmentation


def _closedSurface(label: Any, rasFromIjk: npt.ArrayLike) -> Any:
    """Smoothed surface of a vtkOrientedImageData of 0 and 1 as vtkPolyData in RAS mm, closed at the edge as well."""
    if label.GetNumberOfPoints() == 0:
        return vtk.vtkPolyData()
    plain = vtk.vtkImageData()
    plain.ShallowCopy(label)
    plain.SetOrigin(0.0, 0.0, 0.0)
    plain.SetSpacing(1.0, 1.0, 1.0)
    padded = vtk.vtkImageConstantPad()
    padded.SetInputData(plain)
    padded.SetOutputWholeExtent([end + (1 if index % 2 else -1) for index, end in enumerate(label.GetExtent())])
    surface = vtk.vtkDiscreteFlyingEdges3D()
    surface.SetInputConnection(padded.GetOutputPort())
    surface.SetValue(0, 1)
    surface.ComputeGradientsOff()
    surface.ComputeNormalsOff()
    surface.ComputeScalarsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(surface.GetOutputPort())
    smooth.SetNumberOfIterations(40)
    smooth.SetPassBand(0.01)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    normals = _placed(smooth, rasFromIjk)
    normals.ConsistencyOn()
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def _placed(surface: Any, rasFromIjk: npt.ArrayLike) -> Any:
    """Filter that gives what the filter ``surface`` gives in RAS mm, with normals; ready to be set and updated."""
    transform = vtk.vtkTransform()
    transform.SetMatrix(vtkMatrix(rasFromIjk))
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetInputConnection(surface.GetOutputPort())
    placed.SetTransform(transform)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(placed.GetOutputPort())
    return normals


def _orientedLabel(mask: npt.NDArray[np.bool_], rasFromIjk: npt.ArrayLike) -> Any:
    """The box around ``mask`` (one voxel wider) as vtkOrientedImageData on the grid of the whole image."""
    result = slicer.vtkOrientedImageData()
    result.SetImageToWorldMatrix(vtkMatrix(rasFromIjk))
    found = ndimage.find_objects(mask.view(np.uint8))
    if not found:
        result.SetExtent(0, -1, 0, -1, 0, -1)
        result.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        return result
    ends = [(max(0, s.start - 1), min(size, s.stop + 1)) for s, size in zip(found[0], mask.shape, strict=True)]
    box = mask[tuple(slice(*end) for end in ends)].astype(np.uint8)
    (k0, k1), (j0, j1), (i0, i1) = ends
    result.SetExtent(i0, i1 - 1, j0, j1 - 1, k0, k1 - 1)
    result.GetPointData().SetScalars(numpy_to_vtk(box.ravel(), deep=True))
    return result


def cylinder(start: npt.ArrayLike, end: npt.ArrayLike, radiusMm: float) -> Any:
    """Closed cylinder from ``start`` to ``end`` (RAS mm) as vtkPolyData."""
    return _tube([(np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64))], radiusMm)


def sphere(centre: npt.ArrayLike, radiusMm: float) -> Any:
    """Sphere about ``centre`` (RAS mm) as vtkPolyData."""
    source = vtk.vtkSphereSource()
    source.SetCenter(*np.asarray(centre, dtype=np.float64))
    source.SetRadius(radiusMm)
    source.SetThetaResolution(64)
    source.SetPhiResolution(64)
    source.Update()
    return source.GetOutput()


def box(image: Image) -> Any:
    """Edge of what an image shows, outer faces of its voxels, as vtkPolyData in RAS mm."""
    source = vtk.vtkCubeSource()
    k, j, i = image.array.shape[:3]
    source.SetBounds(-0.5, i - 0.5, -0.5, j - 0.5, -0.5, k - 0.5)
    place, placed = vtk.vtkTransform(), vtk.vtkTransformPolyDataFilter()
    place.SetMatrix(vtkMatrix(image.ras_from_ijk))
    placed.SetTransform(place)
    placed.SetInputConnection(source.GetOutputPort())
    placed.Update()
    return placed.GetOutput()


def dashes(start: npt.ArrayLike, end: npt.ArrayLike, radiusMm: float) -> Any:
    """The same line in dashes: what is planned and not yet there."""
    first, last = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    length = float(np.linalg.norm(last - first))
    direction = (last - first) / length
    starts = np.arange(0.0, length, DASH_MM + GAP_MM)
    return _tube([(first + s * direction, first + min(s + DASH_MM, length) * direction) for s in starts], radiusMm)


def pointerMesh(lengthMm: float = 90.0, radiusMm: float = 1.2, coneMm: float = 4.0) -> Any:
    """A pointer in its own frame: tip in the origin, shaft along +z."""
    cone = vtk.vtkConeSource()
    cone.SetDirection(0.0, 0.0, -1.0)
    cone.SetHeight(coneMm)
    cone.SetCenter(0.0, 0.0, coneMm / 2.0)
    cone.SetRadius(radiusMm)
    cone.SetResolution(_SIDES)
    cone.Update()
    return _appended([cone.GetOutput(), cylinder((0, 0, coneMm), (0, 0, lengthMm), radiusMm)])


def anatomySurface(image: Image, spacingMm: float = 2.5) -> Any:
    """Outer surface of the head or body in ``image`` as vtkPolyData in RAS mm, coarse: for bearings, not for measuring.

    Threshold after Otsu (IEEE Trans. SMC 1979) on a grid of ``spacingMm``, largest connected part, smoothed.
    """
    steps = np.maximum(1, np.round(spacingMm / image.spacing_mm)).astype(int)
    coarse = SimpleITK.GetImageFromArray(np.ascontiguousarray(image.array, dtype=np.float32))
    coarse = SimpleITK.BinShrink(coarse, steps.tolist())
    parts = SimpleITK.ConnectedComponent(
        SimpleITK.OtsuThreshold(SimpleITK.SmoothingRecursiveGaussian(coarse, 1.0), 0, 1)
    )
    largest = SimpleITK.RelabelComponent(parts, sortByObjectSize=True) == 1
    solid = np.pad(closed_mm(SimpleITK.GetArrayFromImage(largest) > 0, CLOSED_VOXELS, 1.0), 1)
    # Skull and sinuses are dark but open to the outside somewhere: fill what a plane of any direction encloses. The
    # first voxel of a plane lies outside.
    for axis in range(3):
        planes = np.moveaxis(solid, axis, 0)
        parts, _ = ndimage.label(~planes, _IN_PLANE)
        solid = np.moveaxis(parts != parts[:, :1, :1], 0, axis)
    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(vtkImageOf(ndimage.gaussian_filter(solid.astype(np.float32), 1.2)))
    surface.SetValue(0, 0.5)
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(surface.GetOutputPort())
    smooth.SetNumberOfIterations(20)
    smooth.SetPassBand(0.05)
    place = np.eye(4)
    # Voxel 1 of the padded coarse grid is centred on the middle of the first block of fine voxels.
    place[:3, :3] = image.ras_from_ijk[:3, :3] * steps
    place[:3, 3] = (image.ras_from_ijk @ np.append((steps - 1) / 2.0 - steps, 1.0))[:3]
    normals = _placed(smooth, place)
    normals.SplittingOff()
    normals.AutoOrientNormalsOn()
    normals.Update()
    return normals.GetOutput()


def _tube(pieces: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], radiusMm: float) -> Any:
    meshes = []
    for start, end in pieces:
        line = vtk.vtkLineSource()
        line.SetPoint1(*start)
        line.SetPoint2(*end)
        tube = vtk.vtkTubeFilter()
        tube.SetInputConnection(line.GetOutputPort())
        tube.SetRadius(radiusMm)
        tube.SetNumberOfSides(_SIDES)
        tube.CappingOn()
        tube.Update()
        meshes.append(tube.GetOutput())
    return _appended(meshes)


def _appended(meshes: Sequence[Any]) -> Any:
    append = vtk.vtkAppendPolyData()
    for mesh in meshes:
        append.AddInputData(mesh)
    append.Update()
    return append.GetOutput()
