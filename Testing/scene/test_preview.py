"""The preview of a scan that arrives: marked as such, in nobody else's place, gone with the volume or the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.display import banners, corners
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.session_view import SessionView
from IntraopMRILib.session import Plan
from IntraopMRILib.session.updates import ImageReady, Problem, ScanPreview
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict

GOOD = Verdict((Reason("error", 0.5, "mm", "below 1 mm", Level.GOOD),))


def volume(name: str, size: int = 24) -> Image:
    k, j, i = np.ogrid[:size, :size, :size]
    middle = size / 2
    ball = ((k - middle) ** 2 + (j - middle) ** 2 + (i - middle) ** 2 < (0.4 * size) ** 2) * np.float32(100)
    return Image(ball.astype(np.float32), np.diag([48 / size, 48 / size, 48 / size, 1.0]), name=name)


@pytest.fixture
def view(headless: HeadlessScene) -> SessionView:
    before = volume("before")
    tumour = before.with_array((before.array > 0).astype(np.uint8))
    return SessionView(SceneBridge(headless.scene), Plan("P-1", "test", before, tumour))


def preview(fraction: float = 0.43) -> ScanPreview:
    return ScanPreview("T1 contrast", fraction, volume("coarse", 12))


def test_it_says_what_it_is(view: SessionView) -> None:
    view.apply(preview())
    node: Any = view.bridge.node("preview")
    assert node.GetName() == "PREVIEW 43% of T1 contrast"
    assert not node.GetSaveWithScene()
    readout = view.readout()
    assert readout.preview == "43%"
    assert [banner.title for banner in banners(readout)] == ["PREVIEW, 43% ACQUIRED"]
    assert any(line.text == "Preview, 43% acquired" for line in corners(readout).bottomRight)
    view.apply(preview(0.71))
    assert node.GetName() == "PREVIEW 71% of T1 contrast"
    assert view.volume() is node


@pytest.mark.parametrize(
    "end",
    [
        ImageReady(volume("T1 contrast"), "contrast", None, 0.0),
        ScanPreview("T1 contrast", 0.5, None),
    ],
)
def test_it_goes_with_the_volume_or_with_the_scan(view: SessionView, end: Any) -> None:
    view.apply(preview())
    view.apply(end)
    assert view.bridge.node("preview") is None
    assert view.readout().preview == ""
    assert not any("PREVIEW" in banner.title for banner in banners(view.readout()))


def test_it_takes_nobodys_place(view: SessionView) -> None:
    """What is registered stays in the views, with its overlays; the preview only lies in the scene."""
    image = volume("T1 native")
    view.apply(ImageReady(image, "native", None, 0.0))
    view.bridge.setRegistration(np.eye(4), GOOD, image.uid, "identity")
    view.apply(preview())
    assert view.volume() is view.bridge.node("intraop.native")
    assert view.readout().preview == ""
    assert view.bridge.node("preview") is not None


def test_no_number_rests_on_it(view: SessionView) -> None:
    view.apply(preview())
    view.apply(Problem("receive", "the scan stopped"))
    readout = view.readout()
    assert readout.residual is None
    assert readout.verdict is None
