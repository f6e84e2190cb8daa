"""Fourier convention, sampling patterns, coil maps and wavelets against what they must be."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Encoding
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators import sensitivity
from IntraopMRIReconstructionLib.operators.fourier import (
    centre_phase,
    fft_order,
    image_from_kspace,
    kspace_from_image,
    resized,
)
from IntraopMRIReconstructionLib.operators.parallel import in_order, one_blas_thread, shares, spread
from IntraopMRIReconstructionLib.operators.sampling import begun_offset, describe, planned_mask
from IntraopMRIReconstructionLib.operators.wavelet import Wavelet

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize("size", [6, 7])
def test_image_is_the_centred_sum_of_the_docstring(size: Any) -> None:
    kspace = noise(size)
    k = np.arange(size) - size // 2
    expected = np.exp(2j * np.pi * np.outer(k, k) / size) @ kspace / np.sqrt(size)
    image = image_from_kspace(kspace, (0,))
    assert image.dtype == np.complex64
    np.testing.assert_allclose(image, expected, atol=1e-5)
    np.testing.assert_allclose(kspace_from_image(image, (0,)), kspace, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8), (5, 8), (7, 9)])
def test_fft_order_pays_the_shifts_in_the_maps(shape: Any) -> None:
    kspace, maps = noise(*shape), noise(*shape)
    bare = fft_order(maps) * np.fft.ifft2(kspace, norm="ortho")
    expected = maps * image_from_kspace(kspace, (0, 1))
    np.testing.assert_allclose(np.fft.fftshift(bare), expected, atol=1e-5)
    assert centre_phase(shape).shape == shape


@pytest.mark.parametrize(("size", "wanted"), [(8, 5), (7, 4), (5, 8), (4, 7), (6, 6)])
def test_resized_keeps_the_centre_in_the_centre(size: Any, wanted: Any) -> None:
    array = np.zeros((3, size))
    array[:, size // 2] = 1
    result = resized(array, (wanted,))
    assert result.shape == (3, wanted)
    assert (result[:, wanted // 2] == 1).all()
    assert result.sum() == 3


def mask_of(size: int, step: int = 1, calibration: int = 0, first: int = 0) -> np.ndarray:
    mask = np.arange(size) % step == 0
    mask[size // 2 - calibration // 2 : size // 2 + calibration // 2] = True
    mask[:first] = False
    return mask


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("calibration", [0, 24])
def test_regular_patterns_are_recognised(step: Any, calibration: Any) -> None:
    found = describe(mask_of(128, step, calibration)[None], False)
    assert found.kind == ("full" if step == 1 else "regular")
    assert found.acceleration == (1, step)
    assert found.partial == (1.0, 1.0)
    assert len(found.missing) == 0
    if step > 1 and calibration:
        assert found.calibration_lines[1] >= calibration


def test_two_axes_with_calibration_block() -> None:
    mask = np.outer(mask_of(64, 2), mask_of(96, 3))
    mask[20:44, 36:60] = True
    found = describe(mask, True)
    assert (found.kind, found.acceleration) == ("regular", (2, 3))
    assert min(found.calibration_lines) >= 24


def test_elliptical_shutter_is_full() -> None:
    z, y = np.mgrid[-1:1:64j, -1:1:80j]
    found = describe(np.hypot(z, y) <= 1, True)
    assert found.kind == "full"


def test_partial_fourier_is_recognised() -> None:
    found = describe(mask_of(128, first=44)[None], False)
    assert found.kind == "full"
    assert found.partial == pytest.approx((1.0, 1 - 44 / 128))
    assert found.extent[1] == (44, 128)


def test_lower_resolution_is_not_partial_fourier() -> None:
    mask = mask_of(128, first=20)
    mask[-20:] = False
    assert describe(mask[None], False).partial == (1.0, 1.0)


def test_holes_are_named() -> None:
    mask = mask_of(128, 2, 24)
    mask[[10, 30]] = False
    found = describe(mask[None], False)
    assert found.kind == "holes"
    assert found.missing.tolist() == [[0, 10], [0, 30]]


def test_random_lines_are_random() -> None:
    mask = np.random.default_rng(1).random(128) < 0.4
    mask[52:76] = True
    assert describe(mask[None], False).kind == "random"


def test_nothing_acquired() -> None:
    assert describe(np.zeros((4, 8)), True).kind == "random"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, 96 * 10),
        ({"acceleration": (1, 2)}, 48 * 10),
        ({"acceleration": (1, 2), "calibration_lines": (0, 24)}, (48 + 12) * 10),
        ({"centre": (5, 32, 32)}, 80 * 10),
        ({"is_3d": True, "acceleration": (2, 2), "calibration_lines": (4, 24)}, 5 * 48 + 4 * 24 - 2 * 12),
    ],
)
def test_planned_mask(changes: Any, lines: Any) -> None:
    encoding = Encoding(
        **{
            "scan_id": "s",
            "trajectory": "cartesian",
            "encoded_matrix": (10, 96, 64),
            "recon_matrix": (10, 96, 64),
            "encoded_fov_mm": (1, 1, 1),
            "recon_fov_mm": (1, 1, 1),
            "coils": 4,
            "ras_from_ijk": np.eye(4),
            "is_3d": False,
        }
        | changes
    )
    assert planned_mask(encoding).sum() == lines


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_offset_of_a_lattice_shows_beside_the_calibration_lines(offset: tuple[int, int]) -> None:
    encoding = Encoding(
        "s", "cartesian", (20, 96, 64), (20, 96, 64), (1, 1, 1), (1, 1, 1), 4, np.eye(4), acceleration=(2, 2),
        calibration_lines=(6, 24),
    )  # fmt: skip
    mask = planned_mask(encoding, offset)
    assert begun_offset(encoding, mask) == offset
    centre = np.zeros_like(mask)
    centre[7:13, 36:60] = True
    assert mask[centre].all()
    assert begun_offset(encoding, mask & centre) is None, "calibration lines tell nothing of the lattice"


def truth_maps(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(maps with unit root sum of squares, object with a disc of signal)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    angles = np.arange(6) * np.pi / 3
    maps = np.stack([np.exp(-((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) + 1j * (a + x * np.sin(a))) for a in angles])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    disc = (np.hypot(x, y) < 0.8) * (1 + 0.3 * np.cos(9 * x) * np.sin(8 * y))
    return maps.astype(np.complex64), disc


@pytest.mark.parametrize(
    ("method", "limit"), [("low_resolution", 0.06), ("espirit", 0.01), ("walsh", 0.035), ("inati", 0.02)]
)
@pytest.mark.parametrize("shape", [(96, 96), (90, 71)])
def test_maps_are_the_truth_up_to_a_phase(method: Any, limit: Any, shape: Any) -> None:
    maps, disc = truth_maps(shape)
    images = (maps * disc).astype(np.complex64)
    images += noise(6, *shape) * np.float32(0.003)
    if method in ("walsh", "inati"):
        found = getattr(sensitivity, method)(images)
    else:
        found = getattr(sensitivity, method)(resized(kspace_from_image(images, (1, 2)), (24, 24)), shape)
    assert found.dtype == np.complex64
    assert found.shape == maps.shape
    inside = disc > 0.1
    np.testing.assert_allclose(np.sqrt((np.abs(found) ** 2).sum(axis=0))[inside], 1, atol=1e-4)
    aligned = np.abs((found.conj() * maps).sum(axis=0))[inside]
    assert np.sqrt(np.mean(np.maximum(0, 1 - aligned**2))) < limit


def test_espirit_support_is_the_object() -> None:
    maps, disc = truth_maps((96, 96))
    images = (maps * disc).astype(np.complex64) + noise(6, 96, 96) * np.float32(0.003)
    found = sensitivity.espirit(resized(kspace_from_image(images, (1, 2)), (24, 24)), (96, 96), support=0.9)
    empty = np.abs(found).max(axis=0) == 0
    assert empty[:4, :4].all()
    assert not empty[disc > 0.3].any()


def test_espirit_with_too_few_lines_is_refused() -> None:
    with pytest.raises(ReconstructionError, match="11 x 11"):
        sensitivity.espirit(noise(4, 8, 24), (64, 64))


def test_combination_of_whitened_coils_returns_the_object() -> None:
    maps, disc = truth_maps((64, 64))
    np.testing.assert_allclose(sensitivity.combined((maps * disc).astype(np.complex64), maps), disc, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (61, 53), (8, 200)])
def test_wavelet_keeps_norm_and_inverts(shape: Any) -> None:
    wavelet, plane = Wavelet(shape), noise(*shape)
    coefficients = wavelet.forward(plane)
    assert np.linalg.norm(coefficients) == pytest.approx(np.linalg.norm(plane), rel=1e-5)
    np.testing.assert_allclose(wavelet.inverse(coefficients), plane, atol=1e-5)


def test_wavelet_details_of_a_polynomial_vanish() -> None:
    """Four vanishing moments: a cubic has no details away from where the period closes."""
    x = np.linspace(-1, 1, 64)
    plane = np.broadcast_to(x**3 - x, (64, 64)).astype(np.complex64)
    coefficients = Wavelet((64, 64), levels=1).forward(plane)
    assert np.abs(coefficients[:32, 32:60]).max() < 1e-5


def test_shrinking_by_nothing_changes_nothing() -> None:
    plane = noise(64, 64)
    np.testing.assert_allclose(Wavelet((64, 64)).shrunk(plane, 0.0), plane, atol=1e-5)


def test_a_mask_of_the_same_content_is_described_once_and_never_changed() -> None:
    mask = np.ones((3, 32), np.uint8)
    mask[1] = 0
    found = describe(mask, False)
    assert describe(mask.copy(), False) is found
    assert found.empty == (1,)
    assert describe(mask, True).empty == ()
    mask[1] = 1
    assert describe(mask, False).empty == ()
    with pytest.raises(ValueError, match="read-only"):
        describe(np.eye(8), True).missing[:] = 0


def test_shares_cover_everything_once() -> None:
    for count in (1, 2, 7, 16):
        for threads in (1, 2, 5):
            assert [n for part in shares(count, threads) for n in part] == list(range(count))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_spread_does_every_item_once_and_takes_part(threads: int) -> None:
    done: list[int] = []
    spread(done.append, range(50), threads)
    assert sorted(done) == list(range(50))


def test_spread_does_not_wait_for_threads_that_are_busy_elsewhere() -> None:
    gate, begun = threading.Event(), threading.Barrier(3)

    def wait(_item: int) -> None:
        begun.wait(10)
        gate.wait(10)

    busy = threading.Thread(target=spread, args=(wait, range(2), 2))
    busy.start()
    try:
        begun.wait(10)
        done: list[int] = []
        # Within itself, too.
        spread(lambda item: spread(done.append, [item, item], 2), range(4), 2)
        assert sorted(done) == [0, 0, 1, 1, 2, 2, 3, 3]
    finally:
        gate.set()
        busy.join(10)


@pytest.mark.parametrize("broken", [(3,), (0, 1), (1, 2)])
def test_spread_raises_what_an_item_raised_when_all_have_left_theirs(broken: tuple[int, ...]) -> None:
    together, left = threading.Barrier(3), []

    def work(item: int) -> None:
        if item < 3:
            together.wait(10)
        try:
            if item in broken:
                raise ReconstructionError(f"broken {item}")
        finally:
            left.append(item)

    with pytest.raises(ReconstructionError, match="broken"):
        spread(work, range(8), 3)
    now = len(left)
    spread(lambda _: None, range(8), 3)
    assert len(left) == now, "nobody is still at it"
    assert {0, 1, 2} <= set(left)


def test_threads_keep_the_order_and_leave_early() -> None:
    started: list[int] = []
    gate = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item:
            gate.wait(10)
        return item

    results = in_order(work, range(100), 2)
    assert next(results) == 0
    results.close()
    gate.set()
    deadline = time.monotonic() + 5
    while len(started) > 10 and time.monotonic() < deadline:
        pass
    assert len(started) < 10


def test_one_blas_thread_may_be_nested() -> None:
    with one_blas_thread(), one_blas_thread():
        assert (np.eye(3) @ np.eye(3)).trace() == 3
