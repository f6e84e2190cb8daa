"""``python -m host`` as a person has it: a window on a screen, clicked with a mouse, closed in the middle of a scan.

The test needs an X server of its own (Xvfb). Run as a program, this file is the person in front of that window.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: More than starting, a simulated case and its first scan take on a busy computer, s.
PATIENCE_S = 240.0


@pytest.fixture
def display() -> Iterator[str]:
    """An X server for this test alone."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the window is tested on Linux, where Xvfb gives a screen")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed: without it there is no screen to show the window on")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            number = server.stdout.readline().strip()
            if not number:
                pytest.skip("Xvfb does not start here")
            yield f":{number}"
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_window_that_is_closed_in_mid_scan_leaves_nothing(display: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    environment = {**os.environ, "DISPLAY": display}
    for name in ("QT_QPA_PLATFORM", "VTK_DEFAULT_OPENGL_WINDOW", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "host.test_window", str(seen)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    if "Could not load the Qt platform plugin" in ended.stderr:
        pytest.skip("Qt's libraries for X are missing: Testing/system-packages.sh app")
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    found = json.loads(seen.read_text())
    assert found["problem"] == ""
    assert found["grey levels on the screen"] > 50, "the screen shows a picture of the head"
    assert found["page"] == "CONNECT"
    assert len(found["processes"]) == 3
    assert found["threads"] == []
    alive = [process for process in found["processes"] if Path(f"/proc/{process}").exists()]
    assert alive == [], "the simulated devices ended with the window"


def person(seen: Path) -> int:
    """Click through the first two pages, look at the screen, close the window, write down what was seen."""
    from PySide6 import QtCore

    from . import __main__, application

    found: dict[str, Any] = {"problem": ""}
    start = application.start

    def started(*arguments: Any, **options: Any) -> Any:
        app = start(*arguments, **options)
        QtCore.QTimer.singleShot(0, lambda: clicks(app, found))
        return app

    application.start = started
    status = __main__.main()
    found["threads"] = [thread.name for thread in threading.enumerate() if thread.name.startswith("intraop")]
    seen.write_text(json.dumps(found))
    return status


def clicks(app: Any, found: dict[str, Any]) -> None:
    """What the person does; whatever happens, the window is closed in the end."""
    import slicer

    try:
        _clicks(app, found)
    except AssertionError as error:
        found["problem"] = str(error)
    slicer.util.mainWindow().close()


def _clicks(app: Any, found: dict[str, Any]) -> None:
    import slicer
    from PySide6 import QtCore, QtTest

    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    pages = {phase.name: page for phase, page in panel.pages.items()}

    def wait(condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            app.processEvents()
            time.sleep(0.01)

    def press(words: str) -> None:
        button = panel.ui.nextButton
        wait(lambda: words in button.text and button.enabled, words)
        QtTest.QTest.mouseClick(button, QtCore.Qt.MouseButton.LeftButton)

    wait(lambda: slicer.util.mainWindow().windowHandle().isExposed(), "the window")
    pages["CASE"].ui.simulationSizeBox.currentIndex = 1
    press("Start simulated theatre")
    wait(lambda: panel.running.theatre is not None and panel.running.task is None, "the simulated theatre")
    found["processes"] = [process.pid for process in panel.running.theatre._processes.values()]
    press("Go on: 2")
    press("Connect")
    wait(lambda: panel.running.connected and panel.running.progress is not None, "a scan")
    found["page"] = panel.parameters.phase.name
    wait(lambda: _greyLevels() > 50, "a picture of the head on the screen")
    found["grey levels on the screen"] = _greyLevels()


def _greyLevels() -> int:
    """How many grey levels the screen shows."""
    from PySide6 import QtGui

    image = QtGui.QGuiApplication.screens()[0].grabWindow(0).toImage()
    image = image.convertToFormat(QtGui.QImage.Format.Format_Grayscale8)
    return len(set(bytes(image.constBits())))


if __name__ == "__main__":
    sys.exit(person(Path(sys.argv[1])))
