"""Live frames of simulated radial and interleaved scans against the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.products import (
    Wanted,
    lacks_calibration,
    make,
    make_image,
    neighbours_have_come,
)
from IntraopMRIReconstructionLib.reconstruct.unmixing import Calibrations
from IntraopMRIReconstructionLib.reconstruct.window import FRAMES_PER_WINDOW, radial_window
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, object_at
from IntraopMRIReconstructionLib.simulate.raw_scans import (
    FIELD_MM,
    heating_scan,
    in_small_blocks,
    interleaved_scan,
    radial_scan,
)

MATRIX = 64


def error(image: np.ndarray) -> float:
    """Against the head, up to the coils' smooth strength."""
    at = (np.arange(MATRIX) - MATRIX // 2) * (FIELD_MM / MATRIX)
    head = np.abs(object_at(np.stack(np.meshgrid(at, at), axis=-1), HEAD_2D))
    scale = float((image * head).sum() / (image * image).sum())
    return float(np.linalg.norm(scale * image - head) / np.linalg.norm(head))


@pytest.mark.parametrize("delays", [(0.0, 0.0), (0.4, 0.25)])
def test_radial_frames_follow_the_newest_spokes(delays: tuple[float, float]) -> None:
    scan = radial_scan(MATRIX, 4, 34, 3, delays=delays, with_trajectory=False)
    made = collector(scan.encoding)
    window = radial_window(made, threads=1)
    assert window is not None
    assert window.window == 34
    frames = []
    for block in in_small_blocks(scan, 4):
        made.add(block)
        frame = window.add(block)
        if frame is not None:
            frames.append(frame)
    spokes = 3 * 34
    every = 34 // FRAMES_PER_WINDOW
    assert len(frames) >= (spokes - 34) // (every + 4)
    assert all(frame.method == "sliding window" for frame in frames)
    assert error(frames[-1].image.array[0]) < 0.32
    assert frames[-1].parameters["gradient_delays"] == "corrected"
    assert frames[-1].provenance["input_sha256"] == "the scan goes on"
    assert np.allclose(frames[-1].image.ras_from_ijk, scan.encoding.ras_from_ijk)


def test_broken_spokes_do_not_reach_the_window() -> None:
    scan = radial_scan(MATRIX, 4, 34)
    made = collector(scan.encoding)
    window = radial_window(made, threads=1)
    assert window is not None
    samples = scan.blocks[0].samples.copy()
    samples[3] = np.nan
    block = replace(scan.blocks[0], samples=samples)
    made.add(block)
    assert window.add(block) is None, "one spoke is missing"
    frame = window.add(scan.blocks[0])
    assert frame is not None
    assert np.isfinite(frame.image.array).all()


def test_other_scans_have_no_window() -> None:
    assert radial_window(collector(heating_scan(16, 2, 2).encoding)) is None


def test_interleaved_frames_calibrate_each_other() -> None:
    scan = interleaved_scan(MATRIX, 8)
    made = collector(scan.encoding)
    kept = Calibrations()
    waited, frames = 0, []
    for block in scan.blocks:
        made.add(block)
        frame = made.kspace(0, block.repetition)
        assert lacks_calibration(made, frame)
        if not neighbours_have_come(made, frame):
            waited += 1
            continue
        frames.append(make_image(made, Wanted(), frame, kept=kept))
    kept.close()
    assert waited == 1
    assert {frame.method for frame in frames} == {"grappa"}
    assert all("neighbouring repetitions" in " ".join(frame.warnings) for frame in frames)
    # A scan with every line has 0.262, by the coils' strength and ringing.
    assert all(error(frame.image.array[0]) < 0.27 for frame in frames)
    assert error(make(made, Wanted()).image.array[0]) < 0.27


def test_a_single_interleaved_frame_is_refused() -> None:
    scan = interleaved_scan(MATRIX, 8)
    made = collector(scan.encoding)
    made.add(scan.blocks[0])
    with pytest.raises(ReconstructionError, match="no calibration lines"):
        make(made, Wanted())
