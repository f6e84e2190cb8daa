"""The simulated ablation: what it sends is what its closed form says, frame by frame, when the scanner is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.simulate.case_files import read_ablation, read_scan
from IntraopMRIReconstructionLib.simulate.heating import ECHO_S, FIELD_T, THERMOMETRY, Ablation, HeatedScan
from IntraopMRIReconstructionLib.simulate.phantom import NATIVE
from IntraopMRIReconstructionLib.simulate.theatre import Theatre
from IntraopMRIReconstructionLib.wire.messages_text import StatusMessage, StringMessage
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader
from IntraopMRIReconstructionLib.wire.transport import Client
from scipy import fft

SIZE = 64
#: 2 pi * 42.577 MHz/T * 3 T * -0.01 ppm * 12 ms, worked out by hand.
RADIANS_PER_C = -0.096307


def block(directions: np.ndarray) -> Image:
    """Tissue of one brightness with air around it."""
    array = np.zeros((SIZE, SIZE, SIZE), np.float32)
    array[8:-8, 8:-8, 8:-8] = 500.0
    matrix = np.eye(4)
    matrix[:3, :3] = directions * 3.0
    matrix[:3, 3] = (20.0, -5.0, 11.0)
    return Image(array, matrix, "block", patient_id="P-1")


def coil_images(scan: HeatedScan, frame: int) -> np.ndarray:
    """(slice, coil, y, x) by an inverse Fourier transform of our own."""
    blocks = [each for each in scan.blocks() if each.repetition == frame]
    kspace = np.stack([each.samples for each in blocks]).transpose(0, 2, 1, 3)
    axes = (-2, -1)
    return np.asarray(fft.fftshift(fft.ifft2(fft.ifftshift(kspace, axes), norm="ortho"), axes))


def test_the_phase_is_that_of_the_temperature_where_it_is(directions: np.ndarray) -> None:
    image = block(directions)
    spot = tuple(apply(image.ras_from_ijk, [36.0, 27.0, 30.0]).tolist())
    ablation = Ablation(spot, sigma_mm=12.0, frames=3, interval_s=40.0, drift_c=0.0)
    scan = HeatedScan(image, ablation, matrix=48, slices=3, coils=4, noise=0.0)
    before, after = coil_images(scan, 0), coil_images(scan, 2)
    change = np.angle((after * before.conj()).sum(axis=1)) / RADIANS_PER_C
    bright = np.linalg.norm(before, axis=1) > 0.3 * np.linalg.norm(before, axis=1).max()
    true = scan.rise_c(2)
    assert true.max() == pytest.approx(ablation.peak_rise_c(80.0), rel=0.05)
    assert np.abs(change - true)[bright].max() < 0.6
    warm = np.unravel_index(int(true.argmax()), true.shape)
    at = apply(scan.encoding.ras_from_ijk, np.array(warm[::-1], float))
    assert np.linalg.norm(at - spot) < 4.0
    assert scan.encoding.metadata["scan_for"] == "temperature"
    assert (scan.encoding.field_t, scan.encoding.echo_times_s) == (FIELD_T, (ECHO_S,))


def test_the_course_rises_and_falls_and_the_field_drifts() -> None:
    ablation = Ablation((0.0, 0.0, 0.0), peak_c=20.0, starts_s=10.0, stops_s=70.0)
    assert ablation.peak_rise_c(10.0) == 0
    assert ablation.peak_rise_c(70.0) == pytest.approx(20.0)
    assert ablation.peak_rise_c(70.0 + ablation.falls_s) == pytest.approx(20.0 / np.e)
    image = block(np.eye(3))
    spot = tuple(apply(image.ras_from_ijk, [32.0, 32.0, 32.0]).tolist())
    scan = HeatedScan(
        image,
        Ablation(spot, peak_c=0.0, frames=2, drift_c=5.0, drift_slope=0.0),
        matrix=32,
        slices=1,
        coils=2,
        noise=0.0,
    )
    before, after = coil_images(scan, 0), coil_images(scan, 1)
    change = np.angle((after * before.conj()).sum(axis=1)) / RADIANS_PER_C
    assert change[0, 16, 16] == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "words"), [({"matrix": 17}, "even matrix"), ({"spot_ras_mm": (900.0, 0.0, 0.0)}, "outside the image")]
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    image = block(np.eye(3))
    spot = changes.pop("spot_ras_mm", tuple(apply(image.ras_from_ijk, [32.0, 32.0, 32.0]).tolist()))
    with pytest.raises(DataError, match=words):
        HeatedScan(image, Ablation(spot), **changes)


def test_the_scanner_sends_frames_when_it_is_asked(case_folder: Path) -> None:
    ablation = read_ablation(case_folder)
    assert ablation is not None
    native = read_scan(case_folder, NATIVE)
    at = np.rint(np.linalg.solve(native.ras_from_ijk, [*ablation.spot_ras_mm, 1.0])[:3]).astype(int)
    assert native.array[tuple(at[::-1])] > 0, "there must be tissue to heat"
    options = {"scanner": ["--coils", "2", "--frame-seconds", "0", "--scan-seconds", "600"]}
    with (
        Theatre(case_folder, servers=("scanner",), options=options) as theatre,
        Client(port=theatre.ports["scanner"]) as client,
    ):
        # Its own scans would take ten minutes each: stopped, it obeys.
        client.send(StringMessage(device="CMD_1", text="STOP_SEQUENCE"))
        client.send(StringMessage(device="CMD_2", text=f"START_SEQUENCE {THERMOMETRY}"))
        reader, encoding = RawDataReader("SIM-7"), None
        frames: set[int] = set()
        while True:
            received = client.expect(60.0)
            if isinstance(received.message, StatusMessage) and received.message.text == f"{THERMOMETRY}: done":
                break
            if received.message.device.startswith("ACK_"):
                continue
            item = reader.feed(received.message, received)
            if isinstance(item, Encoding):
                encoding = item
                frames.clear()
            elif isinstance(item, Acquisition) and encoding is not None and encoding.protocol == THERMOMETRY:
                frames.add(item.repetition)
    assert encoding is not None
    assert encoding.repetitions == len(frames) == ablation.frames
