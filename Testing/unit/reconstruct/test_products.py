"""Quantities and corrections of simulated scans against what was put into them, with their provenance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Encoding, Image, KSpace
from IntraopMRIReconstructionLib.errors import Cancelled, ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.ablation import LONGEST_UNSEEN_S
from IntraopMRIReconstructionLib.reconstruct.collect import Collector, collector
from IntraopMRIReconstructionLib.reconstruct.corrections import Corrections, gradients_refused
from IntraopMRIReconstructionLib.reconstruct.gradient_file import read_gradient_coil
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make
from IntraopMRIReconstructionLib.reconstruct.quantities import COOLED_FROM, Heating, LiveThermometer, missing_for
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, grid_points_mm, object_at
from IntraopMRIReconstructionLib.simulate.raw_scans import (
    FIELD_MM,
    RawScan,
    epi_scan,
    heating_scan,
    multi_echo_scan,
    radial_scan,
)

SPOT = (0.0, -60.0)


def collected(scan: RawScan) -> Collector:
    made = collector(scan.encoding)
    for block in scan.blocks:
        made.add(block)
    return made


@cache
def heated() -> RawScan:
    return heating_scan(48, 4, 5)


def spot_ras(encoding: Encoding) -> tuple[float, float, float]:
    """RAS of the spot: the axes of the simulated plane point to the left and to the back."""
    return (-SPOT[0], -SPOT[1], 0.0)


def points(matrix: int) -> np.ndarray:
    return grid_points_mm((matrix, matrix), (FIELD_MM, FIELD_MM))


def test_field_map_in_hz() -> None:
    scan = multi_echo_scan(48, 4)
    result = make(collected(scan), Wanted("field map"))
    at = points(48)
    expected = scan.truth.hz_centre + at @ np.asarray(scan.truth.hz_per_mm)
    inside = np.abs(object_at(at, HEAD_2D)) > 0.3
    found = result.image.array[0]
    assert np.nanmedian(np.abs(found - expected)[inside]) < 1.0
    outside = np.hypot(*np.moveaxis(at, -1, 0)) > 115
    assert np.isnan(found[outside]).all()
    assert result.image.metadata["unit"] == "Hz"
    assert result.method == "B0 field map (fft)"
    assert "echo_times_ms=4.60 6.90 11.50" in result.provenance["parameters"]
    assert result.maps["deviation"].metadata["unit"] == "Hz"


def test_temperature_against_a_reference_frame() -> None:
    scan = heated()
    heating = Heating(spot_ras_mm=spot_ras(scan.encoding), radius_mm=22.0)
    result = make(collected(scan), Wanted("temperature", heating=heating))
    assert scan.truth.temperature_c is not None
    expected, found = scan.truth.temperature_c[-1], result.image.array[0]
    away = np.hypot(*np.moveaxis(points(48) - SPOT, -1, 0))
    core = away < 4
    assert np.abs(found[core] - expected[core]).max() < 3.5  # of 25: a voxel of 5 mm rounds the top of the bell off
    still = (away > 25) & np.isfinite(found)
    assert abs(float(np.median(found[still]))) < 0.2
    assert float(str(result.parameters["drift_removed_c"])) == pytest.approx(2.0, abs=0.3)
    assert result.image.metadata["unit"] == "°C"
    assert np.isnan(found[0, 0])
    dose = result.maps["dose"]
    assert dose.metadata["unit"] == "min"
    assert dose.array[0][core].max() > 100 * dose.array[0][still].max()


def test_temperature_without_a_mark_says_that_drift_stays() -> None:
    result = make(collected(heated()), Wanted("temperature"))
    away = np.hypot(*np.moveaxis(points(48) - SPOT, -1, 0))
    found = result.image.array[0]
    assert float(np.nanmedian(found[away > 25])) == pytest.approx(2.0, abs=0.3)
    assert any("drift of the field is not corrected" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("peak", "noise", "marked"),
    [(-12.0, 0.002, True), (-3.0, 0.002, True), (-12.0, 0.01, True), (-12.0, 0.002, False), (-12.0, 0.01, False)],
)
def test_cooling_is_said_with_its_depth(peak: float, noise: float, marked: bool) -> None:
    scan = heating_scan(64, 4, 3, peak_c=peak, noise=noise)
    heating = Heating(spot_ras_mm=spot_ras(scan.encoding) if marked else None, radius_mm=22.0)
    result = make(collected(scan), Wanted("temperature", heating=heating))
    drift = 0.0 if marked else 2.0  # is left in the map where nobody said what is not cooled
    assert float(str(result.parameters["coldest_c"])) == pytest.approx(peak + drift, abs=1 + 0.15 * abs(peak))
    assert any("tissue has cooled by up to" in text for text in result.warnings)
    assert -4 < float(result.image.metadata[COOLED_FROM]) <= -1


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("drift", [2.0, -2.0])
def test_no_cooling_is_said_where_there_is_none(noise: float, drift: float) -> None:
    for peak in (0.0, 25.0):
        scan = heating_scan(64, 4, 3, peak_c=peak, noise=noise, drift_c=drift)
        for spot in (spot_ras(scan.encoding), None):
            result = make(collected(scan), Wanted("temperature", heating=Heating(spot_ras_mm=spot, radius_mm=22.0)))
            assert "coldest_c" not in result.parameters
            assert COOLED_FROM not in result.image.metadata


def test_numbers_carry_unit_and_definition() -> None:
    result = make(collected(heated()), Wanted("temperature"))
    dose = result.maps["dose"]
    for image, unit, words in ((result.image, "°C", "-0.01 ppm/°C"), (dose, "min", "240 min kill most tissues")):
        assert image.metadata["unit"] == unit
        assert words in image.metadata["definition"]


def test_referenceless_temperature_needs_the_mark_and_nothing_else() -> None:
    scan = heated()
    heating = Heating(spot_ras_mm=spot_ras(scan.encoding), radius_mm=18.0, referenceless=True)
    result = make(collected(scan), Wanted("temperature", heating=heating))
    away = np.hypot(*np.moveaxis(points(48) - SPOT, -1, 0))
    found = result.image.array[0]
    assert np.isnan(found[away > 20]).all()
    assert float(found[away < 4].max()) == pytest.approx(25.0, abs=5.0)
    assert "alone" in result.reason
    with pytest.raises(ReconstructionError, match="mark it"):
        make(collected(scan), Wanted("temperature", heating=Heating(referenceless=True)))


def test_dose_needs_time() -> None:
    scan = heated()
    untimed = replace(scan, encoding=replace(scan.encoding, metadata={}))
    result = make(collected(untimed), Wanted("temperature"))
    assert "dose" not in result.maps
    assert any("dose is not known" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("heating", "message"),
    [
        (Heating(reference=9), "reference frame must be one of 0..4, got 9"),
        (Heating(reference=3, frame=1), "must not be before"),
        (Heating(spot_ras_mm=(900.0, 0.0, 0.0)), "holds nothing"),
        (Heating(spot_ras_mm=(0.0, 0.0, 0.0), radius_mm=900.0), "holds all"),
    ],
)
def test_heating_that_cannot_be(heating: Heating, message: str) -> None:
    with pytest.raises(ReconstructionError, match=message):
        make(collected(heated()), Wanted("temperature", heating=heating))


def test_live_frames_equal_the_series() -> None:
    scan = heated()
    heating = Heating(spot_ras_mm=spot_ras(scan.encoding), radius_mm=22.0)
    live, made = LiveThermometer(heating), collected(scan)
    last = [live.add(made.kspace(0, number)) for number in range(5)][-1]
    series = make(made, Wanted("temperature", heating=heating))
    assert np.allclose(last.image.array, series.image.array, equal_nan=True)


def frames_of(scan: RawScan) -> list[KSpace]:
    made = collected(scan)
    frames = [made.kspace(0, number) for number in range(scan.encoding.repetitions)]
    assert all(isinstance(frame, KSpace) for frame in frames)
    return [frame for frame in frames if isinstance(frame, KSpace)]


def thermometer(scan: RawScan) -> LiveThermometer:
    return LiveThermometer(Heating(spot_ras_mm=spot_ras(scan.encoding), radius_mm=22.0))


@pytest.mark.parametrize("said", ["-1", None])
def test_a_scanner_whose_phase_runs_the_other_way(said: str | None) -> None:
    scan = heated()
    right, other = thermometer(scan), thermometer(scan)
    for frame in frames_of(scan):
        expected = right.numbers(right.add(frame).image)
        # The conjugate of the image, in its place.
        turned = np.roll(np.flip(frame.samples.conj(), axis=(-2, -1)), 1, axis=(-2, -1))
        metadata = dict(frame.encoding.metadata) | ({} if said is None else {"phase_sign": said})
        found = other.numbers(
            other.add(replace(frame, samples=turned, encoding=replace(frame.encoding, metadata=metadata))).image
        )
    if said is None:
        assert found.peak.value is None
        assert "phase of this scanner runs the other way" in found.missing_because
    else:
        assert found.peak.value == pytest.approx(expected.peak.value, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"echo_times_s": (0.0,)}, "0.0 s"),
        ({"echo_times_s": ()}, "echo time"),
        ({"echo_times_s": (12.0,)}, "12.0 s"),
        ({"field_t": None}, "field strength"),
        ({"field_t": 3000.0}, "3000.0 T"),
        ({"metadata": {"scan_for": "temperature", "phase_sign": "down"}}, "phase_sign"),
    ],
)
def test_headers_that_tell_no_temperature(changes: dict[str, object], message: str) -> None:
    encoding = replace(heated().encoding, **changes)  # type: ignore[arg-type]
    assert message in missing_for("temperature", encoding)
    frame = frames_of(heated())[0]
    with pytest.raises(ReconstructionError, match=message):
        LiveThermometer(Heating()).add(replace(frame, encoding=encoding))


def test_frames_that_cannot_be_held_against_the_reference_are_refused() -> None:
    scan = heated()
    live, frames = thermometer(scan), frames_of(scan)
    live.add(frames[0])
    newest = live.add(frames[1]).image
    assert live.numbers(newest).peak.value is not None
    elsewhere = frames[2].encoding.ras_from_ijk.copy()
    elsewhere[0, 3] += 2.0
    for changes, words in (
        ({"ras_from_ijk": elsewhere}, "place of the scan changed"),
        ({"echo_times_s": (0.02,)}, "echo times s of the scan changed"),
        ({"field_t": 7.0}, "field t of the scan changed"),
    ):
        with pytest.raises(ReconstructionError, match=words):
            live.add(replace(frames[2], encoding=replace(frames[2].encoding, **changes)))
        assert live.numbers(newest).missing_because.startswith(words)
    with pytest.raises(ReconstructionError, match="frame 1 came after frame 1"):
        live.add(frames[1])
    # One that was taken as the reference was goes on.
    assert live.numbers(live.add(frames[2]).image).dose.value is not None
    with pytest.raises(ReconstructionError, match="frame 0 came after frame 2"):
        live.add(frames[0])
    series = thermometer(scan)
    for frame in frames[:3]:
        expected = series.numbers(series.add(frame).image)
    assert live.numbers(live.add(frames[3]).image).dose.value != expected.dose.value


def test_a_coil_that_dies_asks_for_a_new_reference() -> None:
    """Its image was combined with other weights, whose phase is another."""
    scan, made = heated(), collector(heated().encoding)
    for block in scan.blocks:
        samples = block.samples.copy()
        if block.repetition >= 2:
            samples[:, 1] = 0.0
        made.add(replace(block, samples=samples))
    live = thermometer(scan)
    live.add(frames_of(scan)[0])
    with pytest.raises(ReconstructionError, match="coils of the scan changed since the reference"):
        live.add(made.kspace(0, 2))


def test_frames_that_are_missing() -> None:
    scan = heating_scan(48, 4, 9)
    each = float(scan.encoding.metadata["frame_interval_s"])
    assert each <= LONGEST_UNSEEN_S
    live, frames = thermometer(scan), frames_of(scan)
    whole = thermometer(scan)
    for frame in frames:
        result = whole.add(frame)
    all_seen = whole.numbers(result.image)
    for number in (0, 1, 2, 4, 5, 6, 7, 8):
        found = live.numbers(live.add(frames[number]).image)
    assert all_seen.dose.value is not None
    assert found.dose.interval is not None
    assert found.dose.interval[0] <= all_seen.dose.value <= found.dose.interval[1]
    assert any(f"frames of {each:.3g} s did not come" in note for note in found.notes)
    long = thermometer(scan)
    for number in (0, 1, 2, 3):
        long.add(frames[number])
    late = long.add(frames[8])
    found = long.numbers(late.image)
    assert found.peak.value == pytest.approx(all_seen.peak.value, abs=0.5)
    assert found.dose.value is None
    assert "dose" not in late.maps
    assert any("the dose is not known: frames of 16 s" in text for text in late.warnings)


def test_a_clock_that_was_set_back_takes_the_dose_away() -> None:
    scan = heated()
    untimed = {key: value for key, value in scan.encoding.metadata.items() if key != "frame_interval_s"}
    live = thermometer(scan)
    for frame, time_s in zip(frames_of(scan), (1e9, 1e9 + 4, 1e9 + 8, 1e9 - 3600, 1e9 - 3596), strict=True):
        encoding = replace(frame.encoding, metadata=untimed)
        result = live.add(replace(frame, encoding=encoding, acquired_utc_s=time_s))
        numbers = live.numbers(result.image)
        assert numbers.peak.value is not None
        assert (numbers.dose.value is not None) == (time_s >= 1e9)
        assert ("dose" in result.maps) == (time_s >= 1e9)
    assert "clock of frame 3 is missing or was set back" in numbers.dose.missing_because


def test_spectral_bins_together() -> None:
    scan = multi_echo_scan(48, 4, hz_per_mm=(0.0, 0.0), hz_centre=0.0)
    centres = "1000 -1000 0"
    named = replace(scan, encoding=replace(scan.encoding, metadata={"bin_centres_hz": centres}))
    result = make(collected(named), Wanted("spectral bins"))
    one = make(collected(scan), Wanted()).image.array
    assert np.allclose(result.image.array, one * np.sqrt(3), rtol=0.2, atol=0.05)
    # All three bins show the same: the centroid is their middle.
    assert (
        float(np.nanmax(np.abs(result.maps["off-resonance"].array))) < 100
    )  # of 2000 Hz, by noise and rounding at edges
    assert "-1000 0 1000" in result.provenance["parameters"]


@pytest.mark.parametrize(
    ("quantity", "message"),
    [("field map", "two echoes"), ("temperature", "before heating"), ("spectral bins", "centre frequency")],
)
def test_what_the_data_do_not_allow_is_not_made(quantity: str, message: str) -> None:
    scan = radial_scan(32, 2, 40)
    assert message in missing_for(quantity, scan.encoding)  # type: ignore[arg-type]
    with pytest.raises(ReconstructionError, match=message):
        make(collected(scan), Wanted(quantity))  # type: ignore[arg-type]


def test_methods_without_phase_are_refused() -> None:
    with pytest.raises(ReconstructionError, match="keeps no phase"):
        make(collected(heated()), Wanted("temperature", "tv"))


def test_opposed_blips_straighten_epi() -> None:
    up, down = (make(collected(epi_scan(64, 4, shift_voxels=2.5, blips=blips)), Wanted()).image for blips in (1, -1))
    plain = make(collected(epi_scan(64, 4)), Wanted()).image
    wanted = Wanted(corrections=Corrections(opposed=down))
    result = make(collected(epi_scan(64, 4, shift_voxels=2.5)), wanted)

    def off(image: Image) -> float:
        return float(np.linalg.norm(image.array - plain.array) / np.linalg.norm(plain.array))

    assert off(result.image) < 0.55 * off(up)
    assert "opposed blips" in result.provenance["corrections"]
    assert result.image.metadata["corrections"] == result.provenance["corrections"]
    shifted = replace(down, ras_from_ijk=down.ras_from_ijk @ np.diag([2.0, 1.0, 1.0, 1.0]))
    with pytest.raises(ReconstructionError, match="does not lie on the grid"):
        make(collected(epi_scan(64, 4)), Wanted(corrections=Corrections(opposed=shifted)))


def test_an_opposed_image_with_the_axis_turned_round_is_taken_as_it_lies() -> None:
    scan = epi_scan(64, 4, shift_voxels=2.5)
    down = make(collected(epi_scan(64, 4, shift_voxels=2.5, blips=-1)), Wanted()).image
    turn = np.eye(4)
    turn[1, 1], turn[1, 3] = -1.0, 63.0
    turned = Image(down.array[:, ::-1].copy(), down.ras_from_ijk @ turn)
    results = [make(collected(scan), Wanted(corrections=Corrections(opposed=other))) for other in (down, turned)]
    assert np.allclose(results[0].image.array, results[1].image.array)


@pytest.mark.parametrize("bias", ["quick", "n4"])
def test_bias_is_evened_out_and_recorded(bias: str) -> None:
    scan = collected(heated())
    plain = make(scan, Wanted()).image.array[0]
    result = make(scan, Wanted(corrections=Corrections(bias=bias)))  # type: ignore[arg-type]
    brain = (np.abs(object_at(points(48), HEAD_2D)) - 0.55 < 0.01) & (np.abs(object_at(points(48), HEAD_2D)) > 0.5)
    spread = [float(image[brain].std() / image[brain].mean()) for image in (plain, result.image.array[0])]
    assert spread[1] < spread[0]
    assert "bias field" in result.provenance["corrections"]


TABLE = """ # a table as vendors write it
 0.25 m = R0, lnorm = 4? A(1,0) = B(1,1) = A(1,1) = 0;
  1 A( 3, 0)         -0.08000000         z
  2 A( 3, 1)          0.02000000         x
  3 B( 3, 1)          0.02000000         y
"""


def test_gradient_table_is_read_and_used(tmp_path: Path) -> None:
    path = tmp_path / "coeff.grad"
    path.write_text(TABLE)
    coil = read_gradient_coil(path)
    assert (coil.radius_mm, coil.z[3, 0], coil.y[3, 1]) == (250.0, (-0.08, 0.0), (0.0, 0.02))
    scan = heated()
    known = replace(scan.encoding, metadata={"source": "MRD", "patient_position": "HFS"})
    wanted = Wanted(corrections=Corrections(gradients=path))
    result = make(collected(replace(scan, encoding=known)), wanted)
    assert "coeff.grad" in result.provenance["corrections"]
    assert not np.allclose(result.image.array, make(collected(scan), Wanted()).image.array, atol=1e-3)
    # A slice far from the isocentre keeps its signal.
    away = known.ras_from_ijk.copy()
    away[2, 3] += 70.0
    far = make(collected(replace(scan, encoding=replace(known, ras_from_ijk=away))), wanted)
    assert far.image.array.sum() == pytest.approx(result.image.array.sum(), rel=0.1)
    with pytest.raises(ReconstructionError, match="isocentre"):
        make(collected(scan), wanted)
    assert "FFS" in gradients_refused(replace(known, metadata={"source": "MRD", "patient_position": "FFS"}))
    assumed = {"source": "MRD", "patient_position": "HFS", "geometry": "assumed axial: nobody knows"}
    assert "assumed axial" in gradients_refused(replace(known, metadata=assumed))


def test_corrections_are_for_images() -> None:
    with pytest.raises(ReconstructionError, match="for images"):
        make(collected(heated()), Wanted("temperature", corrections=Corrections(bias="quick")))


@pytest.mark.parametrize("quantity", ["image", "temperature"])
def test_stops_when_told(quantity: str) -> None:
    seen: list[float] = []

    def stop(fraction: float, _what: str) -> bool:
        seen.append(fraction)
        return len(seen) < 3

    with pytest.raises(Cancelled):
        make(collected(heated()), Wanted(quantity), stop)  # type: ignore[arg-type]
    assert all(0 <= fraction <= 1 for fraction in seen)


@pytest.mark.parametrize(("lost", "value"), [(5, np.nan), (40, 0.0)])
def test_a_lost_line_away_from_the_middle_is_said_and_the_temperature_stays(lost: int, value: float) -> None:
    scan = heated()
    heating = Heating(spot_ras_mm=spot_ras(scan.encoding), radius_mm=22.0)
    whole = make(collected(scan), Wanted("temperature", heating=heating)).image.array[0]
    last = scan.blocks[-1]
    samples = last.samples.copy()
    samples[lost] = value
    broken = replace(scan, blocks=(*scan.blocks[:-1], replace(last, samples=samples)))
    result = make(collected(broken), Wanted("temperature", heating=heating))
    assert any("1 planned lines are missing and count as zero" in text for text in result.warnings)
    assert "none of the middle of k-space" in result.reason
    core = np.hypot(*np.moveaxis(points(48) - SPOT, -1, 0)) < 10
    assert np.nanmax(np.abs(result.image.array[0] - whole)[core]) < 3.0  # of 25


def test_a_lost_line_of_the_middle_is_refused() -> None:
    scan = heated()
    samples = scan.blocks[-1].samples.copy()
    samples[25] = np.nan
    broken = replace(scan, blocks=(*scan.blocks[:-1], replace(scan.blocks[-1], samples=samples)))
    with pytest.raises(ReconstructionError, match="keeps no phase"):
        make(collected(broken), Wanted("temperature"))
