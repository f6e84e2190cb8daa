"""BRAINSFit is called by its own parameter names, its pose is read in our direction; a stand-in runs in its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from IntraopMRILib.scene.brainsfit import BrainsfitRun, brainsfitAvailable
from IntraopMRILib.scene.conversion import vtkMatrix
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import rotation_about

#: As BRAINSFit.xml (BRAINSTools) names and types them; enumerations with their elements.
NAMES = {
    "fixedVolume": "vtkMRMLScalarVolumeNode",
    "movingVolume": "vtkMRMLScalarVolumeNode",
    "initialTransform": "vtkMRMLLinearTransformNode",
    "linearTransform": "vtkMRMLLinearTransformNode",
    "useRigid": bool,
    "samplingPercentage": float,
    "initializeTransformMode": {
        "Off",
        "useMomentsAlign",
        "useCenterOfHeadAlign",
        "useGeometryAlign",
        "useCenterOfROIAlign",
    },
    "costMetric": {"MMI", "MSE", "NC", "MIH"},
    "maskProcessingMode": {"NOMASK", "ROIAUTO", "ROI"},
}


def pose(degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), degrees)
    matrix[:3, 3] = shift
    return matrix


class Started:
    """A command-line module node that has been started; status bits as vtkMRMLCommandLineModuleNode names them."""

    Running, Cancelled, Completed, ErrorsMask = 0x02, 0x08, 0x20, 0x40

    def __init__(self) -> None:
        self.status = self.Running
        self.error = ""

    def IsBusy(self) -> bool:
        return self.status == self.Running

    def GetStatus(self) -> int:
        return self.status

    def GetErrorText(self) -> str:
        return self.error

    def GetProgress(self) -> int:
        return 25

    def Cancel(self) -> None:
        self.status = self.Cancelled

    def GetScene(self) -> None:
        return None


class StandIn:
    """The command-line module: checks what it is given; ``end`` writes ``found`` and completes."""

    def __init__(self) -> None:
        self.node = Started()
        self.parameters: dict[str, Any] = {}

    def run(self, module: Any, node: Any, parameters: dict[str, Any], *, update_display: bool) -> Any:
        assert node is None
        assert not update_display
        for name, value in parameters.items():
            wanted: Any = NAMES[name]
            if isinstance(wanted, str):
                assert value.IsA(wanted), name
                assert value.GetParentTransformNode() is None, name
            elif isinstance(wanted, set):
                assert value in wanted, name
            else:
                assert isinstance(value, wanted), name
        self.parameters = parameters
        return self.node

    def end(self, found: np.ndarray, error: str = "") -> None:
        self.parameters["linearTransform"].SetMatrixTransformToParent(vtkMatrix(found))
        self.node.error = error
        self.node.status = self.node.Completed | (self.node.ErrorsMask if error else 0)


class Heard:
    """What a run has told."""

    def __init__(self, run: BrainsfitRun) -> None:
        self.poses: list[Any] = []
        self.errors: list[str] = []
        run.tell(self.poses.append, self.errors.append)


def volumes(scene: Any) -> list[Any]:
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    found = [scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("intraop", "preop")]
    for node in found:
        data = slicer.vtkOrientedImageData()
        data.SetDimensions(3, 4, 5)
        data.AllocateScalars(3, 1)
        node.SetAndObserveImageData(data)
        node.SetSpacing(1.0, 2.0, 3.0)
    found[1].SetAndObserveTransformNodeID(parent.GetID())
    return found


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    found = StandIn()
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(brainsfit=object()), raising=False)
    monkeypatch.setattr(slicer, "cli", SimpleNamespace(run=found.run), raising=False)
    return found


def test_pose_comes_back_in_our_direction(headless: HeadlessScene, module: StandIn) -> None:
    scene, start, found = headless.scene, pose(5.0, (1.0, 2.0, 3.0)), pose(6.0, (1.5, 2.0, 3.5))
    fixed, moving = volumes(scene)
    assert brainsfitAvailable()
    before = scene.GetNumberOfNodes()
    run = BrainsfitRun(scene, fixed, moving, start)
    heard = Heard(run)
    given = module.parameters
    np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(given["initialTransform"]), start, atol=1e-12)
    assert given["movingVolume"].GetImageData() is moving.GetImageData()
    assert given["movingVolume"].GetSpacing() == moving.GetSpacing()
    assert not run.poll()
    assert run.fraction == 0.25
    assert not heard.poses
    module.end(found)
    assert run.poll()
    np.testing.assert_allclose(heard.poses, [found], atol=1e-12)
    assert run.poll()
    assert len(heard.poses) == 1, "the outcome is told once"
    assert scene.GetNumberOfNodes() == before


def test_failure_is_said_and_leaves_nothing(
    headless: HeadlessScene, module: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = headless.scene
    fixed, moving = volumes(scene)
    before = scene.GetNumberOfNodes()
    for found, error, words in ((np.eye(4), "no overlap", "no overlap"), (np.diag([2.0, 1, 1, 1]), "", "BRAINSFit")):
        run = BrainsfitRun(scene, fixed, moving, np.eye(4))
        heard = Heard(run)
        module.end(found, error)
        assert run.poll()
        assert words in heard.errors[0]
        assert not heard.poses
        assert scene.GetNumberOfNodes() == before
        module.node.status = module.node.Running
    monkeypatch.setattr(slicer, "modules", SimpleNamespace())
    with pytest.raises(RegistrationError, match="has no BRAINSFit"):
        BrainsfitRun(scene, fixed, moving, np.eye(4))


def test_a_cancelled_run_tells_nobody(headless: HeadlessScene, module: StandIn) -> None:
    scene = headless.scene
    fixed, moving = volumes(scene)
    before = scene.GetNumberOfNodes()
    run = BrainsfitRun(scene, fixed, moving, np.eye(4))
    heard = Heard(run)
    run.abandon()
    assert module.node.status == module.node.Cancelled
    assert run.poll()
    assert not heard.poses
    assert not heard.errors
    assert scene.GetNumberOfNodes() == before
