"""The bridge against known geometry: nodes lie where the truth lies, and nothing outlives what it rests on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from IntraopMRILib.scene import colors
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRIReconstructionLib.data import Image, Level, Pose, Reason, Verdict
from IntraopMRIReconstructionLib.errors import Cancelled, DataError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about
from vtkmodules.util.numpy_support import vtk_to_numpy

GOOD = Verdict((Reason("edge distance", 0.6, "mm", "below 1.5", Level.GOOD),))
REFUSED = Verdict((Reason("overlap", 0.2, "", "0.6 to 1", Level.REFUSED),))


def motion() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), 12.0)
    matrix[:3, 3] = (5.0, -3.0, 8.0)
    return matrix


def grid(directions: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * (1.0, 1.5, 2.0)
    matrix[:3, 3] = (-12.0, 7.0, 3.0)
    return matrix


def image(name: str = "scan", directions: np.ndarray | None = None, seed: int = 0) -> Image:
    matrix = grid(np.eye(3) if directions is None else directions)
    array = np.random.default_rng(seed).random((9, 11, 13), dtype=np.float32) * 500
    return Image(array, matrix, name=name, patient_id="P1", acquired_utc_s=1_700_000_000.0)


def box(like: Image, low: int = 3, high: int = 6) -> Image:
    labels = np.zeros(like.array.shape, np.uint8)
    labels[low:high, low:high, low:high] = 1
    return Image(labels, like.ras_from_ijk, name="labels")


def pose(tip: tuple[float, float, float] = (1.0, 2.0, 3.0), valid: bool = True) -> Pose:
    matrix = np.eye(4)
    matrix[:3, 3] = tip
    return Pose(matrix, "pointer", time.monotonic(), time.time(), valid=valid)


def snapshot(scene: Any) -> dict[str, tuple[Any, ...]]:
    """What a person could notice of every node."""
    result = {}
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
        result[node.GetID()] = (node.GetName(), node.GetMTime(), attributes)
    return result


@pytest.fixture
def bridge(headless: HeadlessScene) -> SceneBridge:
    return SceneBridge(headless.scene)


@pytest.fixture
def registered(bridge: SceneBridge) -> SceneBridge:
    """Everything that a session shows."""
    preop, intraop = image("preop", seed=1), image("intraop", seed=2)
    bridge.setPreoperative(preop, "T1")
    bridge.setTumour(box(preop))
    bridge.setStructureAtRisk("Corticospinal tract", box(preop, 6, 8))
    bridge.setPoint("lead", (1.0, 2.0, 3.0))
    bridge.setPlan("lead", (1.0, 2.0, 30.0), (1.0, 2.0, 3.0))
    bridge.setIntraoperative(intraop)
    bridge.setRegistration(motion(), GOOD, intraop.uid, "registration-1")
    bridge.setResidual(box(intraop), box(intraop, 2, 8))
    bridge.setActualImplant("lead", (2.0, 2.0, 30.0), (2.0, 2.0, 3.0))
    bridge.setPointer(pose())
    return bridge


def voxels(node: Any, segment: str, like: Image) -> np.ndarray:
    """The segment on the grid of ``like``."""
    label = node.GetSegmentation().GetSegment(segment).GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    label.GetImageToWorldMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), like.ras_from_ijk, atol=1e-9)
    i0, i1, j0, j1, k0, k1 = label.GetExtent()
    result = np.zeros(like.array.shape, np.uint8)
    part = vtk_to_numpy(label.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    result[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = part
    return result


def visible(bridge: SceneBridge, role: str) -> bool:
    node: Any = bridge.node(role)
    return bool(node.GetDisplayNode().GetVisibility())


def test_volume_lies_where_the_image_says(bridge: SceneBridge, directions: np.ndarray) -> None:
    scan = image(directions=directions)
    bridge.setIntraoperative(scan, "contrast")
    node: Any = bridge.node("intraop.contrast")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), scan.ras_from_ijk, atol=1e-12)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), scan.array)
    assert node.GetAttribute("IntraopMRI.Uid") == scan.uid
    assert node.GetAttribute("IntraopMRI.PatientId") == "P1"
    assert node.GetAttribute("IntraopMRI.AcquiredUtc") == "2023-11-14T22:13:20.000+00:00"


def test_volume_is_a_copy(bridge: SceneBridge) -> None:
    scan = image()
    bridge.setIntraoperative(scan)
    slicer.util.arrayFromVolume(bridge.node("intraop.native"))[:] = -1
    assert scan.array.min() >= 0


def test_preoperative_nodes_are_moved_and_not_hardened(registered: SceneBridge, directions: np.ndarray) -> None:
    preop = image("preop", directions)
    labels = box(preop)
    registered.setPreoperative(preop, "T1")
    registered.setTumour(labels)
    line: Any = registered.node("preop.plan.lead.line")
    np.testing.assert_allclose(line.GetNthControlPointPosition(0), (1.0, 2.0, 30.0))
    np.testing.assert_allclose(line.GetNthControlPointPositionWorld(0), apply(motion(), (1.0, 2.0, 30.0)), atol=1e-6)
    tumour: Any = registered.node("preop.tumour")
    centre = tumour.GetSegmentCenterRAS("tumour")
    expected = apply(motion(), apply(preop.ras_from_ijk, (4.0, 4.0, 4.0)))
    np.testing.assert_allclose(centre, expected, atol=1e-3)
    volume: Any = registered.node("preop.T1")
    assert volume.GetParentTransformNode() is registered.node("registration")
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), preop.ras_from_ijk, atol=1e-12)


def test_segments_hold_the_voxels_and_colours(bridge: SceneBridge, directions: np.ndarray) -> None:
    scan = image(directions=directions)
    bridge.setIntraoperative(scan)
    bridge.setRegistration(np.eye(4), GOOD, scan.uid, "r")
    residual, resected = box(scan, 3, 5), box(scan, 3, 7)
    bridge.setResidual(residual, resected)
    node: Any = bridge.node("result.residual")
    np.testing.assert_array_equal(voxels(node, "residual", scan), residual.array)
    np.testing.assert_array_equal(voxels(node, "resected", scan), resected.array - residual.array)
    segmentation = node.GetSegmentation()
    display = node.GetDisplayNode()
    np.testing.assert_allclose(list(display.GetSegmentColor("residual")), colors.RESIDUAL)
    np.testing.assert_allclose(list(display.GetSegmentColor("resected")), colors.RESECTED)
    assert segmentation.GetSegment("residual").GetName() == "Residual"
    surface = segmentation.GetSegment("residual").GetRepresentation("Closed surface")
    assert surface.GetNumberOfPoints() > 0
    # Told apart without colours: heavy and filled, thin and empty.
    bridge.setTumour(box(scan))
    before: Any = next(bridge.node(role) for role in bridge.roles() if role.endswith("tumour"))
    before = before.GetDisplayNode()
    assert display.GetSliceIntersectionThickness() >= 2 * before.GetSliceIntersectionThickness()
    assert (display.GetVisibility2DFill(), before.GetVisibility2DFill()) == (1, 0)


def test_no_residual_is_an_empty_segment(registered: SceneBridge) -> None:
    scan = image("intraop", seed=2)
    registered.setResidual(Image(np.zeros(scan.array.shape, np.uint8), scan.ras_from_ijk))
    segment = registered.node("result.residual").GetSegmentation().GetSegment("residual")  # type: ignore[union-attr]
    assert segment is not None
    assert segment.GetRepresentation("Binary labelmap").GetNumberOfPoints() == 0


def test_updates_replace_and_leak_no_node(registered: SceneBridge) -> None:
    scene = registered.scene
    before = {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}
    for number in range(4):
        intraop = image("intraop", seed=10 + number)
        preop = image("preop", seed=20 + number)
        registered.setPreoperative(preop, "T1")
        registered.setTumour(box(preop, 2, 5 + number))
        registered.setIntraoperative(intraop)
        registered.setRegistration(motion(), GOOD, intraop.uid, f"registration-{number}")
        registered.setResidual(box(intraop), box(intraop, 2, 8))
        registered.setPlan("lead", (1.0, 2.0, 30.0 + number), (1.0, 2.0, 3.0))
        registered.setActualImplant("lead", (2.0, 2.0, 30.0 + number), (2.0, 2.0, 3.0))
        registered.setPoint("lead", (1.0, 2.0, 3.0 + number))
        registered.setPointer(pose((1.0, 2.0, float(number))))
    after = {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}
    assert len(after) == len(before)
    line: Any = registered.node("preop.plan.lead.line")
    assert line.GetNumberOfControlPoints() == 2
    assert line.GetNthControlPointPosition(0)[2] == pytest.approx(33.0)


def test_replaced_pixels_are_freed(bridge: SceneBridge) -> None:
    gone: list[bool] = []
    for seed in range(8):
        bridge.setIntraoperative(image(seed=seed))
        bridge.node("intraop.native").GetImageData().AddObserver("DeleteEvent", lambda *_: gone.append(True))  # type: ignore[union-attr]
    # Display pipelines may keep the contents of an update or two until they run again.
    assert len(gone) >= 5


def test_clear_leaves_the_scene_as_it_was(headless: HeadlessScene) -> None:
    scene = headless.scene
    before = set(snapshot(scene))
    bridge = SceneBridge(scene)
    scan = image()
    bridge.setIntraoperative(scan)
    bridge.setRegistration(np.eye(4), GOOD, scan.uid, "r")
    bridge.setResidual(box(scan))
    bridge.setPlan("a", (0, 0, 0), (0, 0, 9))
    bridge.setPointer(pose())
    assert len(snapshot(scene)) > len(before) + 6
    bridge.clear()
    assert set(snapshot(scene)) - before <= {"vtkMRMLSelectionNodeSingleton", "vtkMRMLInteractionNodeSingleton"}
    assert bridge.roles() == ()


def test_cancelled_update_changes_nothing(registered: SceneBridge) -> None:
    before, roles, registration = snapshot(registered.scene), registered.roles(), registered.registration

    def cancelled() -> None:
        with registered.update():
            intraop = image("next", seed=7)
            registered.setIntraoperative(intraop)
            registered.setRegistration(np.eye(4), GOOD, intraop.uid, "registration-2")
            registered.setResidual(box(intraop, 1, 8))
            registered.setPointer(None)
            registered.remove("preop.plan")
            raise Cancelled("stopped by a person")

    with pytest.raises(Cancelled):
        cancelled()
    assert snapshot(registered.scene) == before
    assert registered.roles() == roles
    assert registered.registration is registration


def test_failed_call_inside_an_update_changes_nothing(registered: SceneBridge) -> None:
    before = snapshot(registered.scene)

    def failing() -> None:
        with registered.update():
            registered.setPlan("second", (0, 0, 0), (0, 0, 10))
            registered.setTumour(Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)))

    with pytest.raises(DataError, match="tumour segmentation is empty"):
        failing()
    assert snapshot(registered.scene) == before


def test_withdraw_takes_away_all_that_rests_on_the_registration(registered: SceneBridge) -> None:
    registered.withdraw("the patient moved")
    assert registered.registration is None
    assert registered.node("registration") is None
    resting = [role for role in registered.roles() if role.startswith(("preop.", "result.", "intraop.implant."))]
    assert len(resting) == 9
    for role in resting:
        node: Any = registered.node(role)
        assert not visible(registered, role), role
        assert node.GetParentTransformNode() is None, role
        assert node.GetAttribute("IntraopMRI.HiddenBecause") == "the patient moved"
    assert visible(registered, "intraop.native")
    assert registered.legend() == ()


def test_refused_registration_withdraws_the_one_before(registered: SceneBridge) -> None:
    registered.setRegistration(np.eye(4), REFUSED, "any", "registration-2")
    assert registered.registration is None
    assert "overlap 0.2 (expected 0.6 to 1)" in registered.withdrawnBecause
    assert not visible(registered, "preop.T1")
    assert not visible(registered, "result.residual")


def test_registration_returns_what_was_hidden(registered: SceneBridge) -> None:
    registered.withdraw("the patient moved")
    registered.setRegistration(motion(), GOOD, "image-2", "registration-2")
    assert visible(registered, "preop.T1")
    assert registered.node("preop.tumour").GetAttribute("IntraopMRI.HiddenBecause") is None  # type: ignore[union-attr]
    assert registered.node("result.residual") is None


def test_what_was_found_with_another_registration_disappears(registered: SceneBridge) -> None:
    registered.setRegistration(motion(), GOOD, "image-2", "registration-2")
    for role in ("result.residual", "intraop.implant.lead.line", "intraop.implant.lead.cylinder"):
        assert registered.node(role) is None
        assert role not in registered.roles()
    registered.withdraw("moved")
    with pytest.raises(SessionError, match="an implant cannot be shown"):
        registered.setActualImplant("lead", (2.0, 2.0, 30.0), (2.0, 2.0, 3.0))


def test_new_scan_withdraws_the_old_registration(registered: SceneBridge) -> None:
    registered.setIntraoperative(image("contrast", seed=5), "contrast")
    assert registered.registration is not None
    registered.setIntraoperative(image("second scan", seed=6))
    assert registered.registration is None
    assert registered.withdrawnBecause == "the new image 'second scan' is not registered yet"
    assert not visible(registered, "result.residual")


def test_nothing_preoperative_is_shown_before_a_registration(bridge: SceneBridge) -> None:
    bridge.setPreoperative(image())
    bridge.setPlan("lead", (0, 0, 0), (0, 0, 9))
    assert not visible(bridge, "preop.volume")
    assert not visible(bridge, "preop.plan.lead.dashes")


def test_residual_needs_a_registration_and_a_known_grid(bridge: SceneBridge, directions: np.ndarray) -> None:
    scan = image(directions=directions)
    bridge.setIntraoperative(scan)
    with pytest.raises(SessionError, match="register first"):
        bridge.setResidual(box(scan))
    bridge.setRegistration(np.eye(4), GOOD, scan.uid, "r")
    shifted = np.array(scan.ras_from_ijk)
    shifted[0, 3] += 0.5
    with pytest.raises(DataError, match="no intraoperative volume's grid"):
        bridge.setResidual(Image(box(scan).array, shifted))
    assert bridge.node("result.residual") is None


def test_pointer_follows_valid_poses_only(bridge: SceneBridge) -> None:
    bridge.setPointer(None)
    assert not visible(bridge, "pointer")
    bridge.setPointer(pose((4.0, 5.0, 6.0)))
    node: Any = bridge.node("pointer")
    assert visible(bridge, "pointer")
    tip = [0.0, 0.0, 0.0]
    node.TransformPointToWorld((0.0, 0.0, 0.0), tip)
    np.testing.assert_allclose(tip, (4.0, 5.0, 6.0))
    bridge.setPointer(pose((9.0, 9.0, 9.0), valid=False))
    assert not visible(bridge, "pointer")
    node.TransformPointToWorld((0.0, 0.0, 0.0), tip)
    np.testing.assert_allclose(tip, (4.0, 5.0, 6.0))


def test_a_node_that_a_person_deleted_comes_back_with_the_next_content(bridge: SceneBridge) -> None:
    bridge.setIntraoperative(image())
    bridge.scene.RemoveNode(bridge.node("intraop.native"))
    assert bridge.node("intraop.native") is None
    bridge.setPointer(pose())
    assert bridge.node("intraop.native") is None
    bridge.setIntraoperative(image(seed=3))
    assert bridge.node("intraop.native") is not None


def test_forget_after_the_scene_was_closed(registered: SceneBridge) -> None:
    registered.scene.Clear(False)
    registered.forget()
    assert registered.registration is None
    registered.setIntraoperative(image())
    assert registered.roles() == ("intraop.native",)


def test_live_slice(bridge: SceneBridge, directions: np.ndarray) -> None:
    flat = Image(np.ones((1, 8, 8), np.float32), grid(directions))
    bridge.setLiveSlice(flat)
    assert bridge.node("live").GetImageData().GetDimensions() == (8, 8, 1)  # type: ignore[union-attr]
    bridge.stopLiveSlice("none since 12:00:00")
    node = bridge.node("live")
    assert node is not None
    assert (node.GetName(), node.GetImageData().GetDimensions()) == ("Live slice (none since 12:00:00)", (8, 8, 1))
    bridge.setLiveSlice(flat)
    assert node.GetName() == "Live slice"
    bridge.setLiveSlice(None)
    assert bridge.node("live") is None
    bridge.stopLiveSlice("none since 12:00:00")
    assert bridge.node("live") is None
    with pytest.raises(DataError, match=r"must have shape \(1, j, i\)"):
        bridge.setLiveSlice(image())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.setIntraoperative(Image(np.ones((2, 2, 2, 3), np.float32), np.eye(4))), "pass one component"),
        (lambda b: b.setIntraoperative(Image(np.ones((2, 2, 2), np.complex64), np.eye(4))), "take the magnitude"),
        (lambda b: b.setResidual(Image(np.ones((2, 2, 2), np.uint8), np.eye(4))), "residual cannot be shown"),
        (lambda b: b.setPlan("p", (0, 0, float("nan")), (0, 0, 1)), "three finite RAS coordinates"),
        (lambda b: b.setPlan("p", (0, 0, 1), (0, 0, 1)), "has no length"),
        (lambda b: b.setPlan("p", (0, 0, 1), (0, 0, 2), frame="lps"), "'preop' or 'intraop'"),
        (lambda b: b.setActualImplant("p", (0, 0), (0, 0, 1)), "three finite RAS coordinates"),
        (lambda b: b.setPoint("t", (0, 0)), "target 't'"),
        (lambda b: b.setRegistration(np.eye(3), GOOD, "i", "r"), r"shape \(4, 4\)"),
        (lambda b: b.confirmRegistration(), "no loaded registration"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(bridge: SceneBridge, call: Any, message: str) -> None:
    before = snapshot(bridge.scene)
    with pytest.raises((DataError, SessionError), match=message):
        call(bridge)
    assert snapshot(bridge.scene) == before


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64, np.bool_])
def test_every_real_type_keeps_its_values(bridge: SceneBridge, dtype: Any) -> None:
    array = (np.arange(60).reshape(3, 4, 5) % 2).astype(dtype)
    bridge.setIntraoperative(Image(array, np.eye(4)))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(bridge.node("intraop.native")), array)
