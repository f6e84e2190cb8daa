"""What ctest runs inside a real Slicer passes in the host first: nobody else tries it before."""

from __future__ import annotations

import importlib.util
import sys
import unittest
from typing import Any

import pytest
import slicer
from extension.cmake_lists import MODULES, ROOT
from host.fixtures import app

__all__ = ["app"]


@pytest.mark.usefixtures("app")
def test_what_ctest_runs_passes_here() -> None:
    spec = importlib.util.spec_from_file_location("SessionInSlicerTest", ROOT / "Testing/ctest/SessionInSlicerTest.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    assert result.testsRun == 4
    assert result.wasSuccessful(), [trace for _, trace in (*result.failures, *result.errors)]


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
