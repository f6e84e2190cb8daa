"""What ctest runs inside a real Slicer passes in the host first: nobody else tries it before."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import slicer
from extension.cmake_lists import MODULES, ROOT
from host.fixtures import app

__all__ = ["app"]


#: Begins the host as the tests do, and runs the file that ctest gives to Slicer.
RUN = "from host.fixtures import running; running(); import unittest; unittest.main('SessionInSlicerTest', verbosity=2)"


def test_what_ctest_runs_passes_here() -> None:
    """In a process of its own: it reloads both modules, and the tests here hold classes of the ones before."""
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "Testing/ctest"), *sys.path])}
    done = subprocess.run([sys.executable, "-c", RUN], env=known, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_a_slicer_that_is_too_old_is_told_so_and_goes_on(app: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    said: list[str] = []
    monkeypatch.setattr(type(app), "minorVersion", 10)
    monkeypatch.setattr(slicer.util, "errorDisplay", said.append)
    made = getattr(sys.modules[name], f"{name}Widget")()
    made.setup()
    for call in (made.enter, made.exit, made.cleanup):
        call()
    assert said == ["This module needs 3D Slicer 5.12 or newer."]
