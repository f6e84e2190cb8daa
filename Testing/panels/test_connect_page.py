"""Page 2: what a person knows about the devices reaches the links, and a wrong name does not look right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import rotation_about
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.adapters import message_from_image
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import PROFILES
from panels.operation import plan_screw

__all__ = ["app"]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = list(PROFILES)


def placed(degrees: float, *position: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), degrees)
    matrix[:3, 3] = position
    return matrix


#: Where the tools are, RAS mm.
POINTER, REFERENCE = placed(35.0, 12.5, -40.25, 61.0), placed(-20.0, -90.0, 15.0, 5.0)


class Theatre:
    """A tracker that sees a reference and a pointer and says where they are in LPS; a live stream that says LPS."""

    def __init__(self, stack: ExitStack) -> None:
        self.scanner, self.tracker, self.live = (stack.enter_context(Server()) for _ in range(3))
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        self.page = next(page for phase, page in self.panel.pages.items() if phase.name == "CONNECT")
        p = self.panel.parameters
        plan_screw(p)
        p.scanner.port, p.tracker.port, p.live.port = self.scanner.port, self.tracker.port, self.live.port
        self.panel.open(self.page.phase)

    def connect(self) -> None:
        self.panel.ui.nextButton.click()
        wait_until(lambda: self.panel.running.task is None, 60, "the attempt to connect")
        assert self.panel.running.connected, self.panel.running.problem
        self.panel.refresh()

    def see(self) -> None:
        tools = tuple(codec.TrackedTool(n, LPS @ m) for n, m in (("Reference", REFERENCE), ("Pointer", POINTER)))
        self.tracker.send(codec.TrackingDataMessage(device="tracker", tools=tools))

    def pointer(self) -> Any:
        """Where the pointer stands in the scene, RAS mm."""
        running = self.panel.running

        def shown() -> Any:
            self.see()
            node = running.view.bridge.node("pointer")
            return node if node is not None and node.GetDisplayNode().GetVisibility() else None

        matrix = vtk.vtkMatrix4x4()
        wait_until(shown, 60, "the pointer").GetParentTransformNode().GetMatrixTransformToWorld(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix)

    def tracker_says(self) -> str:
        self.page.tick()
        return str(self.page.ui.trackerStateLabel.text)


@pytest.fixture
def theatre(app: Any) -> Iterator[Theatre]:
    with ExitStack() as stack:
        made = Theatre(stack)
        stack.callback(made.panel.running.close)
        yield made


def test_dialect_and_tool_put_the_pointer_where_it_is(theatre: Theatre) -> None:
    ui = theatre.page.ui
    ui.trackerDialectBox.currentIndex = NAMES.index("poses in LPS")
    ui.pointerToolEdit.text = " Pointer "
    theatre.panel.refresh()
    assert theatre.tracker_says() == "not connected, speaks: Poses in LPS", "seen while the choice is folded away"
    theatre.connect()
    np.testing.assert_allclose(theatre.pointer(), POINTER, atol=0.01)
    says = theatre.tracker_says()
    assert says.startswith("connected, speaks: Poses in LPS, following 'Pointer', pose ")
    for part in ("scanner", "tracker", "live"):
        assert not getattr(ui, f"{part}DialectBox").enabled
    assert not ui.pointerToolEdit.enabled
    theatre.panel.running.disconnect()
    theatre.panel.refresh()
    wait_until(lambda: ui.pointerToolEdit.enabled and ui.trackerDialectBox.enabled, 30, "the end of the session")


def test_without_them_it_is_the_first_tool_as_it_was_sent(theatre: Theatre) -> None:
    theatre.connect()
    np.testing.assert_allclose(theatre.pointer(), LPS @ REFERENCE, atol=0.01)
    assert theatre.tracker_says().startswith("connected, following 'Reference', pose ")


@pytest.mark.parametrize("name", ["as sent", "pyigtl with RAS matrices"])
def test_the_dialect_of_the_live_slices_says_where_they_lie(theatre: Theatre, name: str) -> None:
    theatre.page.ui.liveDialectBox.currentIndex = NAMES.index(name)
    theatre.connect()
    ras = np.diag([2.0, 3.0, 4.0, 1.0])
    ras[:3, 3] = 5.0, 6.0, 7.0
    said = replace(message_from_image(Image(np.ones((1, 4, 5), np.float32), ras)), coordinate="LPS")
    bridge = theatre.panel.running.view.bridge
    assert theatre.live.wait_for_peer(20.0)
    theatre.live.send(said)
    node = wait_until(lambda: bridge.node("live"), 30, "the live slice")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    meant = ras if name != "as sent" else LPS @ ras
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), meant, atol=0.01)


def test_a_live_slice_that_no_other_follows_says_so(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{type(theatre.panel.running).__module__}.LIVE_OLD_S", 0.2)
    theatre.connect()
    bridge, message = theatre.panel.running.view.bridge, message_from_image(Image(np.ones((1, 4, 5), np.float32), LPS))
    assert theatre.live.wait_for_peer(20.0)

    def name() -> str:
        return bridge.node("live").GetName() if bridge.node("live") is not None else ""

    for _ in range(2):
        theatre.live.send(message)
        wait_until(lambda: name() == "Live slice", 30, "the live slice")
        theatre.page.tick()
        assert ", last slice " in theatre.page.ui.liveStateLabel.text
        wait_until(lambda: name().startswith("Live slice (none since "), 30, "the end of the stream")


def test_the_dialect_of_the_scanner_is_its_own_and_in_the_record(theatre: Theatre) -> None:
    theatre.page.ui.scannerDialectBox.currentIndex = NAMES.index("mrigtlbridge")
    theatre.connect()
    events = theatre.panel.running.session.journal.record.events
    (said,) = [event.text for event in events if event.kind == "connected"]
    assert said.endswith(f":{theatre.scanner.port} (mrigtlbridge), 127.0.0.1:{theatre.tracker.port}")


def test_a_tool_that_the_tracker_does_not_send_is_said(theatre: Theatre) -> None:
    theatre.page.ui.pointerToolEdit.text = "Pointre"
    theatre.connect()
    assert "no pose yet" in theatre.tracker_says()
    theatre.see()
    wait_until(lambda: "Pointre" in theatre.tracker_says(), 30, "the missing tool")
    assert theatre.tracker_says().startswith("connected, tool 'Pointre' was not seen, only 'Reference', 'Pointer'")
    wait_until(lambda: "sends no tool 'Pointre'" in theatre.panel.ui.whyLabel.text, 5, "the state of the page")
    assert theatre.page.state().readiness.name == "READY", "not done"
    assert theatre.panel.running.rawPose is None


def test_the_choices_are_kept_with_the_scene_and_older_scenes_are_read(theatre: Theatre, tmp_path: Any) -> None:
    p = theatre.panel.parameters
    assert [choice.value for choice in type(p.trackerDialect)] == NAMES
    theatre.page.ui.scannerDialectBox.currentIndex = NAMES.index("Plus")
    theatre.page.ui.pointerToolEdit.text = "Pointer"
    node = p.parameterNode
    node.UnsetParameter("liveDialect")  # as a scene that was saved before there was such a choice
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    wait_until(lambda: theatre.panel.parameters is not None, 10, "the parameters")
    p = theatre.panel.parameters
    assert (p.scannerDialect.value, p.pointerTool, p.liveDialect.value) == ("Plus", "Pointer", "as sent")
    assert p.scanner.port == theatre.scanner.port
