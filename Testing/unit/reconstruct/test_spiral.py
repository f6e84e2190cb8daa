"""Spirals with a given trajectory: over the link, from a file, with and without finufft, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.operators import nufft, trajectory
from IntraopMRIReconstructionLib.operators.remembered import REMEMBERED, remembered
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.reconstruct.shots import Shots
from IntraopMRIReconstructionLib.simulate.raw_scans import in_small_blocks, spiral_scan
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding

MATRIX, COILS, SHOTS = 64, 4, 16


def made(encoding: Encoding, blocks: Iterable[Acquisition], method: str = "auto") -> Reconstruction:
    scan = collector(encoding)
    for block in blocks:
        scan.add(block)
    return reconstruct(scan.kspace(), method)


@pytest.mark.parametrize(("taken", "method"), [(None, "gridding"), (SHOTS // 2, "iterative-sense")])
def test_without_finufft_the_picture_is_the_same(
    taken: int | None, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("finufft")
    scan = spiral_scan(MATRIX, COILS, SHOTS, taken)
    result = made(scan.encoding, scan.blocks)
    monkeypatch.setattr(nufft.importlib.util, "find_spec", lambda _name: None)
    sparse = made(scan.encoding, scan.blocks)
    assert result.method == sparse.method == method
    difference = np.linalg.norm(result.image.array - sparse.image.array)
    assert 0 < difference < 0.01 * np.linalg.norm(result.image.array)


def test_a_given_trajectory_over_the_link_and_from_a_file(tmp_path: Path, directions: np.ndarray) -> None:
    """Oblique as well: where the picture lies, and that nothing of the trajectory is lost on the way."""
    scan = spiral_scan(MATRIX, COILS, SHOTS)
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([3.75, 3.75, 5.0])
    header = replace(scan.encoding, ras_from_ijk=matrix)
    expected = made(header, scan.blocks)
    write_mrd(tmp_path / "spiral.h5", header, scan.blocks)
    read = read_mrd(tmp_path / "spiral.h5")
    reader = RawDataReader()
    opened = reader.feed(messages_from_encoding(header)[0])
    assert isinstance(opened, Encoding)
    sent = []
    for block in in_small_blocks(scan, 5):
        lines = reader.feed(message_from_acquisition(block))
        assert isinstance(lines, Acquisition)
        sent.append(lines)
    for found in (made(read.encoding, read.acquisitions), made(opened, sent)):
        assert found.method == "gridding"
        np.testing.assert_allclose(found.image.ras_from_ijk, matrix, atol=1e-4)
        np.testing.assert_allclose(found.image.array, expected.image.array, atol=1e-3 * expected.image.array.max())


def test_frames_of_a_live_scan_share_what_depends_on_the_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = spiral_scan(48, 4, 7)
    collected = collector(scan.encoding)
    for block in scan.blocks:
        collected.add(block)
    shots = collected.kspace()
    assert isinstance(shots, Shots)
    calls: list[int] = []
    voronoi = trajectory.Voronoi

    def counted(points: np.ndarray) -> object:
        calls.append(len(points))
        return voronoi(points)

    monkeypatch.setattr(trajectory, "Voronoi", counted)
    first, again = reconstruct(shots, "gridding"), reconstruct(shots, "gridding")
    assert len(calls) == 1
    assert np.array_equal(first.image.array, again.image.array)
    # By content, not by the array that carries it.
    shots.k[0] *= 0.5
    other = reconstruct(shots, "gridding")
    assert len(calls) == 2
    assert not np.array_equal(first.image.array, other.image.array)


def test_what_is_remembered_cannot_be_changed_and_is_forgotten_in_turn() -> None:
    calls: list[float] = []

    @remembered
    def doubled(array: np.ndarray, factor: float = 2.0) -> np.ndarray:
        calls.append(factor)
        return np.asarray(array * factor)

    one = doubled(np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 5
    assert doubled(np.ones(3)) is one
    assert doubled(np.ones(3), 3.0)[0] == 3
    assert doubled(np.ones(3), factor=4.0)[0] == 4
    assert doubled(np.ones((3, 1))).shape == (3, 1)
    assert len(calls) == 4
    for number in range(REMEMBERED):
        doubled(np.full(2, number))
    assert doubled(np.ones(3)) is not one
