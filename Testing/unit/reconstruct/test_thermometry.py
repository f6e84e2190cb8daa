from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct import thermometry
from IntraopMRIReconstructionLib.reconstruct.thermometry import Thermometer, cem43_minutes, referenceless

SHAPE = (3, 48, 56)
FIELD_T, ECHO_S = 3.0, 0.012
#: 2 pi * 42.577 MHz/T * 3 T * -0.01 ppm * 12 ms, worked out by hand.
RADIANS_PER_C = -0.096307


def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return z, y, x


def heat(peak_c: float) -> np.ndarray:
    _, y, x = grid()
    return peak_c * np.exp(-(x**2 + y**2) / 0.03)


def tissue() -> np.ndarray:
    """Complex image with phase of its own, beyond a turn."""
    z, y, x = grid()
    return np.asarray((1 + 0.2 * x) * np.exp(1j * (3 * x - 4 * y + 2 * x * y + 1.5 * x**2 + 0.3 * z)))


def heated(base: np.ndarray, change_c: np.ndarray, drift: np.ndarray | float = 0.0, sign: int = 1) -> np.ndarray:
    return np.asarray(base * np.exp(1j * (sign * RADIANS_PER_C * change_c + drift)))


def away() -> np.ndarray:
    _, y, x = grid()
    return np.asarray(x**2 + y**2 > 0.4)


def test_phase_of_a_degree() -> None:
    assert thermometry.radians_per_c(FIELD_T, ECHO_S) == pytest.approx(RADIANS_PER_C, rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_known_temperatures(sign: int) -> None:
    base = tissue()
    scan = Thermometer(base, FIELD_T, ECHO_S, phase_sign=sign)
    for number, peak in enumerate((0.0, 7.0, 15.0)):
        found = scan.add(heated(base, heat(peak), sign=sign), 2.0 * number)
        assert np.abs(found.temperature_c - (37 + heat(peak))).max() < 1e-3
    assert found.drift_c == 0
    assert found.noise_c is None


def test_heating_beyond_one_turn_is_followed() -> None:
    base = tissue()
    scan = Thermometer(base, FIELD_T, ECHO_S)
    assert scan.unambiguous_c == pytest.approx(np.pi / -RADIANS_PER_C, rel=1e-4)
    for number, peak in enumerate(np.linspace(0, 60, 9)):
        found = scan.add(heated(base, heat(peak)), float(number))
    assert np.abs(found.temperature_c - (37 + heat(60.0))).max() < 1e-2


@pytest.mark.parametrize("jump_c", [38.0, 45.0, 60.0])
@pytest.mark.parametrize("sigma_voxels", [1.5, 3.4])
def test_a_turn_that_may_have_been_the_other_way_gives_no_temperature(jump_c: float, sigma_voxels: float) -> None:
    base, (_, y, x) = tissue(), grid()
    near = np.exp(-((x * 28) ** 2 + (y * 24) ** 2) / (2 * sigma_voxels**2))
    scan = Thermometer(base, FIELD_T, ECHO_S)
    scan.add(base, 0.0)
    found = scan.add(heated(base, jump_c * near), 1.0)
    aliased = jump_c * near > np.pi / -RADIANS_PER_C
    assert aliased.any()
    assert np.isnan(found.temperature_c[aliased]).all(), "half a turn more looks like half a turn less"
    assert found.lost[aliased].all()
    known = np.isfinite(found.temperature_c)
    assert np.abs(found.temperature_c - 37 - jump_c * near)[known].max() < 1e-2
    assert known.mean() > 0.95
    # What was lost stays lost: nobody knows how many turns it made.
    assert np.isnan(scan.add(base, 2.0).temperature_c[aliased]).all()


def test_quick_heating_below_half_a_turn_is_not_lost() -> None:
    base = tissue()
    scan = Thermometer(base, FIELD_T, ECHO_S)
    for number, peak in enumerate((0.0, 26.0, 52.0, 26.0)):
        found = scan.add(heated(base, heat(peak), drift=2.5 * number), float(number))
        assert not found.lost.any()


def test_drift_of_the_field_is_taken_away() -> None:
    base, (_, y, x) = tissue(), grid()
    plain, corrected = Thermometer(base, FIELD_T, ECHO_S), Thermometer(base, FIELD_T, ECHO_S, unheated=away())
    for number in range(1, 9):
        image = heated(base, heat(2.5 * number), drift=0.15 * number * (1 + 0.5 * x - 0.4 * y))
        without, found = plain.add(image, 3.0 * number), corrected.add(image, 3.0 * number)
    assert np.abs(without.temperature_c - (37 + heat(20.0))).max() > 5
    assert np.abs(found.temperature_c - (37 + heat(20.0))).max() < 0.05
    assert found.drift_c == pytest.approx(8 * 0.15 / RADIANS_PER_C, rel=0.05)
    assert found.noise_c is not None
    assert found.noise_c < 0.05


def test_noise_is_measured_where_nothing_is_heated() -> None:
    rng = np.random.default_rng(4)
    base = tissue()
    noise = rng.standard_normal((2, *SHAPE)).astype(np.complex128) + 1j * rng.standard_normal((2, *SHAPE))
    first, second = np.asarray(base + 0.02 * noise, dtype=np.complex128)
    found = Thermometer(first, FIELD_T, ECHO_S, unheated=away()).add(second, 0.0)
    assert found.noise_c == pytest.approx(np.sqrt(2) * 0.02 / -RADIANS_PER_C, rel=0.1)


def test_dark_voxels_have_no_temperature() -> None:
    base = tissue()
    base[:, :10] *= 0.01
    found = Thermometer(base, FIELD_T, ECHO_S).add(base, 0.0)
    assert np.isnan(found.temperature_c[:, :10]).all()
    assert np.isfinite(found.temperature_c[:, 10:]).all()
    assert (found.dose_min[:, :10] == 0).all()


def test_dose() -> None:
    found = cem43_minutes(np.array([43.0, 44.0, 53.0, 42.0, 37.0, np.nan]), 60.0)
    assert np.allclose(found, [1, 2, 1024, 0.25, 0.25**6, 0])
    base = tissue()
    scan = Thermometer(base, FIELD_T, ECHO_S)
    for time_s in (0.0, 30.0, 90.0):
        state = scan.add(heated(base, np.full(SHAPE, 8.0)), time_s)
    assert np.allclose(state.dose_min, 1.5 * 4, rtol=1e-3)


def test_time_that_nobody_saw_is_between_the_frames_about_it() -> None:
    base = tissue()
    scan = Thermometer(base, FIELD_T, ECHO_S, unheated=away())
    seen = [scan.add(heated(base, heat(peak)), time_s, unseen) for peak, time_s, unseen in
            ((0.0, 0.0, 0.0), (12.0, 10.0, 0.0), (16.0, 60.0, 40.0), (16.0, 70.0, 0.0))]  # fmt: skip
    at = 1, 24, 28
    cooler, hotter = (float(cem43_minutes(37 + heat(peak), 60.0)[at]) for peak in (12.0, 16.0))
    assert seen[1].dose_range_min is not None
    expected = (10 * cooler + 10 * hotter + 40 * (cooler + hotter) / 2 + 10 * hotter) / 60
    assert seen[-1].dose_min[at] == pytest.approx(expected, rel=1e-3)
    assert seen[-1].dose_range_min is not None
    low, high = (float(end[at]) for end in seen[-1].dose_range_min)
    assert low == pytest.approx((10 * cooler + 10 * hotter + 40 * cooler + 10 * hotter) / 60, rel=1e-2)
    assert high == pytest.approx((10 * cooler + 10 * hotter + 40 * hotter + 10 * hotter) / 60, rel=1e-2)
    assert [heat.unseen_s for heat in seen] == [0.0, 0.0, 40.0, 40.0]
    assert seen[-1].longest_unseen_s == 40.0
    again = scan.told(away(), 37.0)[-1]
    np.testing.assert_allclose(again.dose_min, seen[-1].dose_min, rtol=1e-5)
    assert again.unseen_s == 40.0


def test_the_dose_of_a_frame_is_that_of_its_temperature() -> None:
    base = tissue()
    scan = Thermometer(base, FIELD_T, ECHO_S)
    change = np.linspace(-20, 28, base.size).reshape(SHAPE)
    scan.add(heated(base, change / 2), 0.0)
    found = scan.add(heated(base, change), 30.0)
    np.testing.assert_allclose(found.dose_min, cem43_minutes(found.temperature_c, 30.0), rtol=1e-4, atol=1e-9)


def test_referenceless() -> None:
    inside = ~away()
    found = referenceless(heated(tissue(), heat(12.0)), inside, FIELD_T, ECHO_S)
    assert np.isnan(found[~inside]).all()
    # Heat that reaches beyond the region counts as background.
    assert np.abs(found[inside] - heat(12.0)[inside]).max() < 0.1


def test_refused() -> None:
    base = tissue()
    with pytest.raises(ReconstructionError, match=r"field in tesla .* got 3\.0 T and 12 s"):
        Thermometer(base, 3.0, 12)
    with pytest.raises(ReconstructionError, match="phase_sign"):
        Thermometer(base, FIELD_T, ECHO_S, phase_sign=0)
    with pytest.raises(ReconstructionError, match="unheated region must have shape"):
        Thermometer(base, FIELD_T, ECHO_S, unheated=away()[0])
    with pytest.raises(ReconstructionError, match="baseline image"):
        Thermometer(np.zeros(SHAPE, np.complex64), FIELD_T, ECHO_S)
    scan = Thermometer(base, FIELD_T, ECHO_S)
    scan.add(base, 5.0)
    with pytest.raises(ReconstructionError, match="follow in time"):
        scan.add(base, 5.0)
    with pytest.raises(ReconstructionError, match="NaN"):
        scan.add(base * complex(np.nan), 6.0)
    with pytest.raises(ReconstructionError, match="must have shape"):
        scan.add(base[:1], 6.0)
    with pytest.raises(ReconstructionError, match="heated region"):
        referenceless(base, np.zeros(SHAPE, bool), FIELD_T, ECHO_S)
    with pytest.raises(ReconstructionError, match="background of order 3 needs"):
        referenceless(base, np.ones(SHAPE, bool), FIELD_T, ECHO_S)


def test_cooling_is_told_from_noise() -> None:
    rng = np.random.default_rng(5)
    for sigma in (0.1, 0.5, 2.0):
        still = rng.normal(0, sigma, (2, 64, 64))
        still[0, 10, 10] = -40.0  # one voxel on its own is no cooling
        below = thermometry.cooling_from(still, None)
        assert below == pytest.approx(-max(1.0, 3 * sigma), rel=0.1)
        assert thermometry.coldest(still, below) is None
        still[1, 20:23, 30:33] = 2 * below
        still[1, 20, 31] = np.nan
        assert thermometry.coldest(still, below) == pytest.approx(2 * below)
    assert thermometry.cooling_from(still, 0.2) == -1.0
    assert thermometry.coldest(np.full((1, 1, 9), -30.0), -1.0) is None
    assert thermometry.cooling_from(np.full((1, 4, 4), np.nan), None) == -1.0
    assert thermometry.coldest(np.full((1, 4, 4), np.nan), -1.0) is None
