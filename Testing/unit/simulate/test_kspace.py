"""Raw data: its inverse transform, written here once more, is the image seen by the coils."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image, LineFlag
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.simulate.coils import coil_maps
from IntraopMRIReconstructionLib.simulate.kspace import R2, Sampling, Scan, simulate_scan

SHAPE = (20, 32, 28)


def image_at(directions: np.ndarray) -> Image:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([6.0, 7.0, 8.0])
    matrix[:3, 3] = (-80.0, -95.0, -60.0)
    array = np.zeros(SHAPE, np.float32)
    array[4:16, 6:26, 5:22] = 500
    array[8:12, 10:14, 8:11] = 1000
    return Image(array, matrix, name="box", patient_id="P1")


@pytest.fixture
def image() -> Image:
    return image_at(np.eye(3))


def coil_images(scan: Scan) -> np.ndarray:
    """(coils, k, j, i): centred, orthonormal inverse transform by the defining sum, axis by axis."""
    data = scan.kspace.transpose(2, 0, 1, 3).astype(np.complex128)
    for axis, n in enumerate(data.shape[1:], start=1):
        at = np.arange(n) - n // 2
        basis = np.exp(2j * np.pi * np.outer(at, at) / n) / np.sqrt(n)
        data = np.moveaxis(np.tensordot(data, basis, axes=(axis, 1)), -1, axis)
    return data


def test_inverse_transform_is_the_image_seen_by_the_coils(directions: np.ndarray) -> None:
    image = image_at(directions)
    maps = coil_maps(image.ras_from_ijk, SHAPE, 6)
    scan = simulate_scan(image, "s", coils=6, noise=0.0, maps=maps)
    assert np.abs(coil_images(scan)) == pytest.approx(np.abs(maps) * image.array, abs=0.02)
    encoding = scan.encoding
    assert encoding.ras_from_ijk == pytest.approx(image.ras_from_ijk)
    assert encoding.recon_matrix == SHAPE
    assert encoding.recon_fov_mm == pytest.approx((160.0, 224.0, 168.0))
    assert encoding.patient_id == "P1"


def test_the_object_has_a_phase_of_its_own(image: Image) -> None:
    maps = np.ones((1, *SHAPE), np.complex64)
    single = coil_images(simulate_scan(image, "s", noise=0.0, maps=maps))[0]
    assert np.ptp(np.angle(single[image.array > 0])) > 0.5


def test_noise_has_the_wanted_size(image: Image) -> None:
    scan = simulate_scan(image, "s", coils=4, noise=0.05)
    quiet = simulate_scan(image, "s", coils=4, noise=0.0)
    noise = coil_images(scan) - coil_images(quiet)
    wanted = 0.05 * np.percentile(image.array, 98)
    assert noise.real.std() == pytest.approx(wanted, rel=0.02)
    assert noise.imag.std() == pytest.approx(wanted, rel=0.02)


def test_full_scan_has_every_line_once_from_the_centre_outward(image: Image) -> None:
    blocks = list(simulate_scan(image, "s", coils=2).blocks())
    assert len(blocks) == SHAPE[0]
    assert blocks[0].kz[0] == SHAPE[0] // 2
    lines = {(int(z), int(y)) for block in blocks for z, y in zip(block.kz, block.ky, strict=True)}
    assert len(lines) == SHAPE[0] * SHAPE[1]
    assert [block.last for block in blocks] == [False] * (SHAPE[0] - 1) + [True]
    assert blocks[-1].flags is not None
    assert blocks[-1].flags[-1] & LineFlag.LAST_IN_SCAN


def test_blocks_carry_the_lines_they_name(image: Image) -> None:
    scan = simulate_scan(image, "s", coils=2, sampling=Sampling((2, 2), 8))
    for block in scan.blocks():
        for line in range(0, len(block.ky), 5):
            assert np.array_equal(block.samples[line], scan.kspace[block.kz[line], block.ky[line]])


def test_acceleration_keeps_the_centre(image: Image) -> None:
    scan = simulate_scan(image, "s", coils=2, sampling=Sampling((1, 2), 8))
    block = next(scan.blocks())
    outside = [y for y in range(0, 32, 2) if not 12 <= y < 20]
    assert sorted(block.ky) == sorted([*outside, *range(12, 20)])
    flags = dict(zip(block.ky.tolist(), block.flags.tolist() if block.flags is not None else [], strict=True))
    assert flags[13] == LineFlag.CALIBRATION
    assert flags[14] == LineFlag.CALIBRATION_AND_IMAGE
    assert flags[2] == LineFlag.NONE
    assert scan.encoding.calibration_lines == (0, 8)
    assert scan.encoding.acceleration == (1, 2)


def test_scans_differ_in_noise_and_repeat_exactly(image: Image) -> None:
    first, again, other = (simulate_scan(image, name, coils=2, sampling=R2) for name in ("a", "a", "b"))
    assert np.array_equal(first.kspace, again.kspace)
    assert not np.array_equal(first.kspace, other.kspace)


def test_coil_maps_are_smooth_different_and_normalised() -> None:
    matrix = np.diag([3.0, 3.0, 3.0, 1.0])
    maps = coil_maps(matrix, (40, 60, 50), 8)
    rss = np.linalg.norm(maps, axis=0)
    assert rss[20, 30, 25] == pytest.approx(1.0, abs=0.1)
    steps = [np.abs(np.diff(maps, axis=axis)).max() for axis in (1, 2, 3)]
    assert max(steps) < 0.2 * np.abs(maps).max()
    peaks = {np.unravel_index(np.abs(m).argmax(), m.shape) for m in maps}
    assert len(peaks) == 8
    gram = np.einsum("akji,bkji->ab", maps.conj(), maps)
    assert np.linalg.cond(gram) < 1e4


def test_bad_requests_are_refused(image: Image) -> None:
    with pytest.raises(DataError, match="coils must be 1 to 64, got 0"):
        simulate_scan(image, "s", coils=0)
    with pytest.raises(DataError, match="acceleration must be 1 to the matrix"):
        simulate_scan(image, "s", sampling=Sampling((1, 99)))
    with pytest.raises(DataError, match="scalar image"):
        simulate_scan(image.with_array(np.zeros((*SHAPE, 2), np.float32)), "s")
