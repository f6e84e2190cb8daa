"""BRAINSFit is called by its own parameter names, its pose is read in our direction; a stand-in runs in its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from IntraopMRILib.register.engines import poses_apart_mm
from IntraopMRILib.scene.brainsfit import brainsfitAvailable, brainsfitRigid
from IntraopMRILib.scene.conversion import vtkMatrix
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError
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


class StandIn:
    """The command-line module: checks what it is given and writes ``found``."""

    def __init__(self, scene: Any, found: np.ndarray, error: str = "") -> None:
        self._scene, self._found, self._error = scene, found, error
        self.start: np.ndarray | None = None

    def run(self, module: Any, node: Any, parameters: dict[str, Any]) -> Any:
        assert node is None
        for name, value in parameters.items():
            wanted: Any = NAMES[name]
            if isinstance(wanted, str):
                assert value.IsA(wanted), name
            elif isinstance(wanted, set):
                assert value in wanted, name
            else:
                assert isinstance(value, wanted), name
        self.start = slicer.util.arrayFromTransformMatrix(parameters["initialTransform"])
        parameters["linearTransform"].SetMatrixTransformToParent(vtkMatrix(self._found))
        ended = self._scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        ended.ErrorsMask = 0x20
        ended.GetStatus = lambda: 0x20 if self._error else 0x08
        ended.GetErrorText = lambda: self._error
        return ended


def volumes(scene: Any) -> list[Any]:
    return [scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("intraop", "preop")]


def use(monkeypatch: pytest.MonkeyPatch, module: StandIn) -> None:
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(brainsfit=object()), raising=False)
    monkeypatch.setattr(slicer, "cli", SimpleNamespace(runSync=module.run), raising=False)


def test_pose_comes_back_in_our_direction(headless: HeadlessScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, start, found = headless.scene, pose(5.0, (1.0, 2.0, 3.0)), pose(6.0, (1.5, 2.0, 3.5))
    fixed, moving = volumes(scene)
    module = StandIn(scene, found)
    use(monkeypatch, module)
    assert brainsfitAvailable()
    before = scene.GetNumberOfNodes()
    np.testing.assert_allclose(brainsfitRigid(scene, fixed, moving, start), found, atol=1e-12)
    assert module.start is not None
    np.testing.assert_allclose(module.start, start, atol=1e-12)
    assert scene.GetNumberOfNodes() == before


def test_failure_is_said_and_leaves_nothing(headless: HeadlessScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = headless.scene
    fixed, moving = volumes(scene)
    use(monkeypatch, StandIn(scene, np.eye(4), "no overlap"))
    before = scene.GetNumberOfNodes()
    with pytest.raises(RegistrationError, match="no overlap"):
        brainsfitRigid(scene, fixed, moving, np.eye(4))
    assert scene.GetNumberOfNodes() == before
    monkeypatch.setattr(slicer, "modules", SimpleNamespace())
    with pytest.raises(RegistrationError, match="has no BRAINSFit"):
        brainsfitRigid(scene, fixed, moving, np.eye(4))


def test_poses_apart_is_the_largest_in_the_brain() -> None:
    brain = Image(np.ones((20, 20, 20), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert poses_apart_mm(pose(0, (1, 2, 2)), pose(0, (1, 2, 5)), brain) == pytest.approx(3.0)
    with pytest.raises(DataError, match="empty"):
        poses_apart_mm(np.eye(4), np.eye(4), brain.with_array(np.zeros((20, 20, 20), np.uint8)))
