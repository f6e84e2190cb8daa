"""A volume node as a scan: where it lies under a transform, what is known of it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from IntraopMRILib.scene import recipes
from IntraopMRILib.scene.contents import ATTRIBUTE, ROLE
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.scan_nodes import BY_HAND, isByHand, remember, roleOf, scanOf, takenOf
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about
from IntraopMRIReconstructionLib.scene.attributes import ACQUIRED_ATTRIBUTE

SHAPE = (9, 11, 13)


def volume(headless: HeadlessScene, matrix: np.ndarray, dtype: Any = np.float32, kind: str = "Scalar") -> Any:
    node = headless.scene.AddNewNodeByClass(f"vtkMRML{kind}VolumeNode", "T1")
    slicer.util.updateVolumeFromArray(node, np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


def grid(directions: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag([0.9, 1.1, 2.5])
    matrix[:3, 3] = 12.0, -34.0, 56.0
    return matrix


def motion() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), 33.0)
    matrix[:3, 3] = 5.0, -7.0, 11.0
    return matrix


def under(headless: HeadlessScene, node: Any, matrix: np.ndarray) -> Any:
    above = headless.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Above")
    above.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(above.GetID())
    return above


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_voxels_and_place_are_those_of_the_node(headless: HeadlessScene, directions: np.ndarray, dtype: Any) -> None:
    node = volume(headless, grid(directions), dtype)
    image = scanOf(node)
    np.testing.assert_allclose(image.ras_from_ijk, grid(directions), atol=1e-9)
    np.testing.assert_array_equal(image.array, np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE))
    assert image.array.dtype == dtype
    slicer.util.arrayFromVolume(node)[:] = 0
    assert image.array.max() > 0, "the node may change, the image may not"
    assert (image.acquired_utc_s, image.patient_id, dict(image.metadata)) == (None, "", {})


def test_a_chain_of_rigid_transforms_is_taken_into_the_matrix(headless: HeadlessScene, directions: np.ndarray) -> None:
    """Truth: each voxel where Slicer itself puts it in the world."""
    node = volume(headless, grid(directions))
    inner = under(headless, node, motion())
    shift = np.eye(4)
    shift[:3, 3] = 1.0, 2.0, 3.0
    under(headless, inner, shift)
    image = scanOf(node)
    for ijk in ((0, 0, 0), (12, 10, 8), (3, 7, 1)):
        truth = apply(shift @ motion() @ grid(directions), np.array(ijk, dtype=float))
        np.testing.assert_allclose(apply(image.ras_from_ijk, np.array(ijk, dtype=float)), truth, atol=1e-9)
    world = np.zeros(6)
    node.GetRASBounds(world)
    ends = [apply(image.ras_from_ijk, np.array(c) * SHAPE[::-1] - 0.5) for c in np.ndindex(2, 2, 2)]
    assert np.min(ends, axis=0) == pytest.approx(world[::2], abs=1e-6)
    assert np.max(ends, axis=0) == pytest.approx(world[1::2], abs=1e-6)


def scaled() -> np.ndarray:
    return np.diag([1.0, 1.0, 1.02, 1.0])


def mirrored() -> np.ndarray:
    return np.diag([-1.0, 1.0, 1.0, 1.0])


def sheared() -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 1] = 0.1
    return matrix


@pytest.mark.parametrize("matrix", [scaled(), mirrored(), sheared()], ids=["scaled", "mirrored", "sheared"])
def test_a_transform_that_is_no_rigid_motion_is_refused(headless: HeadlessScene, matrix: np.ndarray) -> None:
    node = volume(headless, np.eye(4))
    under(headless, node, matrix)
    with pytest.raises(SessionError, match="'T1' hangs under a transform that is no rigid motion: Above"):
        scanOf(node)


def test_a_bent_volume_is_refused(headless: HeadlessScene) -> None:
    node = volume(headless, np.eye(4))
    spline = headless.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    node.SetAndObserveTransformNodeID(spline.GetID())
    with pytest.raises(SessionError, match="bent by the transform 'Warp'"):
        scanOf(node)


def test_what_is_no_picture_of_one_scan_is_refused(headless: HeadlessScene) -> None:
    empty = headless.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(SessionError, match="'empty' has no voxels"):
        scanOf(empty)
    labels = volume(headless, np.eye(4), np.int16, "LabelMap")
    with pytest.raises(SessionError, match="holds labels"):
        scanOf(labels)
    vector = headless.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colours")
    slicer.util.updateVolumeFromArray(vector, np.zeros((*SHAPE, 3), np.uint8))
    with pytest.raises(SessionError, match="3 values a voxel"):
        scanOf(vector)
    for key, value, said in (
        ("IntraopMRI.PreviewPercent", "40", "not complete"),
        ("IntraopMRI.Unit", "C", "holds C, no picture"),
        (ROLE, "result.shift", "made by a session"),
        (ROLE, "preop.volume", "made by a session"),
    ):
        node = volume(headless, np.eye(4))
        node.SetAttribute(key, value)
        with pytest.raises(SessionError, match=said):
            scanOf(node)


def test_a_scan_of_an_earlier_session_tells_what_the_session_knew(headless: HeadlessScene) -> None:
    image = Image(np.ones(SHAPE, np.float32), np.eye(4), "T1", 1_700_000_000.5, "P-1", metadata={"method": "fft"})
    node = volume(headless, np.eye(4))
    node.SetAttribute(ROLE, "intraop.contrast")
    for key, value in recipes.origin(image).items():
        node.SetAttribute(ATTRIBUTE + key, value)
    found = scanOf(node)
    assert found.acquired_utc_s == pytest.approx(image.acquired_utc_s)
    assert found.patient_id == "P-1"
    assert found.metadata == {"method": "fft"}
    assert roleOf(node) == "contrast"
    assert not isByHand(node)


def test_a_time_that_a_person_entered_stays_with_the_volume(headless: HeadlessScene) -> None:
    node = volume(headless, np.eye(4))
    entered = Image(np.ones(SHAPE), np.eye(4), "T1", 1_700_000_000.0, metadata={"TakenFrom": BY_HAND})
    remember(node, entered, "native")
    assert takenOf(node) == 1_700_000_000.0
    assert isByHand(node)
    assert scanOf(node).metadata == {"TakenFrom": BY_HAND}
    remember(node, replace(entered, acquired_utc_s=None, metadata={"TakenFrom": "unknown"}), "native")
    assert takenOf(node) is None
    node.SetAttribute(ACQUIRED_ATTRIBUTE, "yesterday")
    assert takenOf(node) is None
