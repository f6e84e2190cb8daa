"""Numbers of an ablation against temperatures that are known: intervals that hold, and no number without a basis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.reconstruct.ablation import (
    Marked,
    has_moved,
    heat_numbers,
    hottest_place,
    in_structure,
    marked,
    told,
)
from IntraopMRIReconstructionLib.reconstruct.thermometry import Heat, Thermometer, radians_per_c

SHAPE = (3, 64, 64)
FIELD_T, ECHO_S = 3.0, 0.012
PER_C = radians_per_c(FIELD_T, ECHO_S)
SPACING = np.array([2.0, 2.0, 4.0])
RADIUS_MM = 20.0


def grid(directions: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * SPACING
    matrix[:3, 3] = (12.0, -30.0, 7.0)
    return matrix


def points(matrix: np.ndarray) -> np.ndarray:
    k, j, i = np.indices(SHAPE)
    return np.asarray(apply(matrix, np.stack([i, j, k], axis=-1).astype(float)))


class Bench:
    """A slab of tissue that is heated about its middle, with noise of its own."""

    def __init__(self, directions: np.ndarray | None = None, noise: float = 0.02, seed: int = 1) -> None:
        self.matrix = grid(np.eye(3) if directions is None else directions)
        self.spot = apply(self.matrix, np.array([30.0, 34.0, 1.0]))
        self.away = np.linalg.norm(points(self.matrix) - self.spot, axis=-1)
        self.mark: Marked = marked(self.matrix, SHAPE, self.spot, RADIUS_MM)
        self.image = Image(np.zeros(SHAPE, np.float32), self.matrix, "map")
        self._rng, self._noise = np.random.default_rng(seed), noise
        y, x = np.indices(SHAPE[1:])
        self.tissue = (1 + 0.2 * np.sin(x / 9) * np.cos(y / 7)) * np.ones(SHAPE)
        self.phase = 0.05 * x - 0.03 * y
        self.drift = 1 + 0.3 * (x - 32) / 32

    def rise(self, peak_c: float) -> np.ndarray:
        return np.asarray(peak_c * np.exp(-(self.away**2) / (2 * 6.0**2)))

    def scan(self, peak_c: float, drift_c: float = 0.0, tissue: np.ndarray | None = None) -> np.ndarray:
        turned = self.phase + PER_C * (self.rise(peak_c) + drift_c * self.drift)
        noise = self._rng.standard_normal((2, *SHAPE)) * self._noise
        return np.asarray((self.tissue if tissue is None else tissue) * np.exp(1j * turned) + noise[0] + 1j * noise[1])

    def thermometer(self) -> Thermometer:
        return Thermometer(self.scan(0.0), FIELD_T, ECHO_S, unheated=~self.mark.inside)

    def numbers(self, scan: Thermometer, heat: Heat, moved_in: int | None = None):  # type: ignore[no-untyped-def]
        return heat_numbers(heat, scan.tissue, self.mark, self.image, 37.0, moved_in)


def heated(
    bench: Bench, peaks: tuple[float, ...] = (8.0, 16.0, 22.0), drift_c: float = 5.0
) -> tuple[Thermometer, Heat]:
    scan = bench.thermometer()
    heat = scan.add(bench.scan(0.0), 0.0)
    for number, peak in enumerate(peaks, 1):
        heat = scan.add(bench.scan(peak, drift_c * number / len(peaks)), 20.0 * number)
    return scan, heat


def test_peak_dose_and_volume_in_any_orientation(directions: np.ndarray) -> None:
    bench = Bench(directions)
    scan, heat = heated(bench)
    found = bench.numbers(scan, heat)
    assert found.peak.value == pytest.approx(37 + 22, abs=1.0)
    assert heat.drift_c == pytest.approx(5.0, abs=0.3)
    dose = sum(2.0 ** (37 + bench.rise(peak) - 43) * 20 / 60 for peak in (16.0, 22.0))
    dose += np.where(bench.rise(8.0) >= 6, 0.5, 0.25) ** (6 - bench.rise(8.0)) * 20 / 60
    true_cm3 = float((dose >= 240).sum()) * bench.image.voxel_volume_ml
    assert found.volume.interval is not None
    assert found.volume.interval[0] * 0.8 < true_cm3 < found.volume.interval[1] * 1.2
    assert found.dose.interval is not None
    assert found.dose.interval[0] < dose.max() < found.dose.interval[1]
    assert found.lethal is not None
    centre = apply(found.lethal.ras_from_ijk, np.argwhere(found.lethal.array)[:, ::-1].mean(axis=0))
    assert np.linalg.norm(centre - bench.spot) < 0.7
    place = hottest_place(heat, bench.image)
    assert place is not None
    assert np.linalg.norm(place - bench.spot) < 4.1
    assert told(found.peak).endswith(" °C")


def test_the_interval_of_the_peak_holds_nine_times_in_ten() -> None:
    held, spreads = 0, []
    for seed in range(60):
        bench = Bench(noise=0.03, seed=seed)
        scan, heat = heated(bench, (10.0, 20.0))
        peak = bench.numbers(scan, heat).peak
        assert peak.interval is not None
        true_c = 57.0
        held += peak.interval[0] <= true_c <= peak.interval[1]
        spreads.append(peak.interval[1] - peak.interval[0])
    assert held >= 54
    assert np.mean(spreads) < 3.0, "an interval that holds everything says nothing"


def test_tissue_that_is_not_heated_has_no_peak_of_noise() -> None:
    excess = []
    for seed in range(20):
        bench = Bench(noise=0.04, seed=seed)
        scan, heat = heated(bench, (0.0, 0.0))
        found = bench.numbers(scan, heat)
        assert found.peak.value is not None
        excess.append(found.peak.value - 37.0)
        assert found.lethal is None
        assert found.volume.value == 0.0
    # The hottest of 900 voxels would be 2.6 C too hot.
    assert np.mean(excess) < 1.2
    assert hottest_place(heat, bench.image) is None


def test_another_mark_tells_all_frames_anew() -> None:
    bench = Bench()
    heat = heated(bench)[1]
    late = Thermometer(Bench().scan(0.0), FIELD_T, ECHO_S)
    again = Bench()
    again.scan(0.0)
    late.add(again.scan(0.0), 0.0)
    for number, peak in enumerate((8.0, 16.0, 22.0), 1):
        blind = late.add(again.scan(peak, 5.0 * number / 3), 20.0 * number)
    assert blind.deviation_c is None
    missing = heat_numbers(blind, late.tissue, None, bench.image, 37.0)
    assert missing.missing_because == "drift not corrected: mark the heated spot"
    frames = late.told(~bench.mark.inside, 36.0)
    assert len(frames) == 4
    np.testing.assert_allclose(frames[-1].temperature_c, heat.temperature_c - 1.0, atol=1e-4)
    np.testing.assert_allclose(late.told(~bench.mark.inside, 37.0)[-1].dose_min, heat.dose_min, rtol=1e-4, atol=1e-6)
    with pytest.raises(ReconstructionError, match="at least 16 voxels of tissue away"):
        late.told(np.zeros(SHAPE, bool), 37.0)
    np.testing.assert_allclose(late.told(~bench.mark.inside, 37.0)[-1].temperature_c, heat.temperature_c, atol=1e-4)


def test_signal_that_goes_takes_the_numbers_with_it() -> None:
    bench = Bench()
    scan, _heat = heated(bench)
    gas = bench.tissue * np.where(bench.away < 9, 0.02, 1.0)
    for number, tissue in enumerate((gas, bench.tissue), 5):
        heat = scan.add(bench.scan(22.0, 5.0, tissue), 20.0 * number)
        found = bench.numbers(scan, heat)
        # Once lost, turns of the phase were not counted: a signal that returns brings no temperature.
        assert "signal lost in" in found.missing_because
        assert np.isnan(heat.temperature_c[bench.away < 8]).all()
    assert found.peak.value is None


def test_a_little_lost_widens_the_volume() -> None:
    bench = Bench()
    scan, before = heated(bench)
    hole = bench.away < 3
    heat = scan.add(bench.scan(22.0, 5.0, bench.tissue * np.where(hole, 0.02, 1.0)), 80.0)
    found = bench.numbers(scan, heat)
    assert found.volume.interval is not None
    assert found.volume.interval[1] >= hole.sum() * bench.image.voxel_volume_ml
    assert any("lost their signal" in note for note in found.notes)
    # The hottest place is what was lost.
    assert found.peak.value is None
    assert found.dose.value is None
    assert "may be hotter" in found.peak.missing_because
    elsewhere = heated(bench)[0]
    beside = np.linalg.norm(points(bench.matrix) - bench.spot - [0, 14, 0], axis=-1) < 3
    heat = elsewhere.add(bench.scan(22.0, 5.0, bench.tissue * np.where(beside, 0.02, 1.0)), 80.0)
    assert bench.numbers(elsewhere, heat).peak.value == pytest.approx(59.0, abs=1.0)
    label = Image(beside.astype(np.uint8), bench.matrix, "tract")
    assert "voxels of tract have lost their signal" in in_structure(heat, bench.image, "tract", (label,), 3.0)[2]
    assert not before.lost[bench.mark.inside].any()


def test_a_phase_that_may_have_wrapped_is_lost() -> None:
    bench = Bench()
    scan = bench.thermometer()
    scan.add(bench.scan(0.0), 0.0)
    heat = scan.add(bench.scan(0.9 * scan.unambiguous_c), 1.0)
    assert heat.lost[bench.away < 1].all()
    assert np.isnan(heat.temperature_c[bench.away < 1]).all()


def test_motion_is_noticed_and_noise_is_none() -> None:
    bench = Bench(noise=0.05)
    scan, heat = heated(bench)
    assert not has_moved(heat)
    shifted = np.roll(bench.tissue * (1 + (np.indices(SHAPE)[2] > 40)), 1, axis=2)
    still = Thermometer(bench.scan(0.0, tissue=bench.tissue * (1 + (np.indices(SHAPE)[2] > 40))), FIELD_T, ECHO_S,
                        unheated=~bench.mark.inside)  # fmt: skip
    assert has_moved(still.add(bench.scan(0.0, tissue=shifted), 0.0))
    found = bench.numbers(scan, heat, moved_in=7)
    assert found.missing_because.startswith("something moved in frame 7")
    assert all(m.value is None and m.interval is None for m in found.measurements)


def test_a_mark_that_is_too_small_or_beside_tissue_says_so() -> None:
    bench = Bench()
    scan = Thermometer(bench.scan(0.0), FIELD_T, ECHO_S, unheated=bench.away > 6)
    scan.add(bench.scan(0.0), 0.0)
    heat = scan.add(bench.scan(22.0), 20.0)
    small = replace(bench.mark, inside=bench.away <= 6, beside=(bench.away > 6) & (bench.away <= 9))
    found = heat_numbers(heat, scan.tissue, small, bench.image, 37.0)
    assert any("make the radius larger" in note for note in found.notes)
    dark = heat_numbers(heat, np.zeros(SHAPE, bool), bench.mark, bench.image, 37.0)
    assert dark.missing_because.startswith("no signal in most of the mark")
    untimed = found.without_dose("the scan does not say how long a frame takes")
    assert untimed.peak.value is not None
    assert untimed.volume.value is None
    assert "how long a frame takes" in untimed.volume.missing_because
    for spot, words in (((900.0, 0.0, 0.0), "holds nothing"), (tuple(bench.spot), "holds all")):
        with pytest.raises(ReconstructionError, match=words):
            marked(bench.matrix, SHAPE, spot, 1.0 if words == "holds nothing" else 500.0)


def test_a_structure_is_judged_by_its_hottest_voxel(directions: np.ndarray) -> None:
    bench = Bench(directions)
    _scan, heat = heated(bench)
    label = np.zeros(SHAPE, np.uint8)
    label[1, 34, 36:44] = 1
    where = Image(label, bench.matrix, "tract")
    temperature, dose, note = in_structure(heat, bench.image, "tract", (where,), 0.0)
    true_c = 37 + float(bench.rise(22.0)[label > 0].max())
    assert temperature.value == pytest.approx(true_c, abs=1.2)
    assert dose.value is not None
    assert note == ""
    nearer, _dose, _note = in_structure(heat, bench.image, "tract", (where,), 6.0)
    assert nearer.value is not None
    assert temperature.value is not None
    assert nearer.value > temperature.value + 5, "it may be nearer by the error of the registration"
    far = bench.matrix.copy()
    far[:3, 3] += 500
    gone, _dose, note = in_structure(heat, bench.image, "tract", (Image(label, far),), 2.0)
    assert gone.value is None
    assert "not in the slices" in note
    half = np.zeros(SHAPE, np.uint8)
    half[:, 30] = 1
    longer = bench.matrix @ np.diag([1.0, 1.0, 2.0, 1.0])
    assert "% of tract are in the slices" in in_structure(heat, bench.image, "tract", (Image(half, longer),), 0.0)[2]


def test_noise_beyond_measure_gives_no_number() -> None:
    bench = Bench(noise=0.4)
    scan, heat = heated(bench)
    found = bench.numbers(scan, heat)
    assert found.missing_because.startswith(("too noisy", "signal lost", "no signal"))
    assert found.peak.value is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mark_that_cools_has_no_numbers_of_heat(sign: int) -> None:
    """It is frozen, or the scanner's phase runs the other way: 62 C would be told as 12 C."""
    bench = Bench()
    conjugate = sign < 0
    scan = bench.thermometer()
    for number, peak in enumerate((0.0, 12.0, 25.0)):
        turned = bench.scan(-sign * peak if not conjugate else peak)
        if conjugate:
            turned = np.conj(turned)
        if conjugate and number == 0:
            scan = Thermometer(np.conj(bench.scan(0.0)), FIELD_T, ECHO_S, unheated=~bench.mark.inside)
        heat = scan.add(turned, 10.0 * number)
    found = bench.numbers(scan, heat)
    assert found.missing_because.startswith("the mark cools by up to 2")
    assert "phase_sign" in found.missing_because
    assert all(m.value is None for m in found.measurements)


def test_frames_that_did_not_come_are_said_and_then_take_the_dose_away() -> None:
    bench = Bench()
    scan, heat = heated(bench)
    short = bench.numbers(scan, scan.add(bench.scan(22.0, 5.0), 90.0, 9.0))
    assert any("frames of 9 s did not come" in note for note in short.notes)
    assert short.dose.value is not None
    long = bench.numbers(scan, scan.add(bench.scan(22.0, 5.0), 120.0, 21.0))
    assert long.peak.value is not None
    assert long.lethal is None
    for number in (long.dose, long.volume):
        assert number.value is None
        assert "frames of 21 s at a stretch did not come" in number.missing_because
    assert bench.numbers(scan, heat).dose.value is not None


def test_the_top_of_a_slice_that_is_thick_is_put_back() -> None:
    """Voxels hold the mean over their slice: 0.5 C of 25 is missing in the middle of the spot."""
    bench, fine = Bench(noise=1e-4), 16
    k = np.indices(SHAPE)[0]
    through = ((np.arange(fine) + 0.5) / fine - 0.5)[:, None, None, None]
    flat = bench.away**2 - ((k - 1) * SPACING[2]) ** 2
    away2 = flat + ((k - 1 + through) * SPACING[2]) ** 2
    mean = (25 * np.exp(-away2 / (2 * 6.0**2))).mean(axis=0)
    image = np.asarray(bench.tissue * np.exp(1j * (bench.phase + PER_C * mean)))
    scan = bench.thermometer()
    scan.add(bench.scan(0.0), 0.0)
    heat = scan.add(image, 20.0)
    thick = replace(bench.mark, thickness=1.0)
    plain, corrected = (heat_numbers(heat, scan.tissue, mark, bench.image, 37.0).peak for mark in (bench.mark, thick))
    assert plain.value is not None
    assert corrected.value is not None
    assert mean.max() < 24.6
    assert plain.value == pytest.approx(37 + mean.max(), abs=0.1)
    assert corrected.value == pytest.approx(37 + 25, abs=0.2)


def test_a_peak_at_the_edge_of_the_picture_or_beside_a_dark_voxel_is_that_of_its_voxel() -> None:
    bench = Bench()
    tissue = bench.tissue.copy()
    tissue[1, 34, 31] = 0.001
    scan = Thermometer(bench.scan(0.0, tissue=tissue), FIELD_T, ECHO_S, unheated=~bench.mark.inside)
    scan.add(bench.scan(0.0, tissue=tissue), 0.0)
    found = bench.numbers(scan, scan.add(bench.scan(20.0, tissue=tissue), 10.0))
    assert found.peak.value == pytest.approx(57.0, abs=2.0)


def test_dim_tissue_that_noise_takes_does_not_hide_the_peak() -> None:
    bench = Bench()
    dim = bench.tissue.copy()
    dim[1, 33:36, 32] = 0.14
    scan = Thermometer(bench.scan(0.0, tissue=dim), FIELD_T, ECHO_S, unheated=~bench.mark.inside)
    scan.add(bench.scan(0.0, tissue=dim), 0.0)
    dim[1, 33:36, 32] = 0.05
    heat = scan.add(bench.scan(20.0, tissue=dim), 10.0)
    assert heat.lost.any()
    assert not heat.hidden.any()
    assert bench.numbers(scan, heat).peak.value is not None
