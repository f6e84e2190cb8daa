"""How near an implant lies to what is outlined: known distances, in every orientation of the label."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory
from IntraopMRILib.session.clearance import clearances
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, rotation_about


def vessel(directions: np.ndarray, spacing: tuple[float, float, float] = (0.7, 0.7, 0.7)) -> Image:
    """A tube of 3 mm radius along S through R 10, A 0, preoperative RAS."""
    size = (np.ceil(50.0 / np.array(spacing)).astype(int) // 2) * 2 + 1
    grid = np.eye(4)
    grid[:3, :3] = directions @ np.diag(spacing)
    grid[:3, 3] = -grid[:3, :3] @ ((size - 1) / 2)
    k, j, i = np.indices(tuple(size[::-1].tolist()))
    ras = apply(grid, np.stack([i, j, k], axis=-1))
    tube = (np.hypot(ras[..., 0] - 10.0, ras[..., 1]) <= 3.0) & (np.abs(ras[..., 2]) <= 16.0)
    return Image(tube.astype(np.uint8), grid)


def pose() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), 33.0)
    matrix[:3, 3] = (40.0, -25.0, 8.0)
    return matrix


@pytest.mark.parametrize(
    ("entry", "tip", "truth"),
    [
        # Beside it, diameter 4: from the axis at R 0 there are 10 mm to its middle.
        ((0.0, -15.0, 0.0), (0.0, 15.0, 0.0), 5.0),
        ((6.0, -15.0, 0.0), (6.0, 15.0, 0.0), -1.0),
        # Its tip ends before the vessel, at it, and in it.
        ((-15.0, 0.0, 0.0), (5.0, 0.0, 0.0), 2.0),
        ((-15.0, 0.0, 0.0), (9.0, 0.0, 0.0), -2.0),
    ],
)
def test_known_distances(
    directions: np.ndarray, entry: tuple[float, ...], tip: tuple[float, ...], truth: float
) -> None:
    """A patient who lies otherwise has not come nearer."""
    actual = Trajectory(np.array(entry), np.array(tip), 4.0, "Lead").moved(pose())
    (found,) = clearances(actual, Spread(0.3), {"Vein": vessel(directions)}, pose(), "pose of L3", ("scan",))
    assert found.name == "Lead: clearance to Vein"
    assert found.value == pytest.approx(truth, abs=0.35)
    assert found.interval is not None
    assert found.interval[0] <= truth <= found.interval[1]
    assert found.interval[1] - found.interval[0] >= 2 * 0.35
    assert "carried by the pose of L3" in found.definition
    assert found.based_on == ("scan",)


def test_thick_slices_and_a_void_that_may_lie_aside_widen_it() -> None:
    actual = Trajectory(np.array([0.0, -15.0, 0.0]), np.array([0.0, 15.0, 0.0]), 4.0, "Lead")
    aside = Spread(0.3, actual.direction, across_mm=2.0)
    widths = []
    for may, spacing in (
        (Spread(0.3), (0.7, 0.7, 0.7)),
        (Spread(0.3), (0.7, 0.7, 4.0)),
        (aside, (0.7, 0.7, 0.7)),
    ):
        (found,) = clearances(actual, may, {"Vein": vessel(np.eye(3), spacing)}, np.eye(4), "rigid pose")
        assert found.interval is not None
        assert found.interval[0] <= 5.0 <= found.interval[1]
        widths.append(found.interval[1] - found.interval[0])
    assert widths[0] < widths[1]
    assert widths[0] + 3.0 < widths[2]
