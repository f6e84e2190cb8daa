"""pytest fixtures: the one application of a test process, and an empty scene for each test."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6 import QtCore

from . import application

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "IntraopMRI", ROOT / "IntraopMRIReconstruction")
#: How often a wait looks at its condition, ms. Not by sleeping: that would give threads the time that Slicer does not.
WAKE_MS = 20
_running: list[Any] = []


def running() -> Any:
    """The application of this process, started when it is first asked for."""
    if not _running:
        _running.append(application.start(FOLDERS))
        atexit.register(_running[0].stop)
    return _running[0]


@pytest.fixture
def app() -> Iterator[Any]:
    """The application with an empty scene and no open module; fails when a callback raised."""
    import slicer

    app = running()
    slicer.util.selectModule("")
    slicer.mrmlScene.Clear(0)
    app.problems.clear()
    yield app
    slicer.util.selectModule("")
    slicer.mrmlScene.Clear(0)
    app.processEvents()
    assert not app.problems, "exceptions in callbacks:\n" + "\n".join(app.problems)


def wait_until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Let Qt work until the condition holds; fail with ``what`` when it never does."""
    end = time.monotonic() + seconds
    waking = QtCore.QTimer()
    waking.start(WAKE_MS)
    try:
        while not (value := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds:.0f} s in vain for {what or condition}")
            _running[0].processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    finally:
        waking.stop()
    return value
