"""Sparks and radio waves are found in simulated scans, and in none without them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.interference import spikes, zipper_words
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, Ellipsoid, cartesian_kspace, ring_of_coils

FIELD, SIZE, COILS = 240.0, 96, 2
CENTRAL = np.abs(np.arange(SIZE) - SIZE // 2) <= 3


def header(y: int = SIZE) -> Encoding:
    return Encoding(
        "scan", "cartesian", (1, y, SIZE), (1, y, SIZE), (5.0, FIELD, FIELD), (5.0, FIELD, FIELD), COILS,
        np.diag([-FIELD / SIZE, -FIELD / y, 5.0, 1.0]), is_3d=False,
    )  # fmt: skip


@cache
def whole(parts: tuple[Ellipsoid, ...]) -> np.ndarray:
    return cartesian_kspace((SIZE, SIZE), (FIELD, FIELD), parts, ring_of_coils(COILS, FIELD))


def scan(parts: tuple[Ellipsoid, ...], noise: float, seed: int = 0) -> np.ndarray:
    """(coils, y, x)."""
    clean = whole(parts)
    numbers = np.random.default_rng(seed).standard_normal((*clean.shape, 2)) * noise
    return (clean + numbers[..., 0] + 1j * numbers[..., 1]).astype(np.complex64)


def wave(kspace: np.ndarray, place: float, strength: float, seed: int = 0) -> np.ndarray:
    """``kspace`` with a radio wave at ``place`` (pixels along the readout) whose phase differs from line to line."""
    rng = np.random.default_rng(seed)
    along = np.exp(-2j * np.pi * (place - SIZE // 2) * (np.arange(SIZE) - SIZE // 2) / SIZE) / np.sqrt(SIZE)
    phase = np.exp(2j * np.pi * rng.random((kspace.shape[1], 1)))
    return (kspace + strength * np.array([1, 0.5j])[:, None, None] * phase * along).astype(np.complex64)


def words(kspace: np.ndarray, mask: np.ndarray | None = None) -> str:
    acquired = np.ones((1, SIZE), bool) if mask is None else mask[None]
    return zipper_words(np.where(acquired[:, :, None], kspace, 0)[:, None].astype(np.complex64), acquired, header())


OBJECTS: dict[str, tuple[Ellipsoid, ...]] = {
    "head": HEAD_2D,
    "point": (*HEAD_2D, Ellipsoid((10.0, 20.0), (1.0, 1.0), 40.0)),
    "two points": (
        *HEAD_2D, Ellipsoid((10.0, 20.0), (1.0, 1.0), 40.0), Ellipsoid((10.0, -37.0), (1.0, 1.0), -40.0),
    ),
    "plate": (*HEAD_2D, Ellipsoid((10.0, 0.0), (0.7, 60.0), 3.0)),
    "slanted plate": (*HEAD_2D, Ellipsoid((10.0, 0.0), (0.7, 60.0), 3.0, 30.0)),
    "comb": tuple(Ellipsoid((14.0 * n - 77.0, 0.0), (3.5, 90.0), 1.0) for n in range(12)),
    "filled field": (Ellipsoid((0.0, 0.0), (119.0, 119.0)),),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.03])
def test_what_lies_in_the_field_is_not_taken_for_interference(name: str, noise: float) -> None:
    for seed in range(3):
        kspace = scan(OBJECTS[name], noise, seed)
        assert not spikes(np.ascontiguousarray(kspace.swapaxes(0, 1)), CENTRAL).any()
        for mask in (None, np.arange(SIZE) % 2 == 0, np.arange(SIZE) > 30):
            assert words(kspace, mask) == ""


@pytest.mark.parametrize("place", [7.0, 20.3, 60.5, 95.0])
def test_a_radio_wave_is_said_where_it_is(place: float) -> None:
    found = words(wave(scan(HEAD_2D, 0.003), place, 0.2))
    aside = (round(place) - SIZE // 2) * FIELD / SIZE
    assert any(f"{aside + step * FIELD / SIZE:.0f} mm" in found for step in (-1, 0, 1))


@pytest.mark.parametrize(
    ("mask", "told"),
    [(np.arange(SIZE) % 2 == 0, True), (np.arange(SIZE) > 30, True), (np.abs(np.arange(SIZE) - 48) < 30, False)],
)
def test_where_lines_are_left_out_too_as_long_as_the_outer_ones_are_there(mask: np.ndarray, told: bool) -> None:
    assert ("zipper" in words(wave(scan(HEAD_2D, 0.003), 20.0, 0.2), mask)) == told


def test_what_is_cut_away_with_the_oversampled_part_is_not_said() -> None:
    acquired = np.ones((1, SIZE), bool)
    encoding = header()
    object.__setattr__(encoding, "recon_fov_mm", (5.0, FIELD, FIELD / 2))
    kspace = wave(scan(HEAD_2D, 0.003), 5.0, 0.2)[:, None]
    assert zipper_words(kspace, acquired, encoding) == ""


def test_what_one_coil_alone_sees_of_thin_plates_is_no_spark() -> None:
    plates = (
        Ellipsoid((0.0, 0.0), (71.6, 55.7), 1.0, 44.6), Ellipsoid((-14.0, 46.8), (1.6, 71.2), 0.62, 86.7),
        Ellipsoid((-54.5, 29.6), (0.8, 53.5), -0.16), Ellipsoid((-1.2, -52.3), (1.5, 97.7), 2.57, 118.9),
        Ellipsoid((5.2, -20.3), (1.7, 69.6), -0.56),
    )  # fmt: skip
    kspace = cartesian_kspace((SIZE, SIZE), (FIELD, FIELD), plates, ())
    alone = np.broadcast_to(kspace, (SIZE, SIZE))[:, None].astype(np.complex64)
    assert not spikes(alone, CENTRAL).any()
    alone[60, 0, 80] += np.abs(alone).max()
    assert spikes(alone, CENTRAL).sum() == 3


def test_sparks_are_found_to_the_sample_and_what_is_broken_is_left_to_others() -> None:
    lines = np.ascontiguousarray(scan(HEAD_2D, 0.003).swapaxes(0, 1))
    lines[5, :, 11] += 3
    lines[50, 1, 95] += 3
    lines[20, 0, 9] = np.nan
    lines[21, 0, 9] = np.inf
    found = spikes(lines, CENTRAL)
    assert {tuple(place) for place in np.argwhere(found)} == {(5, 10), (5, 11), (5, 12), (50, 94), (50, 95)}


def test_a_column_of_them_is_a_centre_in_another_place() -> None:
    lines = np.ascontiguousarray(scan(HEAD_2D, 0.003).swapaxes(0, 1))
    lines[4:30, :, 50] += 3
    assert not spikes(lines, CENTRAL).any()


def test_both_are_said_of_a_scan_and_the_picture_is_without_sparks() -> None:
    clean = scan(HEAD_2D, 0.003)
    sparked = clean.copy()
    sparked[:, 40, 70] += 30
    pictures, said = [], []
    for kspace in (clean, sparked, wave(clean, 20.0, 0.2)):
        made = collector(header())
        rows = np.arange(SIZE, dtype=np.int32)
        made.add(Acquisition("scan", np.ascontiguousarray(kspace.swapaxes(0, 1)), rows, np.zeros_like(rows)))
        result = reconstruct(made.kspace(), threads=1)
        pictures.append(result.image.array)
        said.append(" ".join(result.warnings))
        assert made.left_out == ()
    assert said[0] == ""
    assert "3 samples were sparks" in said[1]
    assert "zipper" in said[2]
    assert np.linalg.norm(pictures[1] - pictures[0]) < 0.01 * np.linalg.norm(pictures[0])
