"""Every method against the closed-form head, the automatic choice, and data that allow no honest image."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, KSpace, LineFlag
from IntraopMRIReconstructionLib.errors import Cancelled, ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.auto import METHODS, Options, reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.methods import methods_for
from IntraopMRIReconstructionLib.reconstruct.unmixing import Calibrations, combination
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd

#: Error of a fully sampled scan with the fixture's noise; methods are judged against it.
NOISE_ERROR = 0.012


def random_rows(size: int, share: float, calibration: int, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < share * (1.6 - 1.2 * np.abs(np.arange(size) - size // 2) / (size / 2))
    mask[size // 2 - calibration // 2 : size // 2 + calibration // 2] = True
    return mask


def test_full_sampling_takes_fft(plane: Any) -> None:
    result = reconstruct(plane.frame())
    assert result.method == "fft"
    assert result.reason == "every line was acquired"
    assert plane.error(result.image.array) < NOISE_ERROR


@pytest.mark.parametrize("combination", ["walsh", "inati", "espirit"])
def test_combinations_agree_with_truth(plane: Any, combination: Any) -> None:
    result = reconstruct(plane.frame(), "fft", options=Options(combination=combination))
    assert result.parameters["combination"] == combination
    assert plane.error(result.image.array) < 1.3 * NOISE_ERROR


@pytest.mark.parametrize(("step", "limit"), [(2, 0.02), (3, 0.04), (4, 0.14)])
@pytest.mark.parametrize("offset", [0, 1])
def test_grappa(plane: Any, lines: Any, step: Any, limit: Any, offset: Any) -> None:
    result = reconstruct(plane.frame(lines(step, 96, 24, offset)))
    assert result.method == "grappa"
    assert f"acceleration of {step}" in result.reason
    assert plane.error(result.image.array) < limit


def test_grappa_when_the_acceleration_does_not_divide_the_matrix(plane: Any, lines: Any) -> None:
    assert 96 % 5
    result = reconstruct(plane.frame(lines(5, 96, 40)), "grappa")
    assert plane.error(result.image.array) < 0.3


@pytest.mark.parametrize(("step", "limit"), [(2, 0.02), (3, 0.04), (4, 0.12)])
@pytest.mark.parametrize("offset", [0, 1])
def test_sense(plane: Any, lines: Any, step: Any, limit: Any, offset: Any) -> None:
    result = reconstruct(plane.frame(lines(step, 96, 24, offset)), "sense")
    assert plane.error(result.image.array) < limit


def test_cg_sense_equals_closed_form_on_a_lattice(plane: Any, lines: Any) -> None:
    frame = plane.frame(lines(2, 96, 24))
    iterated = reconstruct(frame, "cg-sense")
    assert iterated.parameters["iterations"] == 10
    assert plane.error(iterated.image.array) < 0.02


@pytest.mark.parametrize("method", ["l1-wavelet", "tv"])
def test_compressed_sensing_beats_least_squares_at_random_lines(plane: Any, method: Any) -> None:
    frame = plane.frame(random_rows(96, 0.3, 20))
    found = plane.error(reconstruct(frame, method).image.array)
    assert found < 0.05
    assert found < 0.8 * plane.error(reconstruct(frame, "cg-sense", options=Options(iterations=30)).image.array)


def test_no_weight_leaves_least_squares(plane: Any) -> None:
    frame = plane.frame(random_rows(96, 0.5, 20))
    found = reconstruct(frame, "tv", options=Options(weight=0.0)).image.array
    assert plane.error(found) < 0.05


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"weight": float("nan")}, {"iterations": 0}])
def test_options_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ReconstructionError, match=r"got (-1.0|nan|0)"):
        Options(**wrong)


def test_random_lines_choose_wavelets(plane: Any) -> None:
    result = reconstruct(plane.frame(random_rows(96, 0.3, 20)))
    assert result.method == "l1-wavelet"
    assert "random" in result.reason


def test_lost_lines_are_filled_from_the_coils_and_reported(plane: Any) -> None:
    mask = np.ones(96, bool)
    mask[[12, 30, 77]] = False
    result = reconstruct(plane.frame(mask))
    assert result.method == "cg-sense"
    assert "3 planned lines are missing and filled from the coils" in result.warnings
    assert plane.error(result.image.array) < 0.02
    zero_filled = reconstruct(plane.frame(mask), "fft")
    assert "3 planned lines are missing and count as zero" in zero_filled.warnings


@pytest.mark.parametrize("method", ["auto", "homodyne", "pocs"])
@pytest.mark.parametrize("missing", ["first", "last"])
def test_partial_fourier(plane: Any, method: Any, missing: Any) -> None:
    mask = np.ones(96, bool)
    mask[:34] = False
    if missing == "last":
        mask = mask[::-1]
    frame = plane.frame(mask)
    result = reconstruct(frame, method)
    zero_filled = plane.error(reconstruct(frame, "fft").image.array)
    assert result.method == ("homodyne" if method == "auto" else method)
    assert plane.error(result.image.array) < 0.75 * zero_filled


def test_partial_fourier_of_an_asymmetric_echo(plane: Any) -> None:
    frame = plane.frame()
    samples = frame.samples.copy()
    samples[..., :28] = 0
    frame = replace(frame, samples=samples, readout=(28, 96))
    plain, completed = reconstruct(frame, "fft"), reconstruct(frame)
    assert plane.error(completed.image.array) < 0.75 * plane.error(plain.image.array)
    assert "71 % of k-space" in completed.reason
    assert any("71 % of each readout" in text for text in plain.warnings)


def test_grappa_with_partial_fourier(plane: Any, lines: Any) -> None:
    mask = lines(2, 96, 24)
    mask[:24] = False
    result = reconstruct(plane.frame(mask))
    assert result.parameters["partial_fourier"] == "homodyne"
    assert plane.error(result.image.array) < 0.05


@pytest.mark.parametrize("combination", ["rss", "walsh"])
def test_volume_fft(volume: Any, combination: Any) -> None:
    result = reconstruct(volume.frame(), "fft", options=Options(combination=combination))
    assert volume.error(result.image.array) < 0.05


@pytest.mark.parametrize(
    ("steps", "limit"), [((1, 2), 0.04), ((2, 1), 0.06), ((2, 2), 0.08)], ids=["along y", "along z", "both"]
)
@pytest.mark.parametrize("method", ["grappa", "sense"])
def test_volume_parallel_imaging(volume: Any, lines: Any, steps: Any, limit: Any, method: Any) -> None:
    mask = np.outer(lines(steps[0], 24), lines(steps[1], 40))
    mask[1:23, 9:31] = True
    if steps[0] == 1:
        mask[:, 9:31] = True
    result = reconstruct(volume.frame(mask), method)
    assert volume.error(result.image.array) < limit
    assert "g-factor" in result.maps


def test_volume_random(volume: Any) -> None:
    rng = np.random.default_rng(2)
    mask = rng.random((24, 40)) < 0.5
    mask[4:20, 12:28] = True
    result = reconstruct(volume.frame(mask))
    assert result.method == "l1-wavelet"
    assert volume.error(result.image.array) < 0.05


def test_volume_partial_fourier_along_z(volume: Any) -> None:
    mask = np.ones((24, 40), bool)
    mask[:7] = False
    frame = volume.frame(mask)
    result = reconstruct(frame)
    assert result.method == "homodyne"
    assert volume.error(result.image.array) < volume.error(reconstruct(frame, "fft").image.array)


def cut(first_z: int, first_y: int, z: int = 24, y: int = 40) -> np.ndarray:
    mask = np.ones((z, y), bool)
    mask[:first_z] = False
    mask[:, :first_y] = False
    return mask


@pytest.mark.parametrize(("first_z", "first_y"), [(7, 12), (8, 15), (5, 9)])
@pytest.mark.parametrize("turned", [(1, 1), (-1, 1), (1, -1)], ids=["first", "last z", "last y"])
def test_volume_partial_fourier_in_both_directions(
    volume: Any, first_z: int, first_y: int, turned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One direction after the other, homodyne takes what the second lacks for phase: worse than both at once."""
    from IntraopMRIReconstructionLib.reconstruct import solvers

    frame = volume.frame(cut(first_z, first_y)[:: turned[0], :: turned[1]])
    result = reconstruct(frame)
    assert result.method == "pocs"
    assert "two missing sides POCS completes both" in result.reason
    assert result.parameters["partial_fourier"] == "pocs in both directions"
    found = volume.error(result.image.array)
    assert found < 0.8 * volume.error(reconstruct(frame, "fft").image.array)
    asked = reconstruct(frame, "homodyne")
    assert asked.parameters["partial_fourier"] == "pocs in both directions"
    np.testing.assert_allclose(asked.image.array, result.image.array)
    whole = solvers.completed

    def in_turn(image: Any, sides: Any, _method: Any) -> Any:
        return whole(whole(image, sides[:1], "homodyne"), sides[1:], "homodyne")

    monkeypatch.setattr(solvers, "completed", in_turn)
    assert found < 0.95 * volume.error(reconstruct(frame, "homodyne").image.array)


@pytest.mark.parametrize("counted", ["as planned", "as acquired"])
def test_both_sides_missing_from_a_file(volume: Any, tmp_path: Path, counted: str) -> None:
    """Counters begin at the first line that was acquired, and the centre of both is off: all of it is in the header."""
    first_z, first_y = 7, 12
    frame = volume.frame(cut(first_z, first_y))
    encoding = replace(frame.encoding, centre=(12 - first_z, 20 - first_y, 16))
    z, y = (index.reshape(-1) for index in np.meshgrid(range(24 - first_z), range(40 - first_y), indexing="ij"))
    samples = np.moveaxis(frame.samples[:, z + first_z, y + first_y], 0, 1)
    block = Acquisition("scan", samples, y.astype(np.int32), z.astype(np.int32), last=True)
    path = tmp_path / "partial.h5"
    write_mrd(path, encoding, [block])
    if counted == "as acquired":
        with h5py.File(path, "r+") as file:
            text = file["dataset"]["xml"][0].decode()
            for step, last in ((1, 39 - first_y), (2, 23 - first_z)):
                name = f"<kspace_encoding_step_{step}>"
                text = re.sub(rf"({name}<minimum>0</minimum><maximum>)\d+", rf"\g<1>{last}", text)
            file["dataset"]["xml"][0] = text
    scan = read_mrd(path)
    made = collector(scan.encoding)
    for lines_of in scan.acquisitions:
        made.add(lines_of)
    result = reconstruct(made.kspace())
    assert result.method == "pocs"
    np.testing.assert_allclose(result.image.array, reconstruct(frame).image.array, atol=1e-4)
    assert made.fraction_acquired == 1.0


def test_a_plane_with_an_asymmetric_echo_and_lines_on_one_side(plane: Any) -> None:
    mask = np.ones(96, bool)
    mask[:34] = False
    frame = plane.frame(mask)
    samples = frame.samples.copy()
    samples[..., :28] = 0
    frame = replace(frame, samples=samples, readout=(28, 96))
    result = reconstruct(frame)
    assert result.method == "pocs"
    assert "46 % of k-space" in result.reason
    assert plane.error(result.image.array) < 0.8 * plane.error(reconstruct(frame, "fft").image.array)


def test_a_volume_with_short_readouts_and_partitions_on_one_side_is_shown_blurred(volume: Any) -> None:
    frame = volume.frame(cut(7, 0))
    samples = frame.samples.copy()
    samples[..., 24:] = 0
    result = reconstruct(replace(frame, samples=samples, readout=(0, 24)))
    assert result.method == "fft"
    assert any("image is blurred" in text for text in result.warnings)
    assert volume.error(result.image.array) < 0.2


def test_volume_parallel_imaging_with_both_sides_missing(volume: Any, lines: Any) -> None:
    mask = np.outer(np.ones(24, bool), lines(2, 40))
    mask[:, 9:31] = True
    mask &= cut(6, 8)
    result = reconstruct(volume.frame(mask), "sense")
    assert result.parameters["partial_fourier"] == "pocs in both directions"
    assert volume.error(result.image.array) < 0.12


@pytest.mark.parametrize(("first_z", "first_y"), [(10, 0), (7, 18)])
def test_a_short_side_that_is_too_short_is_refused(volume: Any, first_z: int, first_y: int) -> None:
    with pytest.raises(ReconstructionError, match="at least 4 lines on the short side"):
        reconstruct(volume.frame(cut(first_z, first_y)), "pocs")


def test_calibration_lines_of_their_own_are_used(plane: Any, lines: Any) -> None:
    frame = plane.frame(lines(2, 96))
    separate = plane.frame(np.isin(np.arange(96), np.arange(36, 60))).samples
    result = reconstruct(replace(frame, calibration=separate))
    assert result.method == "grappa"
    assert plane.error(result.image.array) < 0.02


def test_repetitions_share_a_calibration(plane: Any, lines: Any, monkeypatch: Any) -> None:
    """Three frames calibrate once; a renewal runs beside the frames and is taken when it is ready."""
    from IntraopMRIReconstructionLib.reconstruct import grappa

    calls: list[threading.Thread] = []
    calibrate, done = grappa.calibrate, threading.Event()

    def counted(*arguments: Any) -> Any:
        calls.append(threading.current_thread())
        weights = calibrate(*arguments)
        if len(calls) > 1:
            done.set()
        return weights

    monkeypatch.setattr(grappa, "calibrate", counted)
    frame = plane.frame(lines(2, 96, 24))
    kept = Calibrations(refresh_after_s=1e6)
    images = [reconstruct(frame, calibrations=kept).image.array for _ in range(3)]
    kept.close()
    assert len(calls) == 1
    np.testing.assert_array_equal(images[0], images[2])

    calls.clear()
    eager = Calibrations(refresh_after_s=0.0)
    reconstruct(frame, calibrations=eager)
    reconstruct(frame, calibrations=eager)
    assert done.wait(20)
    eager.close()
    assert [thread is threading.main_thread() for thread in calls] == [True, False]


def test_a_failed_renewal_is_told_once() -> None:
    kept = Calibrations(refresh_after_s=0.0)
    good = combination(np.ones((2, 4, 4), np.complex64))

    def broken() -> Any:
        raise ReconstructionError("no signal in the calibration lines")

    def until_told() -> None:
        while True:
            kept.weights("slice", lambda: good)

    assert kept.weights("slice", lambda: good) is good
    assert kept.weights("slice", broken) is good
    with pytest.raises(ReconstructionError, match="no signal"):
        until_told()
    assert kept.weights("slice", lambda: good) is good
    kept.close()


def test_threads_change_nothing(volume: Any, lines: Any) -> None:
    mask = np.broadcast_to(lines(2, 40, 24), (24, 40))
    one, three = (reconstruct(volume.frame(mask), threads=n).image.array for n in (1, 3))
    np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-5)


def test_input_stays_as_it_is(volume: Any, lines: Any) -> None:
    frame = volume.frame(np.broadcast_to(lines(2, 40, 24), (24, 40)))
    before = frame.samples.copy()
    for method in ("fft", "grappa", "cg-sense"):
        reconstruct(frame, method, options=Options(iterations=2))
    np.testing.assert_array_equal(frame.samples, before)


def test_recon_grid_of_a_complex_method(plane: Any, lines: Any) -> None:
    """Interpolated to 1.5 times the matrix, the image keeps brightness and place."""
    frame = plane.frame(lines(2, 96, 24))
    frame = replace(frame, encoding=replace(frame.encoding, recon_matrix=(1, 144, 144)))
    image = reconstruct(frame).image.array
    assert image.shape == (1, 144, 144)
    coarse = reconstruct(plane.frame(lines(2, 96, 24))).image.array
    # Voxel 72 of 144 and voxel 48 of 96 are one point; so are every third and every second from there.
    same = np.abs(image[0, 72 % 3 :: 3, 72 % 3 :: 3] - coarse[0, ::2, ::2]).max()
    assert same < 0.05 * coarse.max()


@pytest.mark.parametrize("method", ["fft", "grappa"])
def test_snr_units_are_signal_over_noise(plane: Any, lines: Any, method: Any) -> None:
    frame = plane.frame(lines(2, 96, 24) if method == "grappa" else None)
    frame = replace(frame, samples=frame.samples / np.float32(0.01), whitened=True)
    result = reconstruct(frame, options=Options(snr_units=True))
    # The noise of one of the two parts of a voxel is 0.01 / sqrt(2) without acceleration.
    expected = plane.reference / 0.01 * np.sqrt(2)
    if method == "grappa":
        expected = expected / (np.sqrt(2) * result.maps["g-factor"].array)
    ratio = result.image.array[plane.inside] / expected[plane.inside]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert result.parameters["units"] == "SNR"


@pytest.mark.parametrize("method", ["grappa", "sense"])
def test_g_factor_predicts_the_noise(plane: Any, lines: Any, method: Any) -> None:
    """Monte Carlo: the standard deviation over repeated noise equals g times sqrt(R) times the full scan's."""
    from IntraopMRIReconstructionLib.operators import sensitivity
    from IntraopMRIReconstructionLib.reconstruct import grappa, sense
    from IntraopMRIReconstructionLib.reconstruct.unmixing import Lattice

    block = plane.kspace[:, 0, 36:60, 16:80]
    maps = sensitivity.low_resolution(block, (96, 96))
    lattice = Lattice((96, 96), (3, 1))
    weights = grappa.calibrate(block, lattice, maps) if method == "grappa" else sense.unmixing(maps, lattice)
    rng = np.random.default_rng(9)
    runs = [
        weights.image(rng.standard_normal((8, 96, 96, 2)).astype(np.float32).view(np.complex64)[..., 0] / np.sqrt(2))
        for _ in range(200)
    ]
    measured = np.std(runs, axis=0) / np.sqrt(3)
    inside = plane.inside[0]
    assert np.median(measured[inside] / weights.g_factor[inside]) == pytest.approx(1.0, abs=0.03)
    assert weights.g_factor[inside].max() > 1.05


@pytest.mark.parametrize(
    ("acquired", "coils", "message"),
    [
        ({"step": 2, "calibration": 0}, 8, "no calibration lines"),
        ({"step": 4, "calibration": 24}, 3, "acceleration of 4 with 3 live coils"),
        ({"step": 4, "calibration": 10}, 8, "GRAPPA .* needs at least .* calibration samples"),
    ],
)
def test_accelerated_data_that_allow_no_honest_image(
    plane: Any, lines: Any, acquired: Any, coils: Any, message: Any
) -> None:
    frame = plane.frame(lines(acquired["step"], 96, acquired["calibration"]), slice(coils))
    with pytest.raises(ReconstructionError, match=message):
        reconstruct(frame)


def test_aliased_image_by_hand_says_so(plane: Any, lines: Any) -> None:
    result = reconstruct(plane.frame(lines(2, 96)), "fft")
    assert any("aliased" in text for text in result.warnings)
    assert result.reason == "chosen by hand"


def test_header_that_announces_another_acceleration_is_warned_about(plane: Any, lines: Any) -> None:
    frame = plane.frame(lines(2, 96, 24))
    frame = replace(frame, encoding=replace(frame.encoding, acceleration=(1, 3)))
    assert any("(1, 3)" in text and "(1, 2)" in text for text in reconstruct(frame).warnings)


def test_unknown_method_names_the_known(plane: Any) -> None:
    with pytest.raises(ReconstructionError, match=re.escape(", ".join(METHODS))):
        reconstruct(plane.frame(), "magic")


@pytest.mark.parametrize("shutter", [False, True])
def test_noise_is_one_in_snr_units_whatever_counts_as_zero(shutter: bool) -> None:
    """Corners of k-space that an elliptical shutter leaves out bring no noise."""
    n, rng = 24, np.random.default_rng(3)
    away = (np.arange(n) - n // 2) / (n / 2)
    mask = np.hypot(away[:, None], away) <= (1.0 if shutter else 2.0)
    header = Encoding("s", "cartesian", (n, n, n), (n, n, n), (n, n, n), (n, n, n), 1, np.eye(4))
    images = []
    for _ in range(40):
        noise = (rng.standard_normal((2, 1, n, n, n)) / np.sqrt(2)).astype(np.float32)
        samples = (noise[0] + 1j * noise[1]) * mask[:, :, None]
        samples[0, n // 2, n // 2, n // 2] += 50 * n**1.5
        frame = KSpace(samples.astype(np.complex64), mask.astype(np.uint8), header, (0, n), whitened=True)
        result = reconstruct(frame, options=Options(snr_units=True))
        assert result.method == "fft"
        images.append(result.image.array)
    assert np.std(images, axis=0, ddof=1).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("lost", ["one line", "all lines"])
def test_a_slice_without_its_calibration_is_no_picture_without_a_word(plane: Any, lost: str, marked: bool) -> None:
    """One of three slices lost calibration lines on the way: zeros in their place would calibrate it wrongly."""
    one = plane.frame(None).encoding
    encoding = replace(
        one,
        encoded_matrix=(3, *one.encoded_matrix[1:]),
        recon_matrix=(3, *one.recon_matrix[1:]),
        acceleration=(1, 2),
        calibration_lines=(0, 24),
    )
    lattice, centre = np.arange(0, 96, 2), np.arange(36, 60)
    rows = np.union1d(lattice, centre)
    gone = [37] if lost == "one line" else np.setdiff1d(centre, lattice)
    for away in ([], gone):
        made = collector(encoding)
        for number in range(3):
            some = np.setdiff1d(rows, away) if number == 1 else rows
            flags = np.zeros(len(some), np.uint32)
            if marked:
                flags[np.isin(some, centre)] = int(LineFlag.CALIBRATION)
                flags[np.isin(some, centre) & np.isin(some, lattice)] = int(LineFlag.CALIBRATION_AND_IMAGE)
            samples = np.ascontiguousarray(plane.kspace[:, 0, some].swapaxes(0, 1)).astype(np.complex64)
            slices = np.full(len(some), number, np.int32)
            made.add(Acquisition(encoding.scan_id, samples, some.astype(np.int32), slices, flags))
        if len(away) > 1:
            with pytest.raises(ReconstructionError, match="no calibration lines were acquired in every slice"):
                reconstruct(made.kspace())
        else:
            array = reconstruct(made.kspace()).image.array
            # A line that was made from others is not the lost one, but far nearer to it than noise is.
            assert np.abs(array[1] - array[0]).max() < 2e-3 * array.max()
            assert np.array_equal(array[2], array[0])
            assert plane.error(array[:1]) < 0.03


def test_snr_units_need_noise_lines(plane: Any) -> None:
    with pytest.raises(ReconstructionError, match="noise lines"):
        reconstruct(plane.frame(), options=Options(snr_units=True))


def test_overflow_is_not_shown(plane: Any) -> None:
    frame = plane.frame()
    frame = replace(frame, samples=frame.samples * np.float32(1e30))
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ReconstructionError, match="not finite"):
        reconstruct(frame)


@pytest.mark.parametrize("method", methods_for("cartesian"))
def test_every_method_stops_when_told(plane: Any, lines: Any, method: Any) -> None:
    calls = []

    def stop_at_third(fraction: float, what: str) -> bool:
        calls.append(fraction)
        return len(calls) < 3

    mask = lines(2, 96, 24) if method not in ("fft", "homodyne", "pocs") else None
    with pytest.raises(Cancelled):
        reconstruct(plane.frame(mask), method, progress=stop_at_third)
    assert len(calls) == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_volume_stops_when_told(volume: Any, lines: Any, threads: Any) -> None:
    calls = []

    def stop_at_tenth(fraction: float, what: str) -> bool:
        calls.append(what)
        return len(calls) < 15

    frame = volume.frame(np.broadcast_to(lines(2, 40, 24), (24, 40)))
    with pytest.raises(Cancelled):
        reconstruct(frame, "cg-sense", progress=stop_at_tenth, threads=threads)
    assert len(calls) < 25


@pytest.mark.parametrize("method", ["fft", "grappa"])
def test_an_empty_slice_is_black_and_named(plane: Any, lines: Any, method: Any) -> None:
    one = plane.frame(lines(2, 96, 24) if method == "grappa" else None)
    samples = np.concatenate([one.samples, 0 * one.samples, one.samples], axis=1)
    acquired = np.concatenate([one.acquired, 0 * one.acquired, one.acquired])
    matrix = (3, 96, 96)
    encoding = replace(one.encoding, encoded_matrix=matrix, recon_matrix=matrix)
    result = reconstruct(replace(one, samples=samples, acquired=acquired, encoding=encoding))
    assert result.method == method
    assert "slices without any line are black: 1" in result.warnings
    assert not result.image.array[1].any()
    for z in (0, 2):
        assert plane.error(result.image.array[z : z + 1]) < 0.02
