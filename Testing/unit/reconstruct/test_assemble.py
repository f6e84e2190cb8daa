"""Lines in, k-space and image out, against the closed-form k-space of a head."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import Cancelled, ReconstructionError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import preview, reconstruct
from IntraopMRIReconstructionLib.reconstruct.noise import NoiseSums
from IntraopMRIReconstructionLib.simulate.analytic import (
    HEAD_2D,
    cartesian_kspace,
    grid_points_mm,
    ring_of_coils,
    voxel_means,
)
from scipy.ndimage import binary_erosion, gaussian_filter

FIELD = 240.0
#: Truncated k-space rings at edges, and a magnitude does not average that out; a shift by half a voxel makes 0.1.
RINGING = 0.045
COILS = ring_of_coils(4, FIELD)


def encoding(matrix: Any = (1, 64, 64), **changes: Any) -> Encoding:
    values = {
        "scan_id": "scan",
        "trajectory": "cartesian",
        "encoded_matrix": matrix,
        "recon_matrix": matrix,
        "encoded_fov_mm": (5.0, FIELD, FIELD),
        "recon_fov_mm": (5.0, FIELD, FIELD),
        "coils": 4,
        "ras_from_ijk": np.diag([FIELD / matrix[2], FIELD / matrix[1], 5.0, 1.0]),
        "is_3d": False,
    }
    return Encoding(**(values | changes))


def head(matrix: Any = (64, 64), field: Any = (FIELD, FIELD)) -> np.ndarray:
    return cartesian_kspace(matrix, field, HEAD_2D, COILS)


def lines(kspace: np.ndarray, rows: Any = None, **changes: Any) -> Acquisition:
    """A block of lines of one slice from (coils, y, x)."""
    index = np.arange(kspace.shape[1]) if rows is None else np.asarray(rows)
    values = {
        "scan_id": "scan",
        "samples": np.moveaxis(kspace[:, index], 1, 0).copy(),
        "ky": index.astype(np.int32),
        "kz": np.zeros(len(index), np.int32),
    }
    return Acquisition(**(values | changes))


def truth_rss(matrix: Any = (64, 64)) -> np.ndarray:
    points = grid_points_mm(matrix, (FIELD, FIELD))
    sensitivity = np.sqrt(sum(np.abs(coil.at(points)) ** 2 for coil in COILS))
    return np.abs(voxel_means(matrix, (FIELD, FIELD), HEAD_2D)) * sensitivity


def smooth_error(image: np.ndarray, truth: np.ndarray) -> float:
    """NRMSE after smoothing both: the ringing of a truncated k-space is right, and not what is asked about."""
    a, b = gaussian_filter(image, 1.5), gaussian_filter(truth, 1.5)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_lines_in_any_order_give_the_truth() -> None:
    assembler = Assembler(encoding())
    order = np.random.default_rng(1).permutation(64)
    for block in np.array_split(order, 7):
        assembler.add(lines(head(), block))
    assert assembler.fraction_acquired == 1.0
    assert len(assembler.missing) == 0
    kspace = assembler.kspace()
    np.testing.assert_array_equal(kspace.samples[:, 0], head())
    result = reconstruct(kspace)
    assert result.image.array.dtype == np.float32
    assert result.method == "fft"
    assert result.warnings == ()
    assert smooth_error(result.image.array[0], truth_rss()) < RINGING


def test_frames_of_a_scan_share_what_its_header_says() -> None:
    assembler = Assembler(encoding(repetitions=2))
    for repetition in (0, 1):
        assembler.add(lines(head(), repetition=repetition))
    assert assembler.kspace(0, 0).encoding is assembler.kspace(0, 1).encoding


@pytest.mark.parametrize("matrix", [(64, 64), (63, 65), (50, 48)])
def test_image_is_in_place_for_even_and_odd_matrices(matrix: Any) -> None:
    assembler = Assembler(encoding((1, *matrix)))
    assembler.add(lines(head(matrix)))
    image = reconstruct(assembler.kspace()).image.array[0]
    assert smooth_error(image, truth_rss(matrix)) < RINGING


def test_readout_oversampling_is_removed() -> None:
    source = encoding((1, 64, 128), recon_matrix=(1, 64, 64), encoded_fov_mm=(5.0, FIELD, 2 * FIELD))
    assembler = Assembler(source)
    assembler.add(lines(head((64, 128), (FIELD, 2 * FIELD))))
    kspace = assembler.kspace()
    assert kspace.samples.shape == (4, 1, 64, 64)
    assert smooth_error(reconstruct(kspace).image.array[0], truth_rss()) < RINGING


def test_recon_matrix_larger_than_encoded_keeps_brightness_and_place() -> None:
    source = encoding(recon_matrix=(1, 96, 96))
    assembler = Assembler(source)
    assembler.add(lines(head()))
    image = reconstruct(assembler.kspace()).image.array[0]
    assert image.shape == (96, 96)
    assert smooth_error(image, truth_rss((96, 96))) < RINGING


def test_phase_oversampling_is_cropped_in_the_image() -> None:
    source = encoding((1, 96, 64), recon_matrix=(1, 64, 64), encoded_fov_mm=(5.0, 1.5 * FIELD, FIELD))
    assembler = Assembler(source)
    assembler.add(lines(head((96, 64), (1.5 * FIELD, FIELD))))
    assert smooth_error(reconstruct(assembler.kspace()).image.array[0], truth_rss()) < RINGING


def test_partial_fourier_lines_find_their_place_by_the_centre() -> None:
    # The scan counts from its first acquired line: 12 lines before the centre, not 32.
    source = encoding(centre=(0, 12, 32))
    assembler = Assembler(source)
    assembler.add(lines(head(), np.arange(20, 64), ky=np.arange(44, dtype=np.int32)))
    np.testing.assert_array_equal(assembler.kspace().samples[:, 0, 20:], head()[:, 20:])
    assert assembler.fraction_acquired == 1.0


def test_short_readouts_are_placed_by_their_centre() -> None:
    source = encoding(centre=(0, 32, 16))
    assembler = Assembler(source)
    assembler.add(lines(head()[:, :, 16:]))
    kspace = assembler.kspace()
    assert kspace.readout == (16, 64)
    np.testing.assert_array_equal(kspace.samples[:, 0, :, 16:], head()[:, :, 16:])


def test_averages_are_averaged() -> None:
    assembler = Assembler(encoding(averages=3))
    for average, factor in enumerate((1.0, 2.0, 6.0)):
        assembler.add(lines((factor * head()).astype(np.complex64), average=average))
    kspace = assembler.kspace()
    np.testing.assert_allclose(kspace.samples[:, 0], 3.0 * head(), rtol=1e-5, atol=1e-4)
    assert (kspace.acquired == 3).all()


def test_contrasts_and_repetitions_stay_apart() -> None:
    assembler = Assembler(encoding(contrasts=2, repetitions=2))
    for contrast in range(2):
        for repetition in range(2):
            scaled = (head() * (1 + contrast + 2 * repetition)).astype(np.complex64)
            assembler.add(lines(scaled, contrast=contrast, repetition=repetition))
    assert assembler.frames == ((0, 0), (0, 1), (1, 0), (1, 1))
    np.testing.assert_allclose(assembler.kspace(1, 1).samples[:, 0], 4 * head(), rtol=1e-6)


def test_reversed_lines_are_turned() -> None:
    samples = np.moveaxis(head(), 1, 0).copy()
    samples[::2] = samples[::2, :, ::-1]
    flags = np.where(np.arange(64) % 2 == 0, int(LineFlag.REVERSED), 0).astype(np.uint32)
    assembler = Assembler(encoding())
    assembler.add(lines(head(), samples=samples, flags=flags))
    np.testing.assert_array_equal(assembler.kspace().samples[:, 0], head())


def test_calibration_lines_are_kept_apart_from_image_lines() -> None:
    flags = np.zeros(64, np.uint32)
    flags[28:36] = LineFlag.CALIBRATION
    flags[36] = LineFlag.CALIBRATION_AND_IMAGE
    assembler = Assembler(encoding())
    assembler.add(lines(head(), flags=flags))
    kspace = assembler.kspace()
    assert not kspace.samples[:, 0, 28:36].any()
    assert kspace.samples[:, 0, 36].any()
    assert kspace.calibration is not None
    np.testing.assert_array_equal(kspace.calibration[:, 0, 28:37], head()[:, 28:37])
    assert not kspace.calibration[:, 0, 37:].any()


def test_noise_lines_whiten() -> None:
    rng = np.random.default_rng(3)
    mixing = np.eye(4) + 0.4 * rng.standard_normal((4, 4)) + 0.3j * rng.standard_normal((4, 4))

    def noise(count: Any) -> Any:
        raw = rng.standard_normal((count, 4, 64)) + 1j * rng.standard_normal((count, 4, 64))
        return np.einsum("ab,lbx->lax", mixing, raw / np.sqrt(2)).astype(np.complex64)

    assembler = Assembler(encoding())
    assembler.add(lines(head(), samples=noise(64), flags=np.full(64, LineFlag.NOISE, np.uint32)))
    assembler.add(lines(head(), samples=noise(64)))
    kspace = assembler.kspace()
    assert kspace.whitened
    values = kspace.samples.reshape(4, -1)
    covariance = values @ values.conj().T / values.shape[1]
    np.testing.assert_allclose(covariance, np.eye(4), atol=0.1)


def test_noise_lines_with_every_frame_take_no_memory_and_count_like_one_scan_of_noise() -> None:
    rng = np.random.default_rng(3)
    repetitions, together = 30, []
    several, once = Assembler(encoding(repetitions=repetitions)), Assembler(encoding(repetitions=repetitions))
    sizes = []
    for number in range(repetitions):
        raw = rng.standard_normal((2, 4, 64)) + 1j * rng.standard_normal((2, 4, 64))
        raw[:, 0] *= 3 + raw[:, 1]
        together.append(raw.astype(np.complex64))
        noise = np.full(2, LineFlag.NOISE, np.uint32)
        several.add(lines(head(), [0, 1], samples=together[-1], flags=noise, repetition=number))
        sizes.append(len(pickle.dumps(several._noise)))
    everything = np.concatenate(together)
    flags = np.full(len(everything), LineFlag.NOISE, np.uint32)
    once.add(lines(head(), np.arange(len(everything)), samples=everything, flags=flags))
    for assembler in (several, once):
        assembler.add(lines(head()))
    np.testing.assert_allclose(several.kspace().samples, once.kspace().samples, rtol=1e-5, atol=1e-6)
    values = np.moveaxis(everything, 1, 0).reshape(4, -1).astype(np.complex128)
    matrix, why = several.mixing()
    assert matrix is not None
    assert not why
    whitened = matrix @ (values @ values.conj().T / values.shape[1]) @ matrix.conj().T
    np.testing.assert_allclose(whitened, np.eye(4), atol=1e-5)
    assert sizes[-1] <= sizes[0] + 8


def test_a_coil_without_numbers_in_its_noise_spoils_that_coil_alone() -> None:
    rng = np.random.default_rng(3)
    noise = (rng.standard_normal((8, 4, 64)) + 1j * rng.standard_normal((8, 4, 64))).astype(np.complex64)
    noise[2, 1, 5] = np.nan
    sums = NoiseSums(4)
    sums.add(np.moveaxis(noise, 1, 0).reshape(4, -1))
    with pytest.raises(ReconstructionError, match="NaN"):
        sums.covariance(np.arange(4))
    np.testing.assert_allclose(sums.covariance(np.array([0, 2, 3])), 2 * np.eye(3), atol=0.3)


def test_missing_lines_are_named_and_warned_about() -> None:
    assembler = Assembler(encoding())
    assembler.add(lines(head(), np.delete(np.arange(64), [10, 50])))
    assert assembler.missing.tolist() == [[0, 0, 0, 10], [0, 0, 0, 50]]
    assert assembler.fraction_acquired == pytest.approx(62 / 64)
    assert any("2 planned lines are missing" in text for text in reconstruct(assembler.kspace()).warnings)


def test_nan_lines_are_left_out() -> None:
    broken = head()
    broken[:, 7] = np.nan
    assembler = Assembler(encoding())
    assembler.add(lines(broken))
    kspace = assembler.kspace()
    assert kspace.acquired[0, 7] == 0
    assert kspace.samples.shape[0] == 4
    result = reconstruct(kspace)
    assert np.isfinite(result.image.array).all()
    assert any("NaN" in text for text in result.warnings)


def test_zero_lines_count_as_not_acquired() -> None:
    broken = head()
    broken[:, 7] = 0
    assembler = Assembler(encoding())
    assembler.add(lines(broken))
    assert assembler.kspace().acquired[0, 7] == 0
    assert "1 lines left out because they carry only zeros" in assembler.warnings


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_coil_that_dies_in_mid_scan_is_dropped_and_reported(value: Any) -> None:
    broken = head()
    broken[2, 40:] = value
    assembler = Assembler(encoding())
    assembler.add(lines(broken))
    kspace = assembler.kspace()
    assert assembler.dead_coils == (2,)
    np.testing.assert_array_equal(kspace.samples[:, 0], head()[[0, 1, 3]])
    assert any("coils dropped" in text and "2" in text for text in reconstruct(kspace).warnings)


def test_dead_coil_does_not_spoil_whitening() -> None:
    rng = np.random.default_rng(5)
    broken = head()
    broken[1, 30:] = np.nan
    noise = (rng.standard_normal((8, 4, 64)) + 1j * rng.standard_normal((8, 4, 64))).astype(np.complex64)
    assembler = Assembler(encoding())
    assembler.add(lines(head(), np.arange(8), samples=noise, flags=np.full(8, LineFlag.NOISE, np.uint32)))
    assembler.add(lines(broken))
    kspace = assembler.kspace()
    assert kspace.samples.shape[0] == 3
    assert kspace.whitened
    assert np.isfinite(kspace.samples).all()


def test_most_coils_dead_is_refused() -> None:
    broken = head()
    broken[:3, 10] = np.nan
    assembler = Assembler(encoding())
    assembler.add(lines(broken))
    with pytest.raises(ReconstructionError, match="3 of 4 coils failed"):
        assembler.kspace()


def test_duplicates_keep_the_first_and_warn() -> None:
    assembler = Assembler(encoding())
    assembler.add(lines(head()))
    assembler.add(lines(7 * head(), [3, 4]))
    np.testing.assert_array_equal(assembler.kspace().samples[:, 0], head())
    assert assembler.warnings == ("2 lines came twice: the first was kept",)


def test_duplicates_within_a_block() -> None:
    assembler = Assembler(encoding())
    assembler.add(lines(head(), [3, 4, 3]))
    assert assembler.kspace().acquired.sum() == 2
    assert assembler.warnings == ("1 lines came twice: the first was kept",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ky": np.arange(1, 65, dtype=np.int32)}, r"ky must be within 0\.\.63 .* got \[64\]"),
        ({"kz": np.full(64, -1, np.int32)}, r"kz must be within 0\.\.0 "),
        ({"samples": np.ones((64, 3, 64), np.complex64)}, "3 coils, the header says 4"),
        ({"samples": np.ones((64, 4, 60), np.complex64)}, "60 samples"),
        ({"scan_id": "other"}, "scan 'other'"),
        ({"repetition": 1}, r"repetition must be within 0\.\.0"),
        ({"contrast": 2}, "contrast"),
        ({"average": -1}, "average"),
        ({"trajectory": np.zeros((64, 64, 2), np.float32)}, "trajectory"),
    ],
)
def test_data_that_do_not_fit_the_header_are_refused_and_not_stored(changes: Any, message: Any) -> None:
    assembler = Assembler(encoding())
    with pytest.raises(ReconstructionError, match=message):
        assembler.add(lines(head(), **changes))
    assert assembler.fraction_acquired == 0.0


def test_more_averages_than_are_counted_are_left_out_and_said() -> None:
    assembler = Assembler(encoding((1, 8, 8), averages=300))
    kspace = head((8, 8))
    for average in range(300):
        assembler.add(lines(kspace, average=average))
    found = assembler.kspace()
    assert found.acquired.min() == 255
    np.testing.assert_allclose(found.samples[:, 0], kspace, rtol=1e-4, atol=1e-5 * abs(kspace).max())
    assert any("left out because there are 255 averages" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectory": "radial"}, "radial"),
        ({"recon_matrix": (2, 64, 64)}, "slices"),
        ({"encoded_matrix": (4096,) * 3, "recon_matrix": (4096,) * 3, "is_3d": True}, "GiB"),
        ({"encoded_matrix": (4096, 64, 64), "is_3d": True}, "check matrix and field of view"),
    ],
)
def test_headers_that_cannot_be_right_are_refused(changes: Any, message: Any) -> None:
    with pytest.raises(ReconstructionError, match=message):
        Assembler(encoding(**changes))


def test_recon_matrix_that_does_not_fit_is_refused() -> None:
    """Before a line has come, not after the scan."""
    with pytest.raises(ReconstructionError, match="along y"):
        Assembler(encoding(encoded_fov_mm=(5.0, FIELD / 2, FIELD)))


def test_nothing_yet_is_an_error() -> None:
    with pytest.raises(ReconstructionError, match="no line yet"):
        Assembler(encoding()).kspace()


def test_cancel() -> None:
    assembler = Assembler(encoding())
    assembler.add(lines(head()))
    with pytest.raises(Cancelled):
        reconstruct(assembler.kspace(), progress=lambda fraction, what: False)


def test_last_line_completes() -> None:
    assembler = Assembler(encoding())
    assembler.add(lines(head(), [0, 1]))
    assert not assembler.complete
    assembler.add(lines(head(), [2, 3], flags=np.array([0, LineFlag.LAST_IN_SCAN], np.uint32)))
    assert assembler.complete


def test_preview_shows_the_object_in_its_place(directions: Any) -> None:
    axes = directions * np.array([FIELD / 128, FIELD / 128, 5.0])
    ras = corner_from_centre(axes, (11.0, -7.0, 30.0), (128, 128, 1))
    assembler = Assembler(encoding((1, 128, 128), ras_from_ijk=ras))
    kspace = head((128, 128))
    assembler.add(lines(kspace, np.arange(20, 108)))
    result = preview(assembler.kspace())
    assert result is not None
    coarse = result.image
    assert coarse.array.shape == (1, 88, 128)
    # The voxel N // 2 is the centre of the field of view on both grids.
    np.testing.assert_allclose(apply(coarse.ras_from_ijk, (64, 44, 0)), apply(ras, (64, 64, 0)), atol=1e-9)
    assert smooth_error(coarse.array[0], truth_rss((88, 128))) < RINGING
    assert any("preview" in text for text in result.warnings)


def test_provenance_names_method_versions_and_input() -> None:
    assembler = Assembler(replace(encoding(), protocol="t1"))
    assembler.add(lines(head()))
    result = reconstruct(assembler.kspace())
    assert result.image.name == "t1"
    assert result.provenance["method"] == "fft"
    assert len(result.provenance["input_sha256"]) == 64
    assert "numpy" in result.provenance["versions"]
    assert result.image.metadata["reason"] == result.reason


def test_object_edges_are_sharp() -> None:
    """Truth at full resolution: away from edges the image has the brightness of the object."""
    assembler = Assembler(encoding((1, 128, 128)))
    assembler.add(lines(head((128, 128))))
    image, truth = reconstruct(assembler.kspace()).image.array[0], truth_rss((128, 128))
    inside = binary_erosion(truth > 0.2 * truth.max(), iterations=5)
    np.testing.assert_allclose(np.median(image[inside] / truth[inside]), 1.0, atol=0.01)
