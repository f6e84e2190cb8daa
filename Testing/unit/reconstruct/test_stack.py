"""Stacks of stars against the closed-form head in three dimensions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators.fourier import image_from_kspace
from IntraopMRIReconstructionLib.operators.trajectory import GOLDEN_ANGLE_RAD
from IntraopMRIReconstructionLib.reconstruct.auto import Options, reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.simulate.analytic import (
    HEAD_3D,
    cartesian_kspace,
    grid_points_mm,
    kspace_at,
    ring_of_coils,
    voxel_means,
)
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding

MATRIX, PARTITIONS, COILS, SPOKES, FIELD_MM = 24, 12, 4, 40, 240.0
SHAPE, FIELD = (PARTITIONS, MATRIX, MATRIX), (FIELD_MM, FIELD_MM, FIELD_MM)


def encoding(centre: tuple[int, int, int] | None = None) -> Encoding:
    return Encoding(
        scan_id="stack",
        trajectory="radial",
        encoded_matrix=(PARTITIONS, MATRIX, MATRIX),
        recon_matrix=SHAPE,
        encoded_fov_mm=FIELD,
        recon_fov_mm=FIELD,
        coils=COILS,
        ras_from_ijk=np.diag([FIELD_MM / MATRIX, FIELD_MM / MATRIX, FIELD_MM / PARTITIONS, 1.0]),
        is_3d=True,
        centre=centre,
        metadata={"shots": str(SPOKES), "radial_order": "golden"},
    )


@cache
def block(spokes: int = SPOKES) -> Acquisition:
    """Every spoke in every partition, one partition after another for each spoke."""
    readout = 2 * MATRIX
    angles = np.arange(spokes) * GOLDEN_ANGLE_RAD
    radius = (np.arange(readout) - readout // 2) / 2
    k = np.zeros((spokes, PARTITIONS, readout, 3))
    k[..., 0] = np.cos(angles)[:, None, None] * radius
    k[..., 1] = np.sin(angles)[:, None, None] * radius
    k[..., 2] = (np.arange(PARTITIONS) - PARTITIONS // 2)[:, None]
    signal = kspace_at(k / FIELD_MM, HEAD_3D, ring_of_coils(COILS, FIELD_MM, 3))
    signal *= np.sqrt(np.prod(SHAPE)) / np.prod(FIELD)
    ky, kz = np.meshgrid(np.arange(spokes), np.arange(PARTITIONS), indexing="ij")
    return Acquisition(
        "stack",
        np.moveaxis(signal.reshape(COILS, -1, readout), 0, 1).astype(np.complex64),
        ky.ravel().astype(np.int32),
        kz.ravel().astype(np.int32),
        trajectory=k.reshape(-1, readout, 3).astype(np.float32),
        last=True,
    )


def part(of: Acquisition, lines: np.ndarray) -> Acquisition:
    assert of.trajectory is not None
    return replace(of, samples=of.samples[lines], ky=of.ky[lines], kz=of.kz[lines], trajectory=of.trajectory[lines])


@cache
def truth() -> np.ndarray:
    sensitivities = np.stack([coil.at(grid_points_mm(SHAPE, FIELD)) for coil in ring_of_coils(COILS, FIELD_MM, 3)])
    return voxel_means(SHAPE, FIELD, HEAD_3D).real * np.sqrt((np.abs(sensitivities) ** 2).sum(axis=0))


def error(image: np.ndarray) -> float:
    """Against the head in its own brightness."""
    return float(np.linalg.norm(image - truth()) / np.linalg.norm(truth()))


@cache
def cartesian_error() -> float:
    images = image_from_kspace(cartesian_kspace(SHAPE, FIELD, HEAD_3D, ring_of_coils(COILS, FIELD_MM, 3)), (1, 2, 3))
    return error(np.sqrt((np.abs(images) ** 2).sum(axis=0)))


def made(*blocks: Acquisition, header: Encoding | None = None, method: str = "auto") -> tuple[np.ndarray, list[str]]:
    scan = collector(header or encoding())
    for one in blocks:
        scan.add(one)
    result = reconstruct(scan.kspace(), method, options=Options(delays=False))
    return np.asarray(result.image.array), list(result.warnings)


@pytest.mark.parametrize("carried", [True, False], ids=["trajectory", "golden order"])
def test_a_stack_shows_the_head(carried: bool) -> None:
    image, warnings = made(block() if carried else replace(block(), trajectory=None))
    assert not warnings
    # The corners of k-space are not sampled by spokes.
    assert error(image) < cartesian_error() + 0.06
    assert error(np.roll(image, 1, axis=0)) > 3 * error(image)
    # Upside down about the centre of the field of view: the head is nearly symmetric.
    assert error(np.roll(image[::-1], 1, axis=0)) > 1.2 * error(image)


def test_few_spokes_are_filled_by_the_coils() -> None:
    few = part(block(), np.flatnonzero(block().ky < 15))
    image, _ = made(few, method="iterative-sense")
    assert error(image) < 1.15 * error(made(block())[0])
    assert error(made(few, method="gridding")[0]) > 1.15 * error(image)


def test_the_order_of_arrival_and_averages_do_not_matter() -> None:
    expected = made(block())[0]
    order = np.random.default_rng(2).permutation(len(block().ky))
    shuffled = made(part(block(), order[:300]), part(block(), order[300:]))[0]
    assert np.abs(shuffled - expected).max() < 1e-4 * expected.max()
    twice = made(block(), block())[0]
    assert np.abs(twice - expected).max() < 1e-4 * expected.max()


def test_a_spoke_that_one_partition_lacks_is_left_out_and_named() -> None:
    kept = np.flatnonzero(~((block().ky == 7) & (block().kz == 3)))
    image, warnings = made(part(block(), kept))
    assert warnings == [
        "479 readouts came of 480 that the header announces",
        "1 of 40 readouts are left out because a partition lacks them",
    ]
    assert error(image) < cartesian_error() + 0.06


def test_noise_lines_whiten_a_stack() -> None:
    rng = np.random.default_rng(1)
    shape = (8, COILS, 2 * MATRIX)
    noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    quiet = replace(part(block(), np.arange(8)), samples=noise, flags=np.full(8, LineFlag.NOISE, np.uint32), last=False)
    scan = collector(encoding())
    scan.add(quiet)
    scan.add(block())
    assert scan.kspace().whitened  # type: ignore[union-attr]


def test_what_is_no_stack_is_refused() -> None:
    trajectory = block().trajectory
    assert trajectory is not None
    tilted = trajectory.copy()
    tilted[..., 2] += 0.1 * tilted[..., 0]
    with pytest.raises(ReconstructionError, match="leave their partition"):
        made(replace(block(), trajectory=tilted))
    broken = trajectory.copy()
    broken[3, 4, 2] = np.nan
    with pytest.raises(ReconstructionError, match="NaN"):
        made(replace(block(), trajectory=broken))
    turned = replace(block(), ky=block().ky + 1000 * block().kz, trajectory=None)
    with pytest.raises(ReconstructionError, match="turned from one partition to the next"):
        made(turned)
    half = part(block(), np.flatnonzero(block().kz >= 3))
    with pytest.raises(ReconstructionError, match="partitions left out"):
        made(half)


def test_the_same_from_a_file_and_over_the_link(tmp_path: Path) -> None:
    direct = made(block())[0]
    write_mrd(tmp_path / "stack.h5", encoding(), (block(),))
    read = read_mrd(tmp_path / "stack.h5")
    assert read.encoding.is_3d
    filed = made(*read.acquisitions, header=read.encoding)[0]
    assert np.abs(filed - direct).max() < 1e-4 * direct.max()
    reader = RawDataReader()
    header = reader.feed(messages_from_encoding(encoding())[0])
    item = reader.feed(message_from_acquisition(block()))
    assert isinstance(header, Encoding)
    assert isinstance(item, Acquisition)
    assert np.abs(made(item, header=header)[0] - direct).max() < 1e-4 * direct.max()
