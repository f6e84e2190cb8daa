"""Three vertebrae that move each in its own way, with known poses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register.vertebrae import register_vertebrae
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import Cancelled, DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, invert, pose_error
from IntraopMRIReconstructionLib.simulate.spine import LEVELS_MM, make_spine_case

CENTRES = {"L1": np.array([0.0, 0.0, 36.0]), "L2": np.array([0.0, 0.0, 0.0]), "L3": np.array([0.0, 0.0, -36.0])}
SIZE = (64, 72, 96)
GRID = corner_from_centre(np.eye(3) * 1.25, (0.0, 0.0, 0.0), SIZE)


def bone(points: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(inside 0..1, grey value) of a body, an arch and processes around its centre, different at each level."""
    p = points - CENTRES[name]
    body = 1.0 - np.linalg.norm((p - (0, 12, 0)) / (21.0, 16.0, 13.0), ord=4, axis=-1)
    arch = 1.0 - np.linalg.norm((p - (0, -12, 0)) / (24.0, 6.0, 8.0), axis=-1)
    spine = 1.0 - np.linalg.norm((p - (0, -24, -4)) / (4.0, 14.0, 7.0), axis=-1)
    left = 1.0 - np.linalg.norm((p - (-24, -6, 2)) / (12.0, 5.0, 5.0), axis=-1)
    right = 1.0 - np.linalg.norm((p - (25, -6, -1)) / (12.0, 5.0, 5.0), axis=-1)
    inside = 0.5 * (1 + np.tanh(np.max([body, arch, spine, left, right], axis=0) / 0.05))
    phase = list(CENTRES).index(name) * 1.7
    marrow = 130 + 15 * np.sin(p @ (0.3, 0.2, 0.4) + phase) + 12 * np.sin(p @ (-0.25, 0.45, 0.2))
    return inside, marrow


def picture(poses: dict[str, np.ndarray], seed: int) -> Image:
    k, j, i = np.indices(SIZE[::-1])
    points = apply(GRID, np.stack([i, j, k], axis=-1).astype(float))
    values = 60.0 + 6.0 * np.sin(points @ (0.1, 0.08, 0.05))
    for name in CENTRES:
        inside, marrow = bone(apply(invert(poses.get(name, np.eye(4))), points), name)
        values = values * (1 - inside) + marrow * inside
    values += np.random.default_rng(seed).normal(0, 3.0, values.shape)
    return Image(values.astype(np.float32), GRID)


@pytest.fixture(scope="module")
def masks() -> dict[str, Image]:
    k, j, i = np.indices(SIZE[::-1])
    points = apply(GRID, np.stack([i, j, k], axis=-1).astype(float))
    return {name: Image((bone(points, name)[0] > 0.5).astype(np.uint8), GRID, name) for name in CENTRES}


def turned(pose: Any, name: str, degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    result = pose((1.0, 0.2, 0.1), degrees, (0.0, 0.0, 0.0))
    result[:3, 3] = CENTRES[name] + shift - result[:3, :3] @ CENTRES[name]
    return np.asarray(result)


@pytest.mark.parametrize("gain", [1.0, 40.0, 0.01])
def test_each_moves_on_its_own(pose: Any, masks: dict[str, Image], gain: float) -> None:
    truth = {
        "L1": turned(pose, "L1", 5.0, (1.0, 3.0, 1.5)),
        "L2": turned(pose, "L2", 1.0, (0.0, 2.0, 0.0)),
        "L3": turned(pose, "L3", -4.0, (-1.0, 1.0, -1.0)),
    }
    now = picture(truth, 1)
    found = register_vertebrae(now.with_array(now.array * np.float32(gain)), picture({}, 2), masks)
    assert [f.name for f in found] == ["L1", "L2", "L3"]
    assert not any(f.why for f in found)
    for each in found:
        distance, angle = pose_error(each.intraop_from_preop, truth[each.name], CENTRES[each.name])
        assert distance < 0.5, each.name
        assert angle < 1.0, each.name
        assert each.verdict.level is Level.GOOD, each.verdict.text


def test_implausible_motion_of_one_is_marked(pose: Any, masks: dict[str, Image]) -> None:
    truth = {"L2": turned(pose, "L2", 0.0, (0.0, 0.0, 9.0))}
    found = {f.name: f for f in register_vertebrae(picture(truth, 1), picture({}, 2), masks)}
    assert found["L2"].verdict.level is not Level.GOOD
    assert "shift against" in found["L2"].verdict.text


def test_a_vertebra_that_is_not_there_is_refused_and_keeps_the_initial_pose(pose: Any, masks: dict[str, Image]) -> None:
    empty = picture({}, 1)
    noise = np.random.default_rng(5).normal(60, 10, empty.array.shape).astype(np.float32)
    start = pose((0.0, 0.0, 1.0), 2.0, (1.0, 0.0, 0.0))
    for each in register_vertebrae(empty.with_array(noise), picture({}, 2), masks, initial=start):
        assert each.verdict.level is Level.REFUSED
        assert each.intraop_from_preop == pytest.approx(start)
        assert each.why


@pytest.mark.parametrize(("down_mm", "level"), [(0.0, Level.GOOD), (12.0, Level.CHECK), (16.0, Level.REFUSED)])
def test_bones_that_would_lie_in_one_another_collide(
    pose: Any, masks: dict[str, Image], down_mm: float, level: Level
) -> None:
    """The bodies are 10 mm apart: a neighbour that sinks by more than that cannot have been found right."""
    truth = {"L1": turned(pose, "L1", 0.0, (0.0, 0.0, -down_mm))}
    found = register_vertebrae(picture(truth, 1), picture({}, 2), {name: masks[name] for name in ("L1", "L2")})
    overlap = next(reason for reason in found[0].verdict.reasons if reason.name == "overlap with L2")
    assert overlap.level is level, overlap


def test_large_motion_of_every_vertebra_in_a_simulated_spine(directions: np.ndarray) -> None:
    """Turned by up to 8 degrees and slid by up to 4 mm each, one with a screw in it: far beyond one rigid pose."""
    case = make_spine_case(2, directions=directions, bend_deg=8.0, slide_mm=4.0, spacing_mm=2.0)
    masks = {
        name: Image((case.vertebrae.array == number).astype(np.uint8), case.vertebrae.ras_from_ijk, name)
        for number, name in enumerate(LEVELS_MM, start=1)
        if name in ("L3", "L4")
    }
    whole = case.truth.vertebrae["L3"]
    for each in register_vertebrae(case.noisy(), case.preop, masks, initial=whole):
        middle = apply(masks[each.name].ras_from_ijk, np.argwhere(masks[each.name].array).mean(axis=0)[::-1])
        distance, angle = pose_error(each.intraop_from_preop, case.truth.vertebrae[each.name], middle)
        assert distance < 0.3, each.name
        assert angle < 0.5, each.name
        assert each.verdict.level is not Level.REFUSED
        assert distance < each.error_mm < 1.0


def test_a_vertebra_that_the_scan_covers_in_part_is_found_and_said() -> None:
    """A forward bend takes the first vertebra out of the scan by a third: what lies outside speaks for no pose."""
    case = make_spine_case(1, curve_deg=12.0, spacing_mm=2.0)
    masks = {
        name: Image((case.vertebrae.array == number).astype(np.uint8), case.vertebrae.ras_from_ijk, name)
        for number, name in enumerate(LEVELS_MM, start=1)
        if name in ("L1", "L2")
    }
    first, second = register_vertebrae(case.noisy(), case.preop, masks, initial=case.truth.vertebrae["L2"])
    middle = apply(masks["L1"].ras_from_ijk, np.argwhere(masks["L1"].array).mean(axis=0)[::-1])
    distance, angle = pose_error(first.intraop_from_preop, case.truth.vertebrae["L1"], middle)
    assert distance < 0.5
    assert angle < 1.0
    assert first.verdict.level is Level.CHECK
    assert "part in the scan 0." in first.verdict.text
    assert second.verdict.level is Level.GOOD


def test_bad_calls(masks: dict[str, Image]) -> None:
    image = picture({}, 1)
    with pytest.raises(RegistrationError, match="no vertebra"):
        register_vertebrae(image, image, {})
    away = GRID.copy()
    away[:3, 3] += 900.0
    with pytest.raises(DataError, match="L1 mask"):
        register_vertebrae(image, image, {"L1": Image(masks["L1"].array, away)})
    with pytest.raises(Cancelled, match="L1"):
        register_vertebrae(image, image, masks, progress=lambda _f, _w: False)
