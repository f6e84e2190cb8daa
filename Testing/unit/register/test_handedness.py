"""An image that is mirrored or turned half round is refused by name; one that is its own mirror image is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register.handedness import RIVAL_FACTOR
from IntraopMRILib.register.rigid import register_rigid
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.simulate.anatomy import load_anatomy

FIT = "the image fits better "


@pytest.fixture(scope="module")
def template() -> Image:
    """A real head at 3 mm, with its rim of air."""
    head = load_anatomy().t1
    matrix = np.array(head.ras_from_ijk)
    matrix[:3, :3] *= 3
    return Image(np.ascontiguousarray(head.array[::3, ::3, ::3], np.float32), matrix)


def resected(head: Image, at: tuple[float, float, float]) -> Image:
    """Its other contrast, with a cavity of 2 cm at (k, j, i) as parts of the grid, and noise."""
    top = np.percentile(head.array, 99)
    values = np.where(head.array > 0.1 * top, 1.2 * top - np.minimum(head.array, top), 0.4 * head.array)
    kji = np.indices(values.shape).transpose(1, 2, 3, 0) - np.array(at) * values.shape
    values[np.linalg.norm(kji * 3, axis=-1) < 20] = 1.3 * top
    noise = np.random.default_rng(1).standard_normal(values.shape) * 0.03 * top
    return head.with_array(np.abs(values + noise).astype(np.float32))


def flipped(image: Image, *axes: int) -> Image:
    """Turned round along axes of (k, j, i), the header as before."""
    return image.with_array(np.ascontiguousarray(np.flip(image.array, axes)))


def test_a_real_head_mirrored_left_to_right_is_refused_and_the_right_one_is_not(template: Image) -> None:
    scan = resected(template, (0.6, 0.4, 0.3))
    right, wrong = register_rigid(scan, template), register_rigid(flipped(scan, 2), template)
    assert right.verdict.level is not Level.REFUSED, right.verdict.text
    assert wrong.verdict.level is Level.REFUSED
    assert FIT + "mirrored left-right" in wrong.verdict.text


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ((1,), "mirrored front-back"),
        ((0,), "mirrored head-foot"),
        ((1, 2), "turned by 180 degrees"),
    ],
)
def test_the_axis_is_named(template: Image, axes: tuple[int, ...], said: str) -> None:
    text = register_rigid(flipped(template, *axes), template).verdict.text
    assert FIT + said in text
    assert text.count(FIT) == 1


def test_of_a_head_that_is_its_own_mirror_image_nothing_is_said(head: Any, scan: Any, pose: Any) -> None:
    def symmetric(points: np.ndarray) -> np.ndarray:
        return head(points) + head(points * (-1.0, 1.0, 1.0))

    volumes = [scan(symmetric, head_from_ras=pose((1, 2, 0), angle, (0, 0, 0)), seed=angle) for angle in (0, 5)]
    found = register_rigid(volumes[1], volumes[0])
    assert found.verdict.level is Level.GOOD, found.verdict.text
    assert found.verdict.reasons[-1].value == pytest.approx(1, abs=RIVAL_FACTOR - 1)
