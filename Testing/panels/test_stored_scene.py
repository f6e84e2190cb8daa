"""A scene of an earlier session never looks like this one: it says so in every view until a session takes over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from panels.operation import Operation, ball, grid, product, texts

__all__ = ["app"]

VIEWS = ("Red", "Green", "Yellow", "3D")
STORED = "STORED SCENE, NOT VERIFIED"
#: Drawing all views takes its time on a busy machine.
WAIT_S = 20


@pytest.fixture
def operation(app: Any) -> Operation:
    made = Operation()
    measured(made)
    return made


def measured(operation: Operation) -> None:
    """A confirmed registration with residual, implant and what an ablation has reached."""
    operation.register()
    operation.running.confirm()
    bridge, recipes = operation.running.view.bridge, product("scene.recipes")
    left = Image(ball(np.array([-20.0, 0.0, 10.0]), 6.0).astype(np.uint8), grid(), "residual")
    bridge.setResidual(left)
    bridge.setActualImplant("Lead", (0.0, 0.0, 40.0), (0.0, 0.0, 0.0))
    segments = {1: ("lethal", "Lethal", product("scene.colors").LETHAL)}
    bridge.setHeat({"lethal": recipes.segmentation(left, "Lethal dose", segments, product("scene.looks").lethal)})


def of(role: str) -> list[Any]:
    """Nodes of a role; two scenes in one have more than one, whose role goes on with a stroke."""
    nodes = (slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes()))
    return [node for node in nodes if (node.GetAttribute("IntraopMRI.Role") or "").rstrip("'") == role]


def reloaded(tmp_path: Path, close: bool = True) -> None:
    """The scene as it is, saved, closed, and loaded; or loaded into itself."""
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    if close:
        slicer.mrmlScene.Clear(0)
    # Import, as qSlicerSceneReader does it for a scene that is added to the present one.
    product("scene.scene_io").loadScene(slicer.mrmlScene, path)


def says_so(operation: Operation) -> None:
    wait_until(lambda: all(STORED in texts(operation, view) for view in VIEWS), WAIT_S, "the banner over all views")


def looks_of_now() -> list[str]:
    """What in the scene has the look of a result that somebody stands for."""
    colors, found = product("scene.colors"), []
    for node in [*of("result.residual"), *of("heat.lethal")]:
        shades = [list(node.GetDisplayNode().GetSegmentColor(key)) for key in node.GetSegmentation().GetSegmentIDs()]
        if node.GetDisplayNode().GetVisibility2DFill() or not np.allclose(shades, colors.STORED, atol=1e-3):
            found.append(node.GetName())
    for node in of("intraop.implant.Lead.cylinder"):
        if not np.allclose(node.GetDisplayNode().GetColor(), colors.STORED, atol=1e-3):
            found.append(node.GetName())
    return found


def test_a_loaded_scene_is_marked_in_every_view(operation: Operation, tmp_path: Path) -> None:
    assert len(looks_of_now()) == 3
    reloaded(tmp_path)
    says_so(operation)
    assert of("result.residual")
    assert of("result.residual")[0].GetDisplayVisibility(), "what was found can still be looked at"
    assert looks_of_now() == []
    assert "Residual, stored" in texts(operation, "Red")
    assert "Tumour before" in texts(operation, "Red")
    when = product("scan_facts").local_text(operation.image.acquired_utc_s)[:-3]
    for view in VIEWS:
        said = " ".join(texts(operation, view))
        assert f"scan of {when}" in said
        assert not re.search(r"\d (cm³|mm|%|°C)( |$)", said.replace("2 cm", "").replace("5 cm", "")), said
        assert "Registration" not in said
    operation.panel.refresh()
    assert "nothing of it is verified" in operation.panel.ui.whyLabel.text


def test_it_says_so_while_another_module_is_open(operation: Operation, tmp_path: Path) -> None:
    slicer.util.selectModule("IntraopMRIReconstruction")
    reloaded(tmp_path)
    says_so(operation)
    assert looks_of_now() == []


def test_it_says_so_when_nobody_has_opened_the_module(
    operation: Operation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The panel draws it: where there is none yet, loading such a scene makes it, and loading another does not."""
    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "getModuleWidget", asked.append)
    reloaded(tmp_path)
    assert asked == ["IntraopMRI"]
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    reloaded(tmp_path)
    assert asked == ["IntraopMRI"]


def test_it_goes_with_its_scene(operation: Operation, tmp_path: Path) -> None:
    reloaded(tmp_path)
    says_so(operation)
    slicer.mrmlScene.Clear(0)
    wait_until(lambda: not any(texts(operation, view) for view in VIEWS), WAIT_S, "the empty views")
    operation.panel.refresh()
    assert "verified" not in operation.panel.ui.whyLabel.text


def test_loaded_into_a_session_it_ends_that_one_and_all_is_marked(operation: Operation, tmp_path: Path) -> None:
    reloaded(tmp_path, close=False)
    assert not operation.running.connected
    says_so(operation)
    assert len(of("result.residual")) == 2
    assert looks_of_now() == []


@pytest.mark.parametrize("close", [True, False])
def test_a_session_takes_over(operation: Operation, tmp_path: Path, close: bool) -> None:
    scans = len(of("intraop.contrast"))
    reloaded(tmp_path, close)
    says_so(operation)
    for node in [node for role in ("result.residual", "preop.tumour") for node in of(role)]:
        node.SetName("earlier")
    again = Operation()
    assert not slicer.mrmlScene.GetNodesByName("earlier").GetNumberOfItems(), "nothing of two plans stays"
    assert not of("result.residual")
    assert not of("intraop.contrast"), "a scan of an earlier session is a volume as any other"
    volumes = slicer.mrmlScene.GetNodesByClass("vtkMRMLScalarVolumeNode")
    volumes.UnRegister(None)
    names = [volumes.GetItemAsObject(index).GetName() for index in range(volumes.GetNumberOfItems())]
    assert names.count("T1 contrast") == (scans if close else 2 * scans)
    wait_until(lambda: not any(STORED in texts(again, view) for view in VIEWS), WAIT_S, "the end of the banner")
    measured(again)
    assert len(looks_of_now()) == 3, "what is found now looks so"
    again.running.disconnect()
    wait_until(lambda: not any(texts(again, view) for view in VIEWS), WAIT_S, "the empty views")


def test_a_reloaded_module_stands_for_nothing_that_it_finds(operation: Operation) -> None:
    slicer.util.getModuleWidget("IntraopMRI").onReload()
    operation.panel = slicer.util.getModuleWidget("IntraopMRI").panel
    says_so(operation)
    assert looks_of_now() == []


def test_nothing_is_said_of_what_is_not_there(operation: Operation, tmp_path: Path) -> None:
    reloaded(tmp_path)
    slicer.mrmlScene.RemoveNode(of("intraop.contrast")[0])
    wait_until(lambda: "time unknown" in " ".join(texts(operation, "Red")), WAIT_S, "the words")
    nodes = [slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes())]
    for node in [node for node in nodes if node.GetAttribute("IntraopMRI.Role")]:
        slicer.mrmlScene.RemoveNode(node)
    wait_until(lambda: not any(texts(operation, view) for view in VIEWS), WAIT_S, "the empty views")
