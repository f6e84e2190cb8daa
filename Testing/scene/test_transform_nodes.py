"""Markups and volumes below the nodes land where the registration says, and the nodes survive a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.scene import conversion
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.transforms import Direction, addDeformableTransform, addRigidTransform, gridTransform
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, invert, rotation_about
from scipy.ndimage import map_coordinates
from vtkmodules.util.numpy_support import vtk_to_numpy

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
REFUSED = Verdict((Reason("overlap", 10.0, "%", "above 60 %", Level.REFUSED),))
SIZE = (40, 44, 36)
#: Markups pass through VTK's inverse of a trilinear grid of 3 mm.
POINT_TOLERANCE_MM = 0.02


def pose() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), 17.0)
    matrix[:3, 3] = (6.0, -9.0, 14.0)
    return matrix


def sunk(points: np.ndarray) -> np.ndarray:
    """Shift at intraoperative points: 8 mm at one spot, smooth."""
    weight = np.exp(-np.sum((points - (20.0, 0.0, 25.0)) ** 2, axis=-1) / 30.0**2)
    return np.asarray(8.0 * weight[..., None] * np.array([0.6, 0.0, 0.8]))


@pytest.fixture
def deformable(directions: np.ndarray) -> Callable[[Verdict], DeformableRegistration]:
    matrix = corner_from_centre(directions * 3.0, (5.0, 3.0, 10.0), SIZE)
    k, j, i = np.indices(SIZE[::-1])
    points = apply(matrix, np.stack([i, j, k], axis=-1).astype(float))
    shift = sunk(points)
    inverse = -shift
    for _ in range(30):
        inverse = -sunk(points + inverse)
    scalar = Image(np.ones(SIZE[::-1], np.uint8), matrix)

    def make(verdict: Verdict) -> DeformableRegistration:
        return DeformableRegistration(
            pose(), Image(shift, matrix), Image(inverse, matrix), scalar, scalar, scalar, verdict, False, 1.0
        )

    return make


def rigid(verdict: Verdict = GOOD) -> RigidRegistration:
    return RigidRegistration(pose(), verdict, 1.0, 0.5, 0.9, 0.1, 1.0)


def markup(scene: Any, points: np.ndarray, parent: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    for point in points:
        node.AddControlPoint(vtk.vtkVector3d(*point))
    node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def world(node: Any) -> np.ndarray:
    result = []
    for index in range(node.GetNumberOfControlPoints()):
        position = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(index, position)
        result.append(position)
    return np.array(result)


PREOP = apply(invert(pose()), np.array([(20.0, 0.0, 25.0), (0.0, 10.0, 0.0), (30.0, 10.0, 5.0), (-20.0, -15.0, 30.0)]))


def test_rigid_node_moves_markups_both_ways(headless: HeadlessScene) -> None:
    down = addRigidTransform(headless.scene, rigid())
    moved = world(markup(headless.scene, PREOP, down))
    np.testing.assert_allclose(moved, apply(pose(), PREOP), atol=1e-9)
    up = addRigidTransform(headless.scene, rigid(), Direction.TO_PREOP)
    np.testing.assert_allclose(world(markup(headless.scene, moved, up)), PREOP, atol=1e-9)


def test_grid_node_moves_markups_to_the_truth(
    headless: HeadlessScene, deformable: Callable[[Verdict], DeformableRegistration]
) -> None:
    registration = deformable(GOOD)
    lower, upper = addDeformableTransform(headless.scene, registration)
    assert upper.IsA("vtkMRMLGridTransformNode")
    assert lower.GetTransformNodeID() == upper.GetID()
    moved = world(markup(headless.scene, PREOP, lower))
    back = apply(invert(pose()), moved + sunk(moved))
    np.testing.assert_allclose(back, PREOP, atol=POINT_TOLERANCE_MM * 5)
    np.testing.assert_allclose(moved, registration.intraop_from_preop_points(PREOP), atol=POINT_TOLERANCE_MM * 5)
    assert np.linalg.norm(moved - apply(pose(), PREOP), axis=1).max() > 5.0


def test_grid_node_the_other_way(
    headless: HeadlessScene, deformable: Callable[[Verdict], DeformableRegistration]
) -> None:
    registration = deformable(GOOD)
    lower, upper = addDeformableTransform(headless.scene, registration, Direction.TO_PREOP)
    assert upper.IsA("vtkMRMLLinearTransformNode")
    now = registration.intraop_from_preop_points(PREOP)
    found = world(markup(headless.scene, now, lower))
    np.testing.assert_allclose(found, registration.preop_from_intraop(now), atol=POINT_TOLERANCE_MM)


def under(scene: Any, node: Any, parent: Any) -> Any:
    """The node where Slicer puts it in the world, asked by hardening: the product itself never does that."""
    scene.AddNode(node)
    node.SetAndObserveTransformNodeID(parent.GetID())
    assert node.HardenTransform()
    return node


def nodes(headless: HeadlessScene, registration: DeformableRegistration, direction: Direction) -> tuple[Any, Any]:
    """The node to hang things under, and where it should bring a point."""
    lower, _ = addDeformableTransform(headless.scene, registration, direction)
    forth, back = registration.intraop_from_preop_points, registration.preop_from_intraop
    return lower, forth if direction is Direction.TO_INTRAOP else back


def middles(direction: Direction, registration: DeformableRegistration) -> np.ndarray:
    """Points inside the grid, in the frame of what is moved."""
    return PREOP if direction is Direction.TO_INTRAOP else registration.intraop_from_preop_points(PREOP)


@pytest.mark.parametrize("direction", list(Direction))
def test_models_land_where_the_truth_says(
    headless: HeadlessScene, deformable: Callable[[Verdict], DeformableRegistration], direction: Direction
) -> None:
    registration = deformable(GOOD)
    lower, expected = nodes(headless, registration, direction)
    before = middles(direction, registration)
    mesh, points = vtk.vtkPolyData(), vtk.vtkPoints()
    points.SetDataTypeToDouble()
    for point in before:
        points.InsertNextPoint(*point)
    mesh.SetPoints(points)
    node = slicer.vtkMRMLModelNode()
    node.SetAndObservePolyData(mesh)
    under(headless.scene, node, lower)
    found = [node.GetPolyData().GetPoint(index) for index in range(len(before))]
    np.testing.assert_allclose(found, expected(before), atol=POINT_TOLERANCE_MM * 5)


@pytest.mark.parametrize("direction", list(Direction))
def test_segmentations_land_where_the_truth_says(
    headless: HeadlessScene,
    directions: np.ndarray,
    deformable: Callable[[Verdict], DeformableRegistration],
    direction: Direction,
) -> None:
    registration = deformable(GOOD)
    lower, expected = nodes(headless, registration, direction)
    centre = middles(direction, registration)[0]
    matrix = corner_from_centre(directions * 1.0, tuple(centre), (24, 24, 24))
    k, j, i = np.indices((24, 24, 24))
    inside = apply(matrix, np.stack([i, j, k], axis=-1).astype(float))
    mask = np.linalg.norm(inside - centre, axis=-1) < 8.0
    labels = Image(mask.astype(np.uint8), matrix)
    segmentation = conversion.segmentationOf(labels, {1: ("ball", "Ball", (1.0, 0.0, 0.0))})
    surface = segmentation.GetSegment("ball").GetRepresentation("Closed surface")
    before = vtk_to_numpy(surface.GetPoints().GetData()).astype(float)
    np.testing.assert_allclose(before.mean(axis=0), centre, atol=0.1)
    # The surface is what the views draw; Slicer resamples a hardened oblique labelmap half a voxel off.
    segmentation.SetSourceRepresentationName("Closed surface")
    node = slicer.vtkMRMLSegmentationNode()
    node.SetAndObserveSegmentation(segmentation)
    under(headless.scene, node, lower)
    moved = node.GetSegmentation().GetSegment("ball").GetRepresentation("Closed surface")
    after = vtk_to_numpy(moved.GetPoints().GetData())
    np.testing.assert_allclose(after, expected(before), atol=POINT_TOLERANCE_MM * 5)


@pytest.mark.parametrize("direction", list(Direction))
def test_volumes_land_where_the_truth_says(
    headless: HeadlessScene,
    directions: np.ndarray,
    deformable: Callable[[Verdict], DeformableRegistration],
    direction: Direction,
) -> None:
    """Each component of the place is drawn as a ramp: the value at a point tells what was brought there."""
    registration = deformable(GOOD)
    lower, _ = nodes(headless, registration, direction)
    opposite = Direction.TO_PREOP if direction is Direction.TO_INTRAOP else Direction.TO_INTRAOP
    origin = registration.preop_from_intraop if direction is Direction.TO_INTRAOP else None
    matrix = corner_from_centre(directions * 3.0, (0.0, 0.0, 0.0), (60, 60, 60))
    k, j, i = np.indices((60, 60, 60))
    ramps = apply(matrix, np.stack([i, j, k], axis=-1).astype(float))
    asked = middles(opposite, registration)
    expected = origin(asked) if origin is not None else registration.intraop_from_preop_points(asked)
    found = []
    for axis in range(3):
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetAndObserveImageData(conversion.vtkImageOf(ramps[..., axis].astype(np.float32)))
        node.SetIJKToRASMatrix(conversion.vtkMatrix(matrix))
        under(headless.scene, node, lower)
        grid = vtk.vtkMatrix4x4()
        node.GetRASToIJKMatrix(grid)
        index = apply(slicer.util.arrayFromVTKMatrix(grid), asked)
        found.append(map_coordinates(slicer.util.arrayFromVolume(node), index[:, ::-1].T, order=1))
    np.testing.assert_allclose(np.stack(found, axis=1), expected, atol=0.1)


def test_nothing_is_hardened(headless: HeadlessScene, deformable: Callable[[Verdict], DeformableRegistration]) -> None:
    lower, _ = addDeformableTransform(headless.scene, deformable(GOOD))
    node = markup(headless.scene, PREOP, lower)
    local = [0.0, 0.0, 0.0]
    node.GetNthControlPointPosition(0, local)
    np.testing.assert_allclose(local, PREOP[0], atol=1e-9)


def test_refused_registrations_make_no_node(
    headless: HeadlessScene, deformable: Callable[[Verdict], DeformableRegistration]
) -> None:
    with pytest.raises(SessionError, match="overlap"):
        addRigidTransform(headless.scene, rigid(REFUSED))
    with pytest.raises(SessionError, match="overlap"):
        addDeformableTransform(headless.scene, deformable(REFUSED))
    with pytest.raises(DataError, match="shape"):
        gridTransform(Image(np.zeros((4, 4, 4)), np.eye(4)))
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 0


def test_grid_survives_a_file(
    headless: HeadlessScene, deformable: Callable[[Verdict], DeformableRegistration], tmp_path: Path
) -> None:
    registration = deformable(GOOD)
    _, grid = addDeformableTransform(headless.scene, registration)
    path = tmp_path / "shift.nii.gz"
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(grid)
    again = headless.scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    reader = slicer.vtkMRMLTransformStorageNode()
    reader.SetFileName(str(path))
    assert reader.ReadData(again)
    point = registration.intraop_from_preop_points(PREOP)[0]
    through = again.GetTransformFromParent().TransformPoint(point)
    np.testing.assert_allclose(through, point + sunk(point), atol=POINT_TOLERANCE_MM * 5)
