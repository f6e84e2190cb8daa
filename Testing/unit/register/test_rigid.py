"""The pose is known; the images differ in grid, contrast, noise, brain shift and resection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register.rigid import register_rigid
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import Cancelled, DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, pose_error

CENTRE = (0.0, 0.0, 0.0)


def test_pose_in_every_orientation(head: Any, preop: Image, scan: Any, pose: Any, directions: np.ndarray) -> None:
    truth = pose((1, 2, -1), 11.0, (9.0, -6.0, 7.0))
    intraop = scan(head, head_from_ras=invert(truth), axes=directions, centre=(4.0, 2.0, -3.0))
    found = register_rigid(intraop, preop)
    distance, angle = pose_error(found.intraop_from_preop, truth, CENTRE)
    assert found.verdict.level is Level.GOOD, found.verdict.text
    assert distance < 0.1
    assert angle < 0.1


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_captures_30_mm_and_25_degrees(head: Any, preop: Image, scan: Any, pose: Any, axis: Any, sign: int) -> None:
    shift = tuple(np.array([17.3, -17.3, 17.3]) * sign)
    truth = pose(axis, 25.0 * sign, shift)
    intraop = scan(head, head_from_ras=invert(truth), centre=tuple(0.7 * np.array(shift)), spacing=(2.0, 2.5, 3.0))
    found = register_rigid(intraop, preop)
    distance, angle = pose_error(found.intraop_from_preop, truth, CENTRE)
    assert found.verdict.level is Level.GOOD, found.verdict.text
    assert (distance, angle) < (0.3, 0.3)


def test_headers_that_say_nothing_of_each_other(head: Any, preop: Image, scan: Any, pose: Any) -> None:
    truth = pose((0.2, 1.0, 0.3), 20.0, (310.0, -240.0, 500.0))
    intraop = scan(head, head_from_ras=invert(truth), centre=(310.0, -240.0, 500.0))
    found = register_rigid(intraop, preop)
    assert pose_error(found.intraop_from_preop, truth, CENTRE)[0] < 0.1


def test_brain_shift_and_resection_do_not_pull_the_pose(
    head: Any, preop: Image, scan: Any, pose: Any, shifted: Any
) -> None:
    truth = pose((1, 0, 1), 8.0, (6.0, 5.0, -7.0))

    def resected(points: np.ndarray) -> np.ndarray:
        cavity = np.linalg.norm(points - (32.0, 0.0, 40.0), axis=-1) < 18.0
        return np.where(cavity, 20.0, 1.2 * head(points) ** 1.05) * (1.0 + 0.002 * points[..., 1])

    intraop = scan(resected, head_from_ras=invert(truth), warp=lambda p: shifted(p, 10.0), noise=4.0)
    found = register_rigid(intraop, preop)
    distance, angle = pose_error(found.intraop_from_preop, truth, CENTRE)
    assert (distance, angle) < (0.5, 0.5)
    assert found.verdict.level is Level.GOOD, found.verdict.text


@pytest.mark.parametrize(
    "contrast", [lambda v: np.where(v > 15, 240.0 - v, 0.5 * v), lambda v: 200.0 * np.exp(-(((v - 90) / 50) ** 2))]
)
def test_other_contrast(head: Any, preop: Image, scan: Any, pose: Any, contrast: Callable[[Any], Any]) -> None:
    truth = pose((0, 1, 0), 9.0, (8.0, 0.0, -6.0))
    intraop = scan(lambda p: contrast(head(p)), head_from_ras=invert(truth))
    found = register_rigid(intraop, preop)
    assert pose_error(found.intraop_from_preop, truth, CENTRE)[0] < 0.5
    assert found.verdict.level is not Level.REFUSED


@pytest.mark.parametrize("flip", [np.diag([1.0, -1, -1, 1]), np.diag([-1.0, 1, -1, 1]), np.diag([-1.0, -1, 1, 1])])
def test_header_turned_by_180_degrees_is_refused(preop: Image, head: Any, scan: Any, flip: np.ndarray) -> None:
    turned = Image(preop.array, flip @ preop.ras_from_ijk)
    found = register_rigid(scan(head, seed=3), turned)
    assert found.verdict.level is Level.REFUSED
    assert "180" in found.verdict.text or "headers" in found.verdict.text


def test_mirrored_volume_is_refused(preop: Image, head: Any, scan: Any) -> None:
    mirrored = preop.with_array(preop.array[:, :, ::-1].copy())
    found = register_rigid(scan(head, seed=3), mirrored)
    assert found.verdict.level is Level.REFUSED
    assert "mirrored" in found.verdict.text


def test_another_patient_is_refused(preop: Image, head: Any, scan: Any) -> None:
    found = register_rigid(scan(type(head)(seed=77, stretch=(1.05, 0.94, 1.03)), seed=3), preop)
    assert found.verdict.level is Level.REFUSED


def test_thick_slices_are_marked(preop: Image, head: Any, scan: Any, pose: Any) -> None:
    truth = pose((1, 0, 0), 4.0, (3.0, 2.0, 1.0))
    intraop = scan(head, head_from_ras=invert(truth), spacing=(1.5, 1.5, 6.0))
    found = register_rigid(intraop, preop)
    assert found.verdict.level is Level.CHECK
    assert "voxel size 6 mm" in found.verdict.text
    assert pose_error(found.intraop_from_preop, truth, CENTRE)[0] < 0.5


def test_half_a_head_is_found_and_marked(preop: Image, head: Any, scan: Any, pose: Any) -> None:
    truth = pose((1, 0, 0), 4.0, (3.0, 2.0, 1.0))
    half = Image(preop.array[:, :38].copy(), preop.ras_from_ijk)
    found = register_rigid(scan(head, head_from_ras=invert(truth)), half)
    assert found.verdict.level is Level.CHECK, found.verdict.text
    assert found.overlap < 0.6
    assert pose_error(found.intraop_from_preop, truth, (0.0, -40.0, 0.0))[0] < 0.3


def test_masks_on_another_grid_are_resampled(preop: Image, head: Any, scan: Any, pose: Any) -> None:
    truth = pose((0, 0, 1), 6.0, (5.0, 2.0, 1.0))
    intraop = scan(head, head_from_ras=invert(truth))
    mask_grid = scan(
        lambda p: head.brain(p).astype(float), head_from_ras=invert(truth), spacing=(3.0, 4.0, 5.0), noise=0.0
    )
    found = register_rigid(intraop, preop, fixed_mask=mask_grid)
    assert pose_error(found.intraop_from_preop, truth, CENTRE)[0] < 0.2
    elsewhere = Image(mask_grid.array, pose((0, 0, 1), 0.0, (900.0, 0, 0)) @ mask_grid.ras_from_ijk)
    with pytest.raises(DataError, match="no voxel inside"):
        register_rigid(intraop, preop, fixed_mask=elsewhere)


def test_unusable_images_are_named(preop: Image) -> None:
    broken = preop.array.copy()
    broken[4, 5, 6] = np.nan
    cases = {
        "not finite": preop.with_array(broken),
        "every voxel": preop.with_array(np.zeros_like(preop.array)),
        "not a slice": Image(preop.array[50:51], preop.ras_from_ijk),
        "one component": preop.with_array(np.stack([preop.array] * 3, axis=-1)),
    }
    for text, image in cases.items():
        with pytest.raises(DataError, match=text):
            register_rigid(preop, image)
        with pytest.raises(DataError, match=text):
            register_rigid(image, preop)


def test_no_overlap_is_an_error(preop: Image, pose: Any) -> None:
    with pytest.raises(RegistrationError, match="nowhere share"):
        register_rigid(preop, preop, initial=pose((0, 0, 1), 0.0, (700.0, 0.0, 0.0)))


def test_noise_gives_no_pose(preop: Image) -> None:
    noise = preop.with_array(np.random.default_rng(0).random(preop.array.shape).astype(np.float32))
    try:
        found = register_rigid(preop, noise)
    except RegistrationError:
        return
    assert found.verdict.level is Level.REFUSED


def test_stops_when_told_and_reports_rising_fractions(preop: Image) -> None:
    seen: list[float] = []

    def watch(fraction: float, what: str) -> bool:
        seen.append(fraction)
        return fraction < 0.5

    with pytest.raises(Cancelled, match="stopped while"):
        register_rigid(preop, preop, progress=watch)
    assert seen == sorted(seen)
    assert seen[-1] >= 0.5


def test_same_input_same_pose(preop: Image, head: Any, scan: Any, pose: Any) -> None:
    intraop = scan(head, head_from_ras=invert(pose((0, 1, 1), 5.0, (2.0, 2.0, 2.0))))
    first, again = register_rigid(intraop, preop), register_rigid(intraop, preop, threads=1)
    np.testing.assert_allclose(first.intraop_from_preop, again.intraop_from_preop, atol=1e-6)
    np.testing.assert_allclose(first.preop_from_intraop @ first.intraop_from_preop, np.eye(4), atol=1e-12)
    assert first.fixed_uid == intraop.uid
    assert first.moving_uid == preop.uid
    np.testing.assert_allclose(apply(first.intraop_from_preop, CENTRE), (2, 2, 2), atol=0.1)
