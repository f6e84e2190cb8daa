"""Shared by all tests: the four orientations that every spatial stage must get right."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.geometry import rotation_about

#: Direction columns (i, j, k) in RAS of the four orientations that every spatial test covers.
ORIENTATIONS = {
    "RAS": np.diag([1.0, 1.0, 1.0]),
    "LAS": np.diag([-1.0, 1.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "oblique": rotation_about((0.3, -0.5, 0.8), 37.0) @ np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
}


@pytest.fixture(params=sorted(ORIENTATIONS))
def directions(request: pytest.FixtureRequest) -> np.ndarray:
    """Columns are the directions of i, j, k in RAS, shape (3, 3)."""
    return ORIENTATIONS[request.param]
