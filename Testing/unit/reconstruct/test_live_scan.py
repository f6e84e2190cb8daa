"""A scan as it arrives: the image that it makes afterwards, frames as soon as they are whole, previews, and faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, KSpace, LineFlag
from IntraopMRIReconstructionLib.reconstruct import grappa, live, planes
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import Frame, reconstruct
from IntraopMRIReconstructionLib.reconstruct.echo_planar import EpiFrame
from IntraopMRIReconstructionLib.reconstruct.live import LiveScan
from IntraopMRIReconstructionLib.reconstruct.unmixing import Ahead, Calibrations
from IntraopMRIReconstructionLib.simulate.raw_scans import epi_scan

ACS = 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration is complete with a third of the partitions, as it is in scans of usual size."""
    monkeypatch.setattr(planes, "MAX_CALIBRATION", (8, 32, 64))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def header(scan: Any, step: int = 2, **changes: Any) -> Encoding:
    """Header of a scan of the fixture with every ``step``-th phase line and calibration lines."""
    encoding = scan.frame().encoding
    announced = {"acceleration": (1, step), "calibration_lines": (0, ACS if step > 1 else 0)}
    return replace(encoding, **(announced | changes))


def blocks(scan: Any, step: int = 2, apart: bool = True, centre_out: bool = True, **changes: Any) -> list[Acquisition]:
    """A block a partition. ``apart``: calibration lines are flagged, those off the lattice for calibration alone."""
    z, y = scan.kspace.shape[1:3]
    lattice = np.arange(0, y, step)
    centre = np.arange(y // 2 - ACS // 2, y // 2 + ACS // 2) if step > 1 else lattice[:0]
    rows = np.union1d(lattice, centre)
    flags = np.zeros(len(rows), np.uint32)
    if apart:
        inside, on_lattice = np.isin(rows, centre), np.isin(rows, lattice)
        flags[inside & ~on_lattice] = int(LineFlag.CALIBRATION)
        flags[inside & on_lattice] = int(LineFlag.CALIBRATION_AND_IMAGE)
    order = np.argsort(np.abs(np.arange(z) - z // 2), kind="stable") if centre_out else np.arange(z)
    return [
        Acquisition(
            "scan",
            np.ascontiguousarray(scan.kspace[:, part, rows].swapaxes(0, 1)).astype(np.complex64),
            rows.astype(np.int32),
            np.full(len(rows), part, np.int32),
            flags,
            **({"last": number == z - 1} | changes),
        )
        for number, part in enumerate(order)
    ]


def afterwards(encoding: Encoding, lines: list[Acquisition]) -> np.ndarray:
    """The image when all lines are sorted first and reconstructed then."""
    assembler = Assembler(encoding)
    for block in lines:
        assembler.add(block)
    return np.asarray(reconstruct(assembler.kspace()).image.array)


def arrives(scan: LiveScan, lines: list[Acquisition]) -> Iterator[Frame]:
    for block in lines:
        scan.add(block)
        yield from scan.whole(block.last)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every calibration."""
    calls: list[int] = []
    calibrate = grappa.calibrate

    def counting(*arguments: Any) -> Any:
        calls.append(1)
        return calibrate(*arguments)

    monkeypatch.setattr(grappa, "calibrate", counting)
    return calls


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("centre_out", [True, False])
def test_the_volume_is_that_of_a_finished_scan_and_its_weights_are_there_before(
    volume: Any, apart: bool, centre_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, lines = header(volume), blocks(volume, apart=apart, centre_out=centre_out)
    reference = afterwards(encoding, lines)
    calls = counted(monkeypatch)
    scan = LiveScan(encoding)
    frames = list(arrives(scan, lines[:-1]))
    assert not frames
    assert isinstance(scan.calibrations, Ahead)
    scan.calibrations._pool.shutdown(wait=True)
    assert len(calls) == encoding.encoded_matrix[0], "a plane's weights need no line that is still missing"
    (frame,) = arrives(scan, lines[-1:])
    image = reconstruct(frame, calibrations=scan.calibrations).image.array
    np.testing.assert_array_equal(image, reference)
    assert len(calls) == encoding.encoded_matrix[0], "and are used"
    scan.close()


def test_a_coil_that_dies_after_calibration_leaves_no_trace(volume: Any) -> None:
    lines = blocks(volume)
    for block in lines[18:]:
        block.samples[:, 3] = np.nan
    encoding = header(volume)
    scan = LiveScan(encoding)
    (frame,) = arrives(scan, lines)
    assert isinstance(frame, KSpace)
    assert any("coils dropped" in text and "3" in text for text in frame.warnings)
    image = reconstruct(frame, calibrations=scan.calibrations).image.array
    np.testing.assert_array_equal(image, afterwards(encoding, lines))
    assert volume.error(image) < 0.15, "seven of eight coils are left"
    scan.close()


def test_a_header_that_announces_something_else_costs_nothing_but_time(volume: Any) -> None:
    encoding, lines = header(volume, acceleration=(1, 3)), blocks(volume)
    scan = LiveScan(encoding)
    (frame,) = arrives(scan, lines)
    image = reconstruct(frame, calibrations=scan.calibrations).image.array
    np.testing.assert_array_equal(image, afterwards(encoding, lines))
    scan.close()


def test_weights_ahead_are_limited(volume: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, lines = header(volume), blocks(volume)
    plane_bytes = 8 * encoding.coils * encoding.encoded_matrix[1] * encoding.encoded_matrix[2]
    monkeypatch.setattr(live, "MAX_AHEAD_BYTES", 3 * plane_bytes)
    calls = counted(monkeypatch)
    scan = LiveScan(encoding)
    (frame,) = arrives(scan, lines)
    assert isinstance(scan.calibrations, Ahead)
    assert len(scan.calibrations._begun) == 3
    image = reconstruct(frame, calibrations=scan.calibrations).image.array
    assert len(calls) == encoding.encoded_matrix[0]
    np.testing.assert_array_equal(image, afterwards(encoding, lines))
    scan.close()


def test_closing_in_mid_scan_ends_the_work(volume: Any) -> None:
    scan = LiveScan(header(volume))
    for block in blocks(volume)[:-1]:
        scan.add(block)
    assert isinstance(scan.calibrations, Ahead)
    scan.close()
    scan.calibrations._pool.shutdown(wait=True)
    assert not scan.calibrations._begun


def stream(plane: Any, frames: int) -> tuple[Encoding, list[list[Acquisition]]]:
    """Every second line of each repetition, calibration lines in the first one only; blocks of 4 lines."""
    encoding = header(plane, repetitions=frames)
    result = []
    for repetition in range(frames):
        (whole,) = blocks(plane, repetition=repetition, last=False)
        assert whole.flags is not None
        keep = whole.flags >= 0 if repetition == 0 else whole.flags != int(LineFlag.CALIBRATION)
        flags = whole.flags if repetition == 0 else np.zeros_like(whole.flags)
        rows = np.flatnonzero(keep)
        result.append(
            [
                replace(whole, samples=whole.samples[part], ky=whole.ky[part], kz=whole.kz[part], flags=flags[part])
                for part in np.array_split(rows, len(rows) // 4)
            ]
        )
    result[-1][-1] = replace(result[-1][-1], last=True)
    return encoding, result


def test_each_frame_of_a_stream_comes_with_its_own_last_line(plane: Any) -> None:
    encoding, frames = stream(plane, 4)
    scan = LiveScan(encoding)
    assert isinstance(scan.calibrations, Calibrations)
    for repetition, lines in enumerate(frames):
        assert not list(arrives(scan, lines[:-1]))
        (frame,) = arrives(scan, lines[-1:])
        assert isinstance(frame, KSpace)
        assert frame.repetition == repetition
        result = reconstruct(frame, calibrations=scan.calibrations)
        assert result.method == "grappa"
        assert plane.error(result.image.array) < 0.025, "calibration lines of the first repetition serve all"
    assert scan.fraction == 1.0
    scan.close()


def test_a_frame_that_lacks_lines_comes_when_the_next_begins_and_says_so(plane: Any) -> None:
    encoding, frames = stream(plane, 3)
    scan = LiveScan(encoding)
    del frames[1][2]
    assert [frame.repetition for lines in frames[:2] for frame in arrives(scan, lines)] == [0]
    (late,) = arrives(scan, frames[2][:1])
    assert late.repetition == 1
    result = reconstruct(late, calibrations=scan.calibrations)
    assert any("planned lines are missing" in text for text in result.warnings)
    scan.close()


def test_a_frame_that_goes_on_after_it_seemed_whole_comes_again(plane: Any) -> None:
    """The header announces half the lines that come: the last picture is of all of them."""
    encoding = header(plane, 2, calibration_lines=(0, 0))
    (whole,) = blocks(plane, 1)
    even, odd = (
        replace(
            whole,
            samples=whole.samples[first::2],
            ky=whole.ky[first::2],
            kz=whole.kz[first::2],
            flags=None,
            last=first == 1,
        )
        for first in (0, 1)
    )
    scan = LiveScan(encoding, "fft")
    counts = [int(frame.acquired.sum()) for frame in arrives(scan, [even, odd]) if isinstance(frame, KSpace)]
    assert counts == [48, 96]
    scan.close()


def test_old_frames_of_a_long_stream_are_let_go(plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, frames = stream(plane, 6)
    monkeypatch.setattr(live, "MAX_KEPT_BYTES", 2 * 8 * encoding.coils * 96 * 96)
    scan = LiveScan(encoding)
    shown = [reconstruct(f, calibrations=scan.calibrations) for lines in frames for f in arrives(scan, lines)]
    assert len(shown) == 6
    assert len(scan._collector.frames) == 2
    assert scan.fraction == 1.0
    scan.close()


def test_old_frames_of_a_long_echo_planar_stream_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    echo_planar = epi_scan(matrix=32, coils=2)
    scan = LiveScan(replace(echo_planar.encoding, repetitions=6))
    each = 8 * int(np.prod(scan.collector.encoding.encoded_matrix)) * 2
    monkeypatch.setattr(live, "MAX_KEPT_BYTES", 2 * each)
    shown = 0
    for repetition in range(6):
        lines = [replace(block, repetition=repetition, last=False) for block in echo_planar.blocks]
        shown += len(list(arrives(scan, lines)))
    assert shown == 6
    assert len(scan.collector.frames) == 2
    assert scan.fraction == 1.0
    newest = scan.frame(0, 5)
    assert isinstance(newest, EpiFrame)
    assert newest.navigators
    scan.close()


def test_a_block_costs_no_look_at_frames_that_are_done(plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, frames = stream(plane, 12)
    scan, asked = LiveScan(encoding), set()
    count = scan.collector.lines

    def lines_of(*key: int) -> int:
        asked.add(key)
        return count(*key)

    monkeypatch.setattr(scan.collector, "lines", lines_of)
    for lines in frames:
        asked.clear()
        assert len(list(arrives(scan, lines))) == 1
        assert len(asked) == 1
    scan.close()


def test_percent_acquired_counts_calibration_lines(volume: Any) -> None:
    scan, lines = LiveScan(header(volume)), blocks(volume)
    seen = []
    for block in lines:
        scan.add(block)
        seen.append(scan.fraction)
    assert seen == pytest.approx([(number + 1) / len(lines) for number in range(len(lines))])
    scan.close()


@pytest.mark.parametrize("when", ["before", "middle"])
def test_whitening_line_by_line_is_whitening_at_the_end(volume: Any, when: str) -> None:
    """Also when more noise comes later, and when a coil dies after its lines were whitened."""
    rng = np.random.default_rng(8)
    mixing = np.eye(8) + 0.3 * rng.standard_normal((8, 8)) + 0.2j * rng.standard_normal((8, 8))
    raw = rng.standard_normal((40, 8, 32)) + 1j * rng.standard_normal((40, 8, 32))
    noise = Acquisition(
        "scan",
        np.einsum("ab,lbx->lax", mixing, raw).astype(np.complex64),
        np.zeros(40, np.int32),
        np.zeros(40, np.int32),
        np.full(40, LineFlag.NOISE, np.uint32),
    )
    lines = blocks(volume, 1)
    for block in lines[20:]:
        block.samples[:, 5] = 0
    assert noise.flags is not None
    halves = [replace(noise, samples=noise.samples[part], ky=noise.ky[part], kz=noise.kz[part], flags=noise.flags[part])
              for part in (slice(0, 20), slice(20, 40))]  # fmt: skip
    sent = {"before": [noise, *lines], "middle": [halves[0], *lines[:12], halves[1], *lines[12:]]}[when]
    live_one, at_end = Assembler(header(volume, 1)), Assembler(header(volume, 1))
    for block in sent:
        live_one.add(block)
    for block in [*lines, noise]:
        at_end.add(block)
    one, other = live_one.kspace(), at_end.kspace()
    assert one.whitened
    assert other.whitened
    assert one.samples.shape[0] == 7
    scale = float(np.abs(other.samples).max())
    np.testing.assert_allclose(one.samples, other.samples, rtol=0, atol=3e-6 * scale)


def test_previews_come_once_a_second_and_sharpen(volume: Any, clock: Clock) -> None:
    scan = LiveScan(header(volume), clock=clock)
    lines = blocks(volume)
    depths = []
    for block in lines[:-1]:
        scan.add(block)
        assert scan.preview() is None, "too soon"
        clock.now_s += 1.1
        shown = scan.preview()
        assert shown is not None
        assert any("preview" in text for text in shown.warnings)
        depths.append(shown.image.array.shape[0])
    assert depths[-1] > depths[len(depths) // 2] >= 6
    assert shown is not None
    # Calibration lines fill the gaps of the lattice in the middle: the head is not seen twice.
    picture = shown.image.array[shown.image.array.shape[0] // 2]
    rows = picture.sum(axis=1)
    assert rows[[0, -1]].max() < 0.5 * rows.max()
    scan.close()


def test_without_the_centre_there_is_nothing_to_see(volume: Any, clock: Clock) -> None:
    scan = LiveScan(header(volume), clock=clock)
    shown = []
    for block in blocks(volume, centre_out=False):
        scan.add(block)
        clock.now_s += 1.1
        shown.append(scan.preview() is not None)
    assert not any(shown[:12])
    assert all(shown[12:])
    scan.close()


def test_a_scan_that_brings_nothing_for_long_is_silent(volume: Any, clock: Clock) -> None:
    scan = LiveScan(header(volume), clock=clock)
    clock.now_s += live.SCAN_SILENT_S
    scan.add(blocks(volume)[0])
    assert not scan.silent
    clock.now_s += live.SCAN_SILENT_S + 0.1
    assert scan.silent
    scan.close()
