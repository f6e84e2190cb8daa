"""Live frames of simulated radial and interleaved scans against the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import LineFlag
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.auto import Frame
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.products import (
    Wanted,
    lacks_calibration,
    make,
    make_image,
    neighbours_have_come,
)
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.reconstruct.unmixing import Calibrations
from IntraopMRIReconstructionLib.reconstruct.window import FRAMES_PER_WINDOW, radial_window
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, object_at
from IntraopMRIReconstructionLib.simulate.raw_scans import (
    FIELD_MM,
    RawScan,
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


def test_frames_of_a_window_are_prewhitened() -> None:
    """Coils that share their noise: whitened, the noisy coil no longer speaks as loud as the others."""
    scan = radial_scan(MATRIX, 4, 34)
    spoke = scan.blocks[0]
    rng = np.random.default_rng(3)
    mixing = np.eye(4, dtype=np.complex64)
    mixing[0, 1] = 0.7j
    mixing[2] *= 100

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        white = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
        return np.einsum("dc,lcx->ldx", mixing, white)

    lines = noise((16, *spoke.samples.shape[1:]))
    number = np.zeros(16, np.int32)
    quiet = replace(
        spoke,
        samples=lines,
        ky=number,
        kz=number,
        flags=np.full(16, LineFlag.NOISE, np.uint32),
        trajectory=None if spoke.trajectory is None else np.zeros((16, *spoke.trajectory.shape[1:]), np.float32),
        last=False,
    )
    level = 0.1 * float(np.abs(spoke.samples).std())
    noisy = replace(spoke, samples=spoke.samples + level * noise(spoke.samples.shape))
    errors = {}
    for name, blocks in (("with", (quiet, noisy)), ("without", (noisy,))):
        made = collector(scan.encoding)
        window = radial_window(made, delays=False, threads=1)
        assert window is not None
        for block in blocks:
            made.add(block)
            frame = window.add(block)
        assert frame is not None
        errors[name] = error(frame.image.array[0])
        said = str(frame.parameters["prewhitened"])
        assert said == ("yes" if name == "with" else "no: no noise lines came before the spokes")
    assert errors["with"] < 0.6 * errors["without"]
    # Noise lines in mid-scan: the window begins anew, and is then as good as if they had come first.
    made = collector(scan.encoding)
    window = radial_window(made, delays=False, threads=1)
    assert window is not None
    pictures = []
    for block in (noisy, quiet, *in_small_blocks(replace(scan, blocks=(noisy,)), 17)):
        made.add(block)
        pictures.append(window.add(block))
    assert [picture is not None for picture in pictures] == [True, False, False, True]
    assert pictures[-1] is not None
    assert pictures[-1].parameters["prewhitened"] == "yes"
    assert "in mid-scan" in str(pictures[-1].parameters["begun_anew"])
    assert error(pictures[-1].image.array[0]) == pytest.approx(errors["with"], rel=1e-3)


def test_noise_lines_between_the_spokes_do_not_stop_the_pictures() -> None:
    scan = radial_scan(MATRIX, 4, 34, 4, with_trajectory=False)
    rng = np.random.default_rng(3)
    made = collector(scan.encoding)
    window = radial_window(made, delays=False, threads=1)
    assert window is not None
    pictures = []
    for number, block in enumerate(in_small_blocks(scan, 17)):
        lines = 64 if number == 0 else 4
        noise = rng.standard_normal((lines, *block.samples.shape[1:], 2)) @ np.array([1, 1j])
        nothing = np.zeros(lines, np.int32)
        flags = np.full(lines, LineFlag.NOISE, np.uint32)
        quiet = replace(block, samples=noise.astype(np.complex64), ky=nothing, kz=nothing, flags=flags, last=False)
        for each in (quiet, block):
            made.add(each)
            picture = window.add(each)
        pictures.append(picture)
    assert [picture is not None for picture in pictures] == [False] + 7 * [True]
    last = pictures[-1]
    assert last is not None
    assert "begun_anew" not in last.parameters
    assert error(last.image.array[0]) < 0.32


def test_a_coil_that_fails_leaves_the_window() -> None:
    scan = radial_scan(MATRIX, 4, 34, 3)
    made = collector(scan.encoding)
    window = radial_window(made, delays=False, threads=1)
    assert window is not None
    pictures = []
    for number, block in enumerate(in_small_blocks(scan, 17)):
        samples = block.samples.copy()
        samples[:, 1] = 0 if number >= 2 else samples[:, 1]
        made.add(replace(block, samples=samples))
        pictures.append(window.add(replace(block, samples=samples)))
    assert any("failed during the scan: 1" in text for text in made.warnings)
    # A whole window of the three that are left, and not one to which the failed one brings its past.
    assert [picture is not None for picture in pictures] == [False, True, False, True, True, True]
    last = pictures[-1]
    assert last is not None
    assert "begun_anew" in last.parameters
    alone = collector(replace(scan.encoding, coils=3))
    again = radial_window(alone, delays=False, threads=1)
    assert again is not None
    for block in list(in_small_blocks(scan, 17))[2:]:
        three = replace(block, samples=np.ascontiguousarray(block.samples[:, [0, 2, 3]]))
        alone.add(three)
        expected = again.add(three)
    assert expected is not None
    np.testing.assert_allclose(last.image.array, expected.image.array, rtol=1e-3, atol=1e-4)


def test_other_scans_have_no_window() -> None:
    assert radial_window(collector(heating_scan(16, 2, 2).encoding)) is None


def live_frames(scan: RawScan) -> list[Reconstruction | None]:
    """As they are shown: each as soon as it and its neighbours have come."""
    made, kept = collector(scan.encoding), Calibrations()
    shown: list[Reconstruction | None] = []
    for block in scan.blocks:
        made.add(block)
        frame = made.kspace(0, block.repetition)
        assert lacks_calibration(made, frame)
        ready = neighbours_have_come(made, frame)
        shown.append(make_image(made, Wanted(), frame, kept=kept) if ready else None)
    kept.close()
    return shown


@pytest.mark.parametrize(("acceleration", "limit"), [(2, 0.27), (3, 0.27), (4, 0.28)])
def test_interleaved_frames_calibrate_each_other(acceleration: int, limit: float) -> None:
    """TGRAPPA (Breuer et al., Magn Reson Med 53:981, 2005)."""
    scan = interleaved_scan(MATRIX, 8, acceleration, 2 * acceleration)
    shown = live_frames(scan)
    assert [frame is None for frame in shown] == [number < acceleration - 1 for number in range(2 * acceleration)]
    frames = [frame for frame in shown if frame is not None]
    assert {frame.method for frame in frames} == {"grappa"}
    assert all("neighbouring repetitions" in " ".join(frame.warnings) for frame in frames)
    # A scan with every line has 0.262, by the coils' strength and ringing; fourfold acceleration amplifies noise.
    assert all(error(frame.image.array[0]) < limit for frame in frames)
    made = collector(scan.encoding)
    for block in scan.blocks:
        made.add(block)
    assert error(make(made, Wanted()).image.array[0]) < limit


def test_an_interleaved_frame_shows_only_its_own_lines() -> None:
    """What has vanished from the scene is gone in the next frame, not one round of the pattern later."""
    scan = interleaved_scan(MATRIX, 8, 2, 6)
    faint = replace(scan.blocks[-1], samples=scan.blocks[-1].samples * np.complex64(0.01))
    shown = live_frames(replace(scan, blocks=(*scan.blocks[:-1], faint)))
    before, after = (frame.image.array.max() for frame in shown[-2:] if frame is not None)
    assert after == pytest.approx(0.01 * before, rel=0.1)


def test_a_long_interleaved_scan_asks_its_nearest_frames_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = interleaved_scan(32, 8, 2, 40)
    made = collector(scan.encoding)
    for block in scan.blocks:
        made.add(block)
    asked: list[int] = []
    kspace = made.kspace

    def counted(contrast: int = 0, repetition: int = 0) -> Frame:
        asked.append(repetition)
        return kspace(contrast, repetition)

    monkeypatch.setattr(made, "kspace", counted)
    assert neighbours_have_come(made, kspace(0, 20))
    assert len(asked) == 1
    assert abs(asked[0] - 20) == 1


def test_a_single_interleaved_frame_is_refused() -> None:
    scan = interleaved_scan(MATRIX, 8)
    made = collector(scan.encoding)
    made.add(scan.blocks[0])
    with pytest.raises(ReconstructionError, match="no calibration lines"):
        make(made, Wanted())
