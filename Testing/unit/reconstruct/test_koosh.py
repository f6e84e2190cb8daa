"""Spokes in all directions of space against the closed-form head, from the link and from MRD."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import IntraopError, ReconstructionError
from IntraopMRIReconstructionLib.operators import nufft
from IntraopMRIReconstructionLib.operators.nufft import Nufft
from IntraopMRIReconstructionLib.operators.trajectory import sphere_density
from IntraopMRIReconstructionLib.reconstruct.auto import Options, phased, reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.reconstruct.unmixing import Calibrations
from IntraopMRIReconstructionLib.simulate.analytic import (
    HEAD_3D,
    cartesian_kspace,
    kspace_at,
    ring_of_coils,
)
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding

MATRIX, COILS, FIELD_MM = 24, 3, 240.0
SHAPE, FIELD = (MATRIX,) * 3, (FIELD_MM,) * 3
#: Full spokes at the Nyquist distance at the rim.
ENOUGH = int(np.pi / 2 * MATRIX**2)
PARTS = HEAD_3D[:4]


def directions(spokes: int, order: str = "golden means") -> np.ndarray:
    """Unit vectors (spokes, 3): golden means in two dimensions (Chan et al.), or at random."""
    if order == "random":
        vectors = np.random.default_rng(1).standard_normal((spokes, 3))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(spokes)
    height, turn = (numbers * 0.46557123) % 1, 2 * np.pi * ((numbers * 0.6823278) % 1)
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=-1)


def places(spokes: int, centre_out: bool = False, order: str = "golden means") -> np.ndarray:
    """k (spokes, readout, 3)."""
    readout = MATRIX if centre_out else 2 * MATRIX
    radius = np.arange(readout) / 2 if centre_out else (np.arange(readout) - readout // 2) / 2
    vectors = directions(spokes, order)
    if centre_out:
        vectors[1::2] *= -1
    return vectors[:, None, :] * radius[:, None]


def encoding(ras_from_ijk: np.ndarray | None = None) -> Encoding:
    return Encoding(
        scan_id="koosh",
        trajectory="radial",
        encoded_matrix=SHAPE,
        recon_matrix=SHAPE,
        encoded_fov_mm=FIELD,
        recon_fov_mm=FIELD,
        coils=COILS,
        ras_from_ijk=np.diag([10.0, 10.0, 10.0, 1.0]) if ras_from_ijk is None else ras_from_ijk,
        metadata={"shots": str(ENOUGH)},
    )


@cache
def block(spokes: int = ENOUGH, centre_out: bool = False, order: str = "golden means") -> Acquisition:
    k = places(spokes, centre_out, order)
    signal = kspace_at(k / FIELD_MM, PARTS, ring_of_coils(COILS, FIELD_MM, 3))
    signal *= np.sqrt(np.prod(SHAPE)) / np.prod(FIELD)
    numbers = np.arange(spokes, dtype=np.int32)
    samples = np.moveaxis(signal, 0, 1).astype(np.complex64)
    return Acquisition("koosh", samples, numbers, 0 * numbers, trajectory=k.astype(np.float32), last=True)


@cache
def truth() -> np.ndarray:
    """The head through the ball of k-space that spokes reach, by numpy's transform of its closed form there."""
    axis, axes = np.arange(MATRIX) - MATRIX // 2, (1, 2, 3)
    ball = sum(np.square(a) for a in np.meshgrid(axis, axis, axis)) <= (MATRIX / 2) ** 2
    seen = cartesian_kspace(SHAPE, FIELD, PARTS, ring_of_coils(COILS, FIELD_MM, 3)) * ball
    images = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(seen, axes), axes=axes, norm="ortho"), axes)
    return np.asarray(np.sqrt((np.abs(images) ** 2).sum(axis=0)))


def error(image: np.ndarray) -> float:
    """Against the head in its own brightness."""
    return float(np.linalg.norm(image - truth()) / np.linalg.norm(truth()))


def made(*blocks: Acquisition, header: Encoding | None = None, method: str = "auto") -> Reconstruction:
    scan = collector(header or encoding())
    for one in blocks:
        scan.add(one)
    assert scan.fraction_acquired <= 1.0
    return reconstruct(scan.kspace(), method)


def cut(of: Acquisition, first: int, last: int | None) -> Acquisition:
    rows = slice(first, last)
    assert of.trajectory is not None
    return replace(of, samples=of.samples[rows], ky=of.ky[rows], kz=of.kz[rows], trajectory=of.trajectory[rows])


@pytest.mark.parametrize("centre_out", [False, True], ids=["through the centre", "centre out"])
@pytest.mark.parametrize("order", ["golden means", "random"])
def test_a_kooshball_shows_the_head(centre_out: bool, order: str) -> None:
    spokes = ENOUGH * (2 if centre_out else 1)
    result = made(block(spokes, centre_out, order))
    assert result.method == "gridding"
    assert f"{spokes} spokes in all directions" in result.reason
    image = result.image.array
    # Spokes at random leave wide gaps here and there.
    assert error(image) < (0.08 if order == "golden means" else 0.16)
    for axis in range(3):
        assert error(np.roll(image, 1, axis=axis)) > 2 * error(image)
        # Turned round about the centre of the field of view: the head is nearly symmetric.
        assert error(np.roll(np.flip(image, axis), 1, axis=axis)) > 1.15 * error(image)


def test_both_transforms_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("finufft")
    one, two = (
        Nufft(places(200).astype(np.float32), SHAPE, 2, backend=name).adjoint(
            np.random.default_rng(0).standard_normal((2, 200 * 2 * MATRIX, 2), np.float32).view(np.complex64)[..., 0]
        )
        for name in ("finufft", "sparse")
    )
    assert np.linalg.norm(one - two) < 6e-3 * np.linalg.norm(one)
    monkeypatch.setattr(nufft, "MAX_SPARSE_BYTES", 1000)
    with pytest.raises(ReconstructionError, match="install finufft"):
        Nufft(places(200).astype(np.float32), SHAPE, 2, backend="sparse")


def test_densities_fill_the_sphere() -> None:
    # The outermost sample reaches a quarter of a cycle outwards: at 11.5 on one end, at -12 on the other.
    for centre_out, reaches in ((False, (11.75, 12.25)), (True, (11.75, 11.75))):
        total = float(sphere_density(places(400, centre_out).astype(np.float32)).sum())
        assert total == pytest.approx(2 / 3 * np.pi * sum(reach**3 for reach in reaches), rel=1e-3)
    # Spokes that came twice share their part.
    twice = np.concatenate([places(200)] * 2).astype(np.float32)
    once = sphere_density(places(200).astype(np.float32))
    np.testing.assert_allclose(sphere_density(twice)[:200], once / 2, rtol=1e-5)


def test_few_spokes_say_so() -> None:
    result = made(block(150))
    assert any("150 spokes in all directions leave gaps of" in text for text in result.warnings)
    assert error(result.image.array) > error(made(block()).image.array)


def test_from_a_file_and_over_the_link_in_every_orientation(tmp_path: Path, directions: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = 10.0 * directions
    matrix[:3, 3] = (3.0, -7.0, 11.0)
    header = encoding(matrix)
    expected = made(block(300), header=header)
    write_mrd(tmp_path / "koosh.h5", header, [block(300)])
    scan = read_mrd(tmp_path / "koosh.h5")
    np.testing.assert_allclose(scan.encoding.ras_from_ijk, matrix, atol=1e-3)
    from_file = made(*scan.acquisitions, header=scan.encoding)
    np.testing.assert_allclose(from_file.image.array, expected.image.array, atol=1e-3 * expected.image.array.max())
    reader = RawDataReader()
    (opening,) = messages_from_encoding(header)
    header_again = reader.feed(opening)
    assert isinstance(header_again, Encoding)
    lines = reader.feed(message_from_acquisition(block(300)))
    assert isinstance(lines, Acquisition)
    live = made(lines, header=header_again)
    np.testing.assert_allclose(live.image.array, expected.image.array, atol=1e-5)


def test_blocks_as_they_come_and_percent() -> None:
    scan = collector(encoding())
    scan.add(cut(block(), 0, 100))
    assert scan.fraction_acquired == pytest.approx(100 / ENOUGH, abs=1e-3)
    assert not scan.is_whole(0, 0)
    scan.add(cut(block(), 100, None))
    assert scan.is_whole(0, 0)
    np.testing.assert_allclose(reconstruct(scan.kspace()).image.array, made(block()).image.array, rtol=1e-5)


def test_broken_spokes_and_coils_are_named() -> None:
    samples = block(400).samples.copy()
    samples[5] = np.nan
    samples[100:, 1] = 0
    result = made(replace(block(400), samples=samples))
    assert any("1 readouts left out" in text for text in result.warnings)
    assert any("coils dropped because they failed during the scan: 1" in text for text in result.warnings)
    assert np.isfinite(result.image.array).all()


def bent(k: np.ndarray) -> np.ndarray:
    k = k.copy()
    k[..., 0] += np.sin(np.arange(k.shape[1]) / 5)
    return k


def test_what_is_neither_a_stack_nor_a_kooshball_is_refused_by_name() -> None:
    good = block(100)
    assert good.trajectory is not None
    for wrong in (bent(good.trajectory), good.trajectory + np.float32(3.3)):
        with pytest.raises(ReconstructionError, match="straight spokes through the centre"):
            made(replace(good, trajectory=wrong.astype(np.float32)))
    with pytest.raises(ReconstructionError, match="spiral scan 'koosh'"):
        made(good, header=replace(encoding(), trajectory="spiral"))
    with pytest.raises(ReconstructionError, match="NaN"):
        made(replace(good, trajectory=np.where(np.arange(3) == 1, np.nan, good.trajectory).astype(np.float32)))
    with pytest.raises(ReconstructionError, match="carry no trajectory"):
        made(replace(good, trajectory=None))


def test_a_stack_does_not_go_on_as_a_kooshball() -> None:
    flat = places(20)
    flat[..., 2] = 0
    stack = replace(cut(block(20), 0, 20), trajectory=flat.astype(np.float32), kz=np.full(20, MATRIX // 2, np.int32))
    lifted = replace(stack, trajectory=flat.astype(np.float32) + np.float32(2))
    for first, second in ((stack, block(100)), (block(100), lifted)):
        with pytest.raises(ReconstructionError, match="leave their partition"):
            made(first, second)


def test_what_needs_phase_or_another_method_is_refused_by_name() -> None:
    scan = collector(encoding())
    scan.add(block(100))
    with pytest.raises(ReconstructionError, match="gridding alone, not method 'iterative-sense'"):
        reconstruct(scan.kspace(), "iterative-sense")
    with pytest.raises(ReconstructionError, match="gridding alone, not images with their phase"):
        phased(scan.kspace(), Calibrations())
    with pytest.raises(ReconstructionError, match="SNR units"):
        reconstruct(scan.kspace(), options=Options(snr_units=True))
    with pytest.raises(ReconstructionError, match="6 directions or more, got 4"):
        made(cut(block(), 0, 2))


def test_noise_whitens_and_navigators_are_left_out() -> None:
    rng = np.random.default_rng(3)
    mix = np.array([[1, 0, 0], [0.5, 1, 0], [0, 0.3, 2.0]])
    noise = (rng.standard_normal((40, COILS, 48, 2)).view(np.complex128)[..., 0] @ np.eye(48)).astype(np.complex64)
    lines = np.zeros(40, np.int32)
    flags = np.full(40, int(LineFlag.NOISE), np.uint32)
    head = Acquisition("koosh", np.einsum("cd,ldx->lcx", mix, noise).astype(np.complex64), lines, lines, flags)
    result = made(head, block(400))
    plain = made(block(400))
    assert result.image.array.shape == SHAPE
    assert not np.allclose(result.image.array, plain.image.array)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_spokes_give_a_picture_or_an_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good = block(200)
    assert good.trajectory is not None
    samples, k, kz = good.samples.copy(), good.trajectory.copy(), good.kz.copy()
    rows = rng.integers(0, 200, 4)
    kind = rng.integers(0, 5)
    if kind == 0:
        samples[rows] = rng.choice([np.nan, np.inf, 0.0])
    elif kind == 1:
        k[rows] = k[0]
    elif kind == 2:
        k[rows] *= rng.choice([0.0, 1e-6, 1.5, 1e6])
    elif kind == 3:
        kz[rows] = rng.choice([-1, MATRIX, MATRIX // 2])
    else:
        samples, k = samples[:, :, :1], k[:, :1]
    try:
        result = made(replace(good, samples=samples, trajectory=k, kz=kz))
    except IntraopError:
        return
    assert np.isfinite(result.image.array).all()
