"""A small head of analytic shapes, so that a whole case takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.simulate.anatomy import Anatomy
from IntraopMRIReconstructionLib.simulate.case_files import write_case
from IntraopMRIReconstructionLib.simulate.grids import axis_grid, points_of, smooth_noise
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase, make_brain_case
from IntraopMRIReconstructionLib.simulate.spine import SpineCase, make_spine_case

RADII_MM = np.array([54.0, 62.0, 50.0])


@pytest.fixture(scope="session")
def small_head() -> Anatomy:
    """An ellipsoid brain with a cortex and sulci, in a skull and a scalp."""
    matrix = axis_grid((-70.0, -78.0, -66.0), 1.0)
    shape = (132, 156, 140)
    points = points_of(matrix, shape)
    radius = np.linalg.norm(points / RADII_MM.astype(np.float32), axis=-1)
    depth = (radius - 1) * 55.0
    texture = np.repeat(smooth_noise((66, 156, 140), 3.0, np.random.default_rng(1)), 2, axis=0)
    white = np.clip((-depth - 6 + 3 * texture) / 2, 0, 1).astype(np.float32)
    t1 = 560 + 240 * white
    head = np.where(depth < 2, 150.0, np.where(depth < 8, 45.0, np.where(depth < 13, 900.0, 0.0)))
    return Anatomy(
        "ellipsoid",
        matrix,
        t1.astype(np.float32),
        head.astype(np.float32),
        np.zeros(shape, np.float32),
        depth < 0,
        white * (depth < 0),
        (depth - 2).astype(np.float32),
    )


@pytest.fixture(scope="session")
def hard_case(small_head: Anatomy) -> BrainCase:
    return make_brain_case(7, small_head, "hard")


@pytest.fixture(scope="session")
def spine_case() -> SpineCase:
    return make_spine_case(3, spacing_mm=2.0)


@pytest.fixture(scope="session")
def case_folder(small_head: Anatomy, spine_case: SpineCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theatre")
    write_case(folder, make_brain_case(7, small_head, "standard", spacing_mm=3.0), spine_case, "SIM-7")
    return folder
