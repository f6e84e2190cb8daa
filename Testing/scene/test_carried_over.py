"""In the scene planned things lie where the rigid pose puts them until they are carried over, and go back as easily."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.scene import colors, recipes
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.offscreen import OffscreenViews
from IntraopMRILib.scene.roles import CARRIED, REGISTRATION
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, rotation_about
from vtkmodules.util.numpy_support import vtk_to_numpy

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
MOVED = np.array([3.0, -2.0, 4.0])
TARGET, ENTRY, TIP = (1.0, 2.0, 3.0), (4.0, 20.0, 20.0), (2.0, 2.0, 2.0)
#: Slicer inverts the grid in steps of this size.
TOLERANCE_MM = 0.02


def pose() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), 12.0)
    matrix[:3, 3] = (5.0, -3.0, 8.0)
    return matrix


def found(directions: np.ndarray) -> DeformableRegistration:
    matrix = corner_from_centre(directions * 3.0, (0.0, 0.0, 0.0), (40, 40, 40))
    push = np.broadcast_to(MOVED, (40, 40, 40, 3)).astype(np.float32)
    k, j, i = np.indices((40, 40, 40))
    points = apply(matrix, np.stack([i, j, k], axis=-1).astype(float))
    brain = Image((np.linalg.norm(points, axis=-1) < 50).astype(np.uint8), matrix)
    cavity = Image((np.linalg.norm(points - (30, 0, 0), axis=-1) < 9).astype(np.uint8), matrix)
    doubt = Image(np.full((40, 40, 40), 1.5, np.float32), matrix)
    return DeformableRegistration(
        pose(), Image(-push, matrix), Image(push, matrix), cavity, brain, doubt, GOOD, False, 1.0
    )


@pytest.fixture
def bridge(headless: HeadlessScene, directions: np.ndarray) -> SceneBridge:
    bridge = SceneBridge(headless.scene)
    matrix = corner_from_centre(directions * 2.0, (0.0, 0.0, 0.0), (40, 40, 40))
    ramp = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32) * 400
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[18:23, 18:23, 18:23] = 1
    bridge.setPreoperative(Image(ramp, matrix, "T1"))
    bridge.setTumour(Image(labels, matrix))
    bridge.setStructureAtRisk("tract", Image(labels, matrix))
    bridge.setPoint("lead", TARGET)
    bridge.setPoint("fork", TARGET, kind="landmark")
    bridge.setPlan("screw", ENTRY, TIP)
    scan = Image(ramp, matrix, "scan")
    bridge.setIntraoperative(scan, "contrast")
    registration = found(directions)
    bridge.setRegistration(pose(), GOOD, scan.uid, registration.shift.uid, registration.shift)
    bridge.setBrainShift(recipes.brain_shift(registration))
    return bridge


def place(node: Any, index: int = 0) -> np.ndarray:
    result = [0.0, 0.0, 0.0]
    node.GetNthControlPointPositionWorld(index, result)
    return np.array(result)


def middle(node: Any) -> np.ndarray:
    """Centre of the surface of a model or segmentation in the world."""
    if node.IsA("vtkMRMLModelNode"):
        mesh = node.GetPolyData()
    else:
        mesh = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Closed surface")
    points = vtk_to_numpy(mesh.GetPoints().GetData())
    transform = vtk.vtkGeneralTransform()
    node.GetParentTransformNode().GetTransformToWorld(transform)
    return np.mean([transform.TransformPoint(point) for point in points.astype(float)], axis=0)


def test_each_thing_moves_by_itself_and_goes_back(bridge: SceneBridge) -> None:
    roles = {
        "target.lead": ("preop.target.lead",),
        "landmark.fork": ("preop.landmark.fork",),
        "risk.tract": ("preop.risk.tract",),
        "plan.screw": ("preop.plan.screw.line", "preop.plan.screw.dashes"),
    }

    def where() -> dict[str, np.ndarray]:
        nodes = {role: bridge.node(role) for parts in roles.values() for role in parts}
        return {
            role: place(node) if node.IsA("vtkMRMLMarkupsNode") else middle(node)
            for role, node in nodes.items()
            if node is not None
        }

    rigid = where()
    np.testing.assert_allclose(rigid["preop.target.lead"], apply(pose(), TARGET), atol=1e-6)
    np.testing.assert_allclose(rigid["preop.plan.screw.line"], apply(pose(), ENTRY), atol=1e-6)
    for key, parts in roles.items():
        bridge.carry(key, True)
        now = where()
        for role, before in rigid.items():
            expected = before + (MOVED if role in parts else 0.0)
            np.testing.assert_allclose(now[role], expected, atol=TOLERANCE_MM, err_msg=role)
        bridge.carry(key, False)
    for role, before in rigid.items():
        np.testing.assert_allclose(where()[role], before, atol=1e-6)


def test_what_is_not_carried_over_is_marked(bridge: SceneBridge) -> None:
    node: Any = bridge.node("preop.target.lead")
    assert node.GetName() == node.GetNthControlPointLabel(0) == "lead (rigid)"
    assert node.GetDisplayNode().GetOpacity() == pytest.approx(0.5)
    bridge.carry("target.lead", True)
    assert node.GetName() == node.GetNthControlPointLabel(0) == "lead"
    assert node.GetDisplayNode().GetOpacity() == pytest.approx(1.0)


def test_volume_and_tumour_follow_and_the_rigid_volume_stands_beside(bridge: SceneBridge) -> None:
    carried, rigid = bridge.node(CARRIED), bridge.node(REGISTRATION)
    volume: Any = bridge.node("preop.volume")
    tumour: Any = bridge.node("preop.tumour")
    unmoved: Any = bridge.node("preop.rigid")
    assert volume.GetParentTransformNode() is tumour.GetParentTransformNode() is carried
    assert unmoved.GetParentTransformNode() is rigid
    assert unmoved.GetImageData() is volume.GetImageData(), "the voxels are not copied"
    assert unmoved.GetName() == "T1 (rigid)"


def test_a_new_registration_takes_back_what_was_accepted(bridge: SceneBridge, directions: np.ndarray) -> None:
    bridge.carry("target.lead", True)
    shift = found(directions).shift
    bridge.setRegistration(pose(), GOOD, "image", shift.uid, shift)
    np.testing.assert_allclose(place(bridge.node("preop.target.lead")), apply(pose(), TARGET), atol=1e-6)
    assert bridge.node("result.shift") is None, "the map belongs to the registration before"


def test_a_stored_cavity_is_grey(bridge: SceneBridge) -> None:
    """The display has the colour of a session, and is not stored; the segment's own is what another Slicer shows."""
    node = bridge.node(recipes.CAVITY)
    assert node is not None
    assert list(node.GetDisplayNode().GetSegmentColor("cavity")) == pytest.approx(colors.CAVITY, abs=1e-3)
    own = list(node.GetSegmentation().GetSegment("cavity").GetColor())
    assert own == pytest.approx(colors.STORED_RESECTED, abs=1e-3)
    assert not node.GetDisplayNode().GetSaveWithScene()


def test_clot_belongs_to_the_cavity_that_is_shown(bridge: SceneBridge, directions: np.ndarray) -> None:
    fluid = found(directions)
    sizes = []
    for each in (fluid, replace(fluid, cavity=fluid.cavity.with_array(2 * fluid.cavity.array))):
        bridge.setBrainShift(recipes.brain_shift(each))
        node: Any = bridge.node(recipes.CAVITY)
        surface = node.GetSegmentation().GetSegment("cavity").GetRepresentation("Closed surface")
        sizes.append(surface.GetNumberOfPoints())
    assert sizes[0] == sizes[1] > 0


def test_without_a_brain_shift_nothing_can_follow(bridge: SceneBridge) -> None:
    bridge.setRegistration(pose(), GOOD, "image", "rigid")
    assert bridge.node(CARRIED) is None
    assert bridge.node("preop.rigid") is None
    target: Any = bridge.node("preop.target.lead")
    assert target.GetName() == "lead"
    with pytest.raises(SessionError, match="no accepted registration follows the brain shift"):
        bridge.carry("target.lead", True)
    bridge.withdraw("test")
    with pytest.raises(SessionError, match="brain shift cannot be shown: test"):
        bridge.setBrainShift({})


def test_maps_are_drawn_with_their_legend_and_arrows_point_along(headless: HeadlessScene, bridge: SceneBridge) -> None:
    node: Any = bridge.node("result.shift")
    display = node.GetScalarVolumeDisplayNode()
    assert display.GetColorNode() is bridge.node("colors.result.shift")
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0.0, 6.0)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert legend.GetTitleText() == "Brain shift (mm)"
    assert not display.GetInterpolate(), "no rim of small numbers where the known ends"
    with OffscreenViews(headless.scene, headless.applicationLogic, (800, 600)) as views:
        scan = bridge.node("intraop.contrast")
        views.show(scan, centre=(0.0, 0.0, 0.0), heightMm=120.0)
        plain = views.fourUp().astype(int)
        views.show(scan, node, 0.6, centre=(0.0, 0.0, 0.0), heightMm=120.0)
        mapped = views.fourUp().astype(int)
        bridge.showArrows(True)
        arrows = views.fourUp().astype(int)
    middle_of = (slice(130, 170), slice(180, 220))
    assert np.abs(mapped - plain)[middle_of].max() > 40, "the map lies over the brain"
    colour = np.abs(arrows - np.array([155, 232, 255])).sum(axis=2) < 60
    assert colour[:298, :398].sum() > 30, "arrows in the slice"
    assert colour[:298, 402:].sum() > 30, "arrows in 3D"


def test_nothing_is_left_when_the_session_goes(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    before = {headless.scene.GetNthNode(index).GetID() for index in range(headless.scene.GetNumberOfNodes())}
    registration = found(np.eye(3))
    scan = Image(np.ones((20, 20, 20), np.float32), np.eye(4), "scan")
    bridge.setIntraoperative(scan)
    bridge.setRegistration(pose(), GOOD, scan.uid, registration.shift.uid, registration.shift)
    bridge.setBrainShift(recipes.brain_shift(registration))
    bridge.showArrows(True)
    bridge.clear()
    left = [headless.scene.GetNthNode(index) for index in range(headless.scene.GetNumberOfNodes())]
    assert [node.GetName() for node in left if node.GetID() not in before] == []
