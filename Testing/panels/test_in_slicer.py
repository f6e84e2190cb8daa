"""What ctest runs inside a real Slicer passes in the host first: nobody else tries it before."""

from __future__ import annotations

import importlib.util
import unittest
from typing import Any

import pytest
from extension.cmake_lists import ROOT
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
