"""Simulated radial, spiral and EPI scans through the one door: what is chosen, why, how good it is, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import LineFlag
from IntraopMRIReconstructionLib.errors import Cancelled, ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.auto import Frame, Options, reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.methods import METHODS, check, methods_for
from IntraopMRIReconstructionLib.simulate import raw_scans
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, grid_points_mm, ring_of_coils, voxel_means
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan, epi_scan, in_small_blocks, radial_scan, spiral_scan
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding

COILS = 4
#: A fully sampled Cartesian scan of this head has an error of 0.055 to 0.068, by matrix: ringing at its edges.
GOOD = 0.09
#: Spokes and spirals leave out the corners of k-space, a fifth of it.
ROUND = 1.25 * GOOD


@cache
def truth(matrix: int) -> np.ndarray:
    size, field = (matrix, matrix), (raw_scans.FIELD_MM,) * 2
    points = grid_points_mm(size, field)
    strength = np.sqrt(sum(np.abs(coil.at(points)) ** 2 for coil in ring_of_coils(COILS, raw_scans.FIELD_MM)))
    return np.abs(voxel_means(size, field, HEAD_2D)) * strength


def error(image: np.ndarray) -> float:
    reference = truth(image.shape[-1])
    return float(np.linalg.norm(image[0] - reference) / np.linalg.norm(reference))


@cache
def radial(spokes: int = 100, **options: Any) -> RawScan:
    return radial_scan(64, COILS, spokes, **options)


def frame_of(scan: RawScan) -> Frame:
    made = collector(scan.encoding)
    for block in scan.blocks:
        made.add(block)
    assert made.fraction_acquired == 1.0
    return made.kspace()


def test_enough_spokes_are_gridded() -> None:
    result = reconstruct(frame_of(radial()))
    assert (result.method, result.reason) == ("gridding", "100 spokes cover k-space")
    assert error(result.image.array) < ROUND
    assert result.provenance["trajectory"] == "radial"
    assert result.provenance["input_sha256"]


def test_gradient_delays_are_found_corrected_and_recorded() -> None:
    frame = frame_of(radial(delays=(0.4, 0.25)))
    result = reconstruct(frame)
    assert "xx 0.40" in str(result.parameters["gradient_delays"])
    assert "yy 0.25" in result.provenance["parameters"]
    assert error(result.image.array) < ROUND
    assert error(reconstruct(frame, options=Options(delays=False)).image.array) > 1.5 * ROUND


def test_few_spokes_are_left_to_the_coils() -> None:
    frame = frame_of(radial(28))
    result = reconstruct(frame)
    assert result.method == "iterative-sense"
    assert "28 spokes leave gaps" in result.reason
    by_hand = reconstruct(frame, "gridding")
    assert "streaks" in by_hand.warnings[0]
    assert error(result.image.array) < 0.6 * error(by_hand.image.array)


def test_golden_angle_spokes_need_no_trajectory() -> None:
    bare = reconstruct(frame_of(radial(with_trajectory=False))).image.array
    assert np.allclose(bare, reconstruct(frame_of(radial())).image.array, atol=1e-3)


def test_no_trajectory_and_no_order_is_refused() -> None:
    scan = radial(with_trajectory=False)
    made = collector(replace(scan.encoding, metadata={}))
    with pytest.raises(ReconstructionError, match="carry no trajectory"):
        made.add(scan.blocks[0])


@pytest.mark.parametrize(("taken", "method"), [(None, "gridding"), (8, "iterative-sense")])
def test_spiral(taken: int | None, method: str) -> None:
    result = reconstruct(frame_of(spiral_scan(64, COILS, 16, taken)))
    assert result.method == method
    assert error(result.image.array) < 1.2 * ROUND


@pytest.mark.parametrize("navigators", [True, False])
@pytest.mark.parametrize("ramps", [True, False])
def test_epi(navigators: bool, ramps: bool) -> None:
    frame = frame_of(epi_scan(64, COILS, navigators, ramps))
    result = reconstruct(frame)
    assert result.method == "fft"
    assert ("navigators" if navigators else "entropy") in result.reason
    assert result.provenance["trajectory"] == "epi"
    assert float(str(result.parameters["ghost_offset_rad"])) == pytest.approx(0.9, abs=0.02)
    assert error(result.image.array) < GOOD
    raw = reconstruct(frame, options=Options(ghost="none"))
    assert error(raw.image.array) > 3 * GOOD
    assert any("not corrected" in text for text in raw.warnings)


def test_epi_with_every_other_line_is_filled_by_the_coils_and_needs_navigators() -> None:
    whole = epi_scan(64, COILS)
    lines = whole.blocks[1]
    # Lines alternate in direction: leaving out pairs keeps both directions, as a scanner that runs faster does.
    kept = np.flatnonzero((np.arange(64) % 3 == 0) | (np.abs(np.arange(64) - 32) < 12))
    ky = lines.ky[kept]
    assert lines.flags is not None
    flags = lines.flags[kept] | np.where(np.abs(ky - 32) < 12, np.uint32(LineFlag.CALIBRATION_AND_IMAGE), np.uint32(0))
    block = replace(lines, samples=lines.samples[kept], ky=ky, kz=0 * ky, flags=flags.astype(np.uint32))
    encoding = replace(whole.encoding, acceleration=(1, 3))
    made = collector(encoding)
    made.add(whole.blocks[0])
    made.add(block)
    result = reconstruct(made.kspace())
    assert result.method == "grappa"
    assert error(result.image.array) < 1.6 * GOOD
    alone = collector(encoding)
    alone.add(block)
    with pytest.raises(ReconstructionError, match="no navigators"):
        reconstruct(alone.kspace())
    with pytest.raises(ReconstructionError, match="navigators of both directions"):
        reconstruct(alone.kspace(), options=Options(ghost="navigators"))


def test_epi_readout_that_nothing_describes_is_refused() -> None:
    scan = epi_scan(64, COILS)
    made = collector(replace(scan.encoding, metadata={}))
    with pytest.raises(ReconstructionError, match="rampUpTime"):
        made.add(scan.blocks[1])


@pytest.mark.parametrize("name", ["radial", "spiral", "epi"])
def test_the_same_from_a_file_and_over_the_link(name: str, tmp_path: Path) -> None:
    scan = {"radial": radial(), "spiral": spiral_scan(64, COILS, 16), "epi": epi_scan(64, COILS)}[name]
    direct = reconstruct(frame_of(scan)).image
    write_mrd(tmp_path / "scan.h5", scan.encoding, scan.blocks)
    read = read_mrd(tmp_path / "scan.h5")
    filed = reconstruct(frame_of(RawScan(read.encoding, read.acquisitions))).image
    reader = RawDataReader()
    (opening,) = messages_from_encoding(scan.encoding)
    encoding = reader.feed(opening)
    assert encoding is not None
    received = collector(encoding)  # type: ignore[arg-type]
    for block in in_small_blocks(scan, 32):
        item = reader.feed(message_from_acquisition(block))
        assert item is not None
        received.add(item)  # type: ignore[arg-type]
    sent = reconstruct(received.kspace()).image
    for other in (filed, sent):
        assert np.allclose(other.array, direct.array, atol=1e-4)
        assert np.allclose(other.ras_from_ijk, direct.ras_from_ijk, atol=1e-4)


def test_broken_readouts_and_coils_are_dropped_and_named() -> None:
    scan = radial()
    samples = scan.blocks[0].samples.copy()
    samples[5] = np.nan
    samples[:, 1] = 0
    made = collector(scan.encoding)
    made.add(replace(scan.blocks[0], samples=samples))
    frame = made.kspace()
    assert frame.encoding.coils == COILS - 1
    result = reconstruct(frame)
    assert any("1 readouts left out" in text for text in result.warnings)
    assert any("coils dropped" in text and "1" in text for text in result.warnings)


def test_scans_that_cannot_be_collected() -> None:
    from IntraopMRIReconstructionLib.reconstruct.shots import ShotAssembler

    with pytest.raises(ReconstructionError, match="neither"):
        ShotAssembler(replace(radial().encoding, trajectory="cartesian"))


def test_methods_know_their_trajectories() -> None:
    assert set(methods_for("radial")) == {"gridding", "iterative-sense"}
    assert set(methods_for("epi")) | set(methods_for("radial")) == set(METHODS)
    check("auto", "spiral")
    with pytest.raises(ReconstructionError, match=r"'grappa' does not reconstruct a radial scan.*iterative-sense"):
        reconstruct(frame_of(radial()), "grappa")
    with pytest.raises(ReconstructionError, match="SNR units"):
        reconstruct(frame_of(radial()), options=Options(snr_units=True))


def test_a_single_coil_cannot_fill_gaps() -> None:
    few = frame_of(radial_scan(64, 1, 24))
    assert reconstruct(few).method == "gridding"
    with pytest.raises(ReconstructionError, match="more than one live coil"):
        reconstruct(few, "iterative-sense")


@pytest.mark.parametrize("method", ["gridding", "iterative-sense"])
def test_shots_stop_when_told(method: str) -> None:
    with pytest.raises(Cancelled):
        reconstruct(frame_of(radial(28)), method, progress=lambda fraction, _what: fraction == 0)


@pytest.mark.parametrize("name", ["radial", "epi"])
def test_slices_stay_apart(name: str) -> None:
    """The second slice is twice as bright, and of the radial scan turned by other spokes."""
    scan = radial(with_trajectory=False) if name == "radial" else epi_scan(64, COILS)
    encoding = replace(
        scan.encoding,
        encoded_matrix=(3, *scan.encoding.encoded_matrix[1:]),
        recon_matrix=(3, *scan.encoding.recon_matrix[1:]),
    )
    made = collector(encoding)
    for number, strength in ((0, 1), (2, 2)):
        for block in scan.blocks:
            made.add(replace(block, samples=block.samples * np.complex64(strength), kz=block.kz + number, last=False))
    result = reconstruct(made.kspace())
    first, empty, third = result.image.array
    assert np.allclose(third, 2 * first, rtol=1e-3, atol=1e-3)
    assert not empty.any()
    assert any("black: 1" in text for text in result.warnings)


def test_navigators_that_count_as_averages_and_noise_in_one_block(tmp_path: Path) -> None:
    scan = epi_scan(64, COILS)
    plain = reconstruct(frame_of(scan)).image.array
    navigators = replace(scan.blocks[0], average=1)
    write_mrd(tmp_path / "scan.h5", scan.encoding, (navigators, scan.blocks[1]))
    read = read_mrd(tmp_path / "scan.h5")
    assert read.encoding.averages == 1
    assert np.allclose(reconstruct(frame_of(RawScan(read.encoding, read.acquisitions))).image.array, plain, atol=1e-4)
    noise = np.random.default_rng(1).standard_normal((2, *scan.blocks[1].samples.shape[1:])).astype(np.complex64)
    block = scan.blocks[1]
    assert block.flags is not None
    mixed = replace(
        block,
        samples=np.concatenate([noise, block.samples]),
        ky=np.concatenate([[0, 0], block.ky]).astype(np.int32),
        kz=np.zeros(len(block.ky) + 2, np.int32),
        flags=np.concatenate([[LineFlag.NOISE] * 2, block.flags]).astype(np.uint32),
    )
    made = collector(scan.encoding)
    made.add(scan.blocks[0])
    made.add(mixed)
    frame = made.kspace()
    assert frame.kspace.whitened  # type: ignore[union-attr]
    assert reconstruct(frame).parameters["ghost"] == "navigators"


def test_a_scan_that_runs_on_keeps_its_newest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    from IntraopMRIReconstructionLib.reconstruct import shots

    scan = radial_scan(32, 2, 8, 6)
    monkeypatch.setattr(shots, "MAX_KEPT_BYTES", 3 * scan.blocks[0].samples.nbytes)
    made = collector(scan.encoding)
    for block in scan.blocks:
        made.add(block)
    assert made.frames == ((0, 3), (0, 4), (0, 5))
    assert made.fraction_acquired == 1.0


def test_a_frame_without_an_announced_end_keeps_its_newest_readouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live slice in golden-angle order may be one repetition for hours."""
    from IntraopMRIReconstructionLib.reconstruct import shots

    scan = radial_scan(32, 4, 60, with_trajectory=False)
    endless = collector(replace(scan.encoding, metadata={"radial_order": "golden"}))
    blocks = list(in_small_blocks(scan, 4))
    each = blocks[0].samples.nbytes
    monkeypatch.setattr(shots, "MAX_KEPT_BYTES", 8 * each)
    counts = []
    for block in blocks:
        endless.add(block)
        counts.append(endless.lines(0, 0))
    assert counts == [4 * (number + 1) for number in range(len(blocks))]
    frame = endless.kspace()
    assert isinstance(frame, shots.Shots)
    kept = len(frame.slices)
    assert 4 <= kept <= 32
    np.testing.assert_allclose(frame.samples, np.moveaxis(scan.blocks[0].samples[-kept:], 1, 0))
    assert f"of 60 readouts of a scan without an announced end only the newest {kept} are kept" in frame.warnings


def test_the_slice_with_the_fewest_spokes_decides() -> None:
    """A slice that lost its spokes is not gridded without a word because the first one has all of its own."""
    scan = radial_scan(48, 1, 96)
    (whole,) = scan.blocks
    source = scan.encoding
    encoding = replace(
        source,
        encoded_matrix=(2, *source.encoded_matrix[1:]),
        recon_matrix=(2, *source.recon_matrix[1:]),
        metadata={},
    )
    made = collector(encoding)
    made.add(replace(whole, last=False))
    assert whole.trajectory is not None
    few = slice(0, 12)
    made.add(
        replace(
            whole,
            samples=whole.samples[few],
            ky=whole.ky[few],
            kz=np.ones(12, np.int32),
            flags=None,
            trajectory=whole.trajectory[few],
        )
    )
    result = reconstruct(made.kspace())
    assert any("12 spokes leave gaps" in text and "expect streaks" in text for text in result.warnings)
