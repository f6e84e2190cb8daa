"""The panel of the reconstruction module, and a file that is read in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import slicer
from host.fixtures import app

__all__ = ["app", "panel", "read"]


@pytest.fixture
def panel(app: Any) -> Any:
    slicer.util.selectModule("IntraopMRIReconstruction")
    return slicer.util.getModuleWidget("IntraopMRIReconstruction").panel


def read(panel: Any, path: Path) -> None:
    """Choose a file as the source and go on; waits for nothing."""
    panel.ui.source.currentIndex = 1
    panel.ui.recording.currentPath = str(path)
    panel.ui.nextButton.click()
