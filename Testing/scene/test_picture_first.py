"""The picture of a new scan does not wait for its surface, and that of an earlier scan never stands with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.scene import conversion
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.prepared import Prepared, Preparer, behind, prepare
from IntraopMRILib.scene.session_view import SessionView
from IntraopMRILib.session import Plan
from IntraopMRILib.session.updates import ImageReady, Problem, Update
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError

SURFACE = "intraop.anatomy"
#: Wait at most so long for a thread.
PATIENCE_S = 20.0


def ready(name: str, radius: float = 6.0) -> ImageReady:
    """A ball about the origin, mm."""
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, 3] = -9.5
    away = np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0)
    return ImageReady(Image((900.0 * (away < radius)).astype(np.float32), ras_from_ijk, name), "native", None, 0.0)


def waited(preparer: Preparer) -> tuple[Update | None, Prepared]:
    """The next that is ready."""
    pause, tries = threading.Event(), range(int(PATIENCE_S / 0.005))
    found = next((item for _ in tries if (item := preparer.next()) is not None or pause.wait(0.005)), None)
    assert found is not None
    return found


@pytest.fixture
def preparer() -> Iterator[Preparer]:
    made = Preparer()
    yield made
    made.close()


def test_the_picture_is_there_while_its_surface_is_still_made(
    preparer: Preparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, make = threading.Event(), conversion.anatomySurface

    def slow(image: Image) -> Any:
        assert finish.wait(PATIENCE_S)
        return make(image)

    monkeypatch.setattr(conversion, "anatomySurface", slow)
    update = ready("native")
    preparer.put(update)
    told, shown = waited(preparer)
    assert told is update
    assert shown.content is not None
    assert shown.anatomy is None
    finish.set()
    told, shown = waited(preparer)
    assert told is None
    assert shown.anatomy is not None
    assert shown.anatomy[0].GetNumberOfPoints() > 0
    assert shown.anatomy[1] == update.image.uid


def test_a_surface_that_fails_takes_no_picture_along(preparer: Preparer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_image: Image) -> Any:
        raise DataError("no surface")

    monkeypatch.setattr(conversion, "anatomySurface", fails)
    update = ready("native")
    preparer.put(update)
    assert waited(preparer)[0] is update
    said = waited(preparer)[0]
    assert isinstance(said, Problem)
    assert said.text == "no surface"


def test_no_surface_stands_with_the_picture_of_another_scan() -> None:
    first, second = ready("first"), ready("second", 8.0)
    (of_first,), (of_second,) = behind(first), behind(second)
    bridge = SceneBridge(HeadlessScene().scene)
    view = SessionView(bridge, Plan("P1", "test", first.image, first.image))
    view.draw(of_first)
    assert bridge.node(SURFACE) is None, "there is no picture yet"
    view.apply(first, prepare(first))
    assert bridge.node("intraop.native") is not None
    assert bridge.node(SURFACE) is None
    view.draw(of_first)
    assert bridge.node(SURFACE) is not None
    view.apply(second, prepare(second))
    assert bridge.node(SURFACE) is None, "that of the scan before"
    view.draw(of_first)
    assert bridge.node(SURFACE) is None, "it comes too late"
    view.draw(of_second)
    node = bridge.node(SURFACE)
    assert node is not None
    bounds = node.GetPolyData().GetBounds()
    assert bounds[1] - bounds[0] == pytest.approx(16.0, abs=2.0)
    view.apply(first)
    assert bridge.node(SURFACE) is not None, "without a preparer it comes with the picture"
