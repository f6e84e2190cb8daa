from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Encoding, Image
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct import metal
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, cartesian_kspace, ring_of_coils

FIELD = 240.0
Z, X = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])


def test_blur_of_a_tilted_view_is_undone() -> None:
    size, slice_mm, tilt = 128, 4.0, 30.0
    truth = cartesian_kspace((size, size), (FIELD, FIELD), HEAD_2D, ring_of_coils(2, FIELD))
    width = slice_mm * np.tan(np.deg2rad(tilt))
    cycles = (np.arange(size) - size // 2) / FIELD
    # A slice seen from aside is a box: the mean of the picture moved by every part of its width.
    places = (np.arange(400) + 0.5) / 400 * width - width / 2
    blurred = truth * np.exp(2j * np.pi * np.outer(places, cycles)).mean(axis=0)
    found = blurred * metal.vat_gain(size, tilt, slice_mm, FIELD)
    assert np.linalg.norm(blurred - truth) > 0.02 * np.linalg.norm(truth)
    assert np.linalg.norm(found - truth) < 1e-3 * np.linalg.norm(truth)
    assert metal.vat_gain(size, 75, 10, FIELD).max() < 5.01, "noise is not amplified further"


def test_bins_of_mavric_make_one_picture_and_a_field() -> None:
    centres = np.arange(-12, 13) * 1000.0
    truth = np.linspace(-9000, 9000, 4 * 5 * 6).reshape(4, 5, 6)
    # Gaussian bins as wide as MAVRIC's (FWHM 2.25 kHz) overlap so that their squares add up to a constant.
    bins = np.stack([np.exp(-4 * np.log(2) * ((truth - centre) / 2250) ** 2) for centre in centres])
    found = metal.mavric(bins, centres)
    assert np.allclose(found.magnitude, found.magnitude.mean(), rtol=0.01)
    assert np.abs(found.hz - truth).max() < 30
    assert np.isnan(metal.mavric(bins * 0, centres).hz).all()
    assert np.isnan(metal.mavric(bins, centres, noise=10.0).hz).all()


def test_slices_of_semac_go_back_to_their_place() -> None:
    rng = np.random.default_rng(9)
    truth = rng.uniform(0.5, 1, (9, 6, 7))
    moved = rng.integers(-2, 3, truth.shape)  # how many slices metal moved each voxel
    excited = np.zeros((9, 5, 6, 7))
    for z in range(9):
        for offset in range(-2, 3):
            s = z + offset
            if 0 <= s < 9:
                excited[s, 2 - offset] += np.where(moved[z] == offset, truth[z], 0)
    found = metal.semac(excited, 0, 9)
    reached = (np.arange(9)[:, None, None] + moved >= 0) & (np.arange(9)[:, None, None] + moved < 9)
    assert np.allclose(found, truth * reached)


def test_field_of_a_cylinder() -> None:
    points = np.array([[4.0, 0, 0], [0, 0, 4.0], [0, 9.0, 4.0], [0.5, 0, 0], [0, 0, -8.0]])
    hz = metal.cylinder_hz(points, np.array([0, 1.0, 0]), 2.0, 182.0, 1.5, Z)
    half = 42.577478518e6 * 1.5 * 182e-6 / 2
    assert np.allclose(hz, half * np.array([-1 / 4, 1 / 4, 1 / 4, 0, 1 / 16]))
    assert np.allclose(metal.cylinder_hz(points, Z, 2.0, 182.0, 1.5, Z), 0)


@pytest.mark.parametrize("displacement_mm", [0.4, 1.4, 3.0, 12.0, 40.0])
def test_void_of_a_rod_on_its_middle_line(displacement_mm: float) -> None:
    """Every bit of signal is moved by D (a / r)^2, counted where it lands; half of the usual signal is the edge."""
    radius = 3.0
    r = np.linspace(radius, 200.0, 2_000_000)
    at = np.concatenate([r, -r]) + np.tile(displacement_mm * (radius / r) ** 2, 2)
    edges = np.arange(-100.0, 100.0, 0.02)
    landed = np.histogram(at, edges)[0] * (197.0 / r.size) / 0.02
    dark = edges[:-1][landed < 0.5]
    dark = dark[(dark > -60) & (dark < 60)]
    shift, half_width = metal.void_of_rod(displacement_mm, radius)
    assert (dark.min() + dark.max()) / 2 == pytest.approx(shift, abs=0.06)
    # What lies to the left of a stretched flank may be under half as well, but never by more than the width said.
    assert (dark.max() - dark.min()) / 2 == pytest.approx(half_width, abs=0.06)


@pytest.mark.parametrize("displacement_mm", [0.5, 3.0, 20.0, 80.0])
def test_an_end_comes_no_farther_than_said(displacement_mm: float) -> None:
    z = np.linspace(0, 100, 100_001)
    landed = z + displacement_mm * (1 - z / np.hypot(z, 3.0))
    assert landed.min() <= metal.end_shift(displacement_mm, 3.0) + 1e-6


def test_an_end_moves_by_the_part_along_the_axis_of_what_the_whole_displacement_does() -> None:
    """Off axis by 20 degrees from across: a third of the displacement along it, not its cube root."""
    facts = {
        "field_t": "3",
        "readout_axis": "i",
        "slice_axis": "k",
        "readout_hz_per_mm": "300",
        "slice_hz_per_mm": "inf",
    }
    whole = 42.577478518e6 * 3 * 182e-6 / 2 / 300
    angle = np.deg2rad(20.0)
    found = metal.implant_shift(picture(np.eye(3), **facts), (np.sin(angle), np.cos(angle), 0), 6.0, 182.0)
    assert found.along_mm == pytest.approx(np.sin(angle) * metal.end_shift(whole, 3.0))
    along = metal.implant_shift(picture(np.eye(3), **facts), (1, 0, 0), 6.0, 182.0)
    assert along.along_mm == pytest.approx(metal.end_shift(whole, 3.0))
    # A field along the rod leaves at its ends, wherever the readout points.
    assert found.end_void_mm == pytest.approx(metal.end_void(whole, 3.0))
    assert along.end_void_mm == pytest.approx(metal.end_void(whole, 3.0))


@pytest.mark.parametrize("displacement_mm", [0.5, 4.0, 40.0, 200.0])
def test_beyond_the_void_of_an_end_signal_is_stretched_to_no_less_than_half(displacement_mm: float) -> None:
    """The field of a disc of magnetic poles, summed: at its void the slope is about 1, near and far."""
    radius = 3.0
    y, x = np.meshgrid(*[np.arange(-radius, radius, 0.05) + 0.025] * 2, indexing="ij")
    disc = np.stack([x, y], axis=-1)[np.hypot(x, y) < radius]
    z = metal.end_void(displacement_mm, radius)
    s = np.arange(0.0, radius + 3 * z, max(0.02, z / 50))
    away2 = (s[:, None] - disc[:, 0]) ** 2 + disc[:, 1] ** 2 + z**2
    moved = displacement_mm * (z / away2**1.5).sum(axis=1) * 0.05**2 / (2 * np.pi)
    steepest = np.abs(np.diff(moved) / np.diff(s)).max()
    assert 0.5 < steepest < 1.25


def encoding(**changed: Any) -> Encoding:
    fov = (128.0, 200.0, 256.0)
    plain = Encoding("s", "cartesian", (64, 100, 128), (64, 100, 128), fov, fov, 1, np.eye(4), field_t=1.5)
    return replace(plain, dwell_time_s=1 / (256.0 * 500.0), **changed)


def test_what_a_header_says_of_the_scan() -> None:
    facts = metal.scan_facts(encoding())
    assert facts == {
        "field_t": "1.5",
        "readout_axis": "i",
        "slice_axis": "k",
        "readout_hz_per_mm": "500",
        "slice_hz_per_mm": "inf",
    }
    slices = {"rf_bandwidth_hz": "1200", "slice_thickness_mm": "3", "bin_centres_hz": "-2000 0 2000"}
    facts = metal.scan_facts(encoding(is_3d=False, metadata=slices))
    assert (facts["slice_hz_per_mm"], facts["spectral_bin_hz"]) == ("400", "2000")
    assert "slice_hz_per_mm" not in metal.scan_facts(encoding(is_3d=False))
    assert "readout_axis" not in metal.scan_facts(encoding(trajectory="spiral"))
    assert "spectral_bin_hz" not in metal.scan_facts(encoding(metadata={"bin_centres_hz": "1 x"}))


def test_a_tilted_view_leaves_what_its_angle_does_not_undo() -> None:
    """The slice gradient moves signal back by tan(tilt) times its shift across slices."""
    slices = {"rf_bandwidth_hz": "1000", "slice_thickness_mm": "4"}
    for tilt, left in ((26.56505118, 0.0), (45.0, 1 / 250 - 1 / 500), (10.0, 1 / 500 - np.tan(np.deg2rad(10)) / 250)):
        facts = metal.scan_facts(encoding(is_3d=False, metadata=slices | {"vat_tilt_deg": repr(tilt)}))
        assert 1 / float(facts["readout_hz_per_mm"]) == pytest.approx(left, abs=1e-9)
        assert facts["slice_hz_per_mm"] == "250"
    # Without the slice gradient nobody knows what was undone: nothing is taken off.
    facts = metal.scan_facts(encoding(is_3d=False, metadata={"vat_tilt_deg": "26.6"}))
    assert facts["readout_hz_per_mm"] == "500"
    assert "vat_tilt_deg" not in facts


@pytest.mark.parametrize("said", ["steep", "-20", "80", "nan", "inf"])
def test_an_angle_that_cannot_be(said: str) -> None:
    with pytest.raises(ReconstructionError, match="tilted by less than 80 degrees"):
        metal.view_angle_deg(encoding(is_3d=False, metadata={"vat_tilt_deg": said}))
    with pytest.raises(ReconstructionError, match="in a 3D cartesian scan"):
        metal.view_angle_deg(encoding(metadata={"vat_tilt_deg": "20"}))
    assert metal.view_angle_deg(encoding(metadata={"vat_tilt_deg": "0"})) == 0.0


def test_slices_that_were_put_in_place_cost_no_shift() -> None:
    slices = {"rf_bandwidth_hz": "1000", "slice_thickness_mm": "4"}
    facts = metal.scan_facts(encoding(is_3d=False, metadata=slices))
    plain = metal.implant_shift(picture(np.eye(3), **facts), (0, 1, 0), 6.0, 182.0)
    covered = metal.implant_shift(picture(np.eye(3), **facts, slice_covered_mm="26"), (0, 1, 0), 6.0, 182.0)
    # 42.6 MHz/T x 1.5 T x 182 ppm / 2 is 5812 Hz: 23.2 mm across slices.
    assert plain.slice_mm > 3
    assert covered.slice_mm == 0
    assert covered.slice_void_mm == pytest.approx(6.0)
    assert covered.across_mm < plain.across_mm
    assert "slices put in place up to 26 mm (SEMAC)" in covered.basis
    # Signal that was moved farther comes back at a wrong place.
    assert metal.implant_shift(picture(np.eye(3), **facts, slice_covered_mm="20"), (0, 1, 0), 6.0).slice_mm > 3


def test_width_of_the_void_and_what_it_rests_on() -> None:
    facts = metal.scan_facts(encoding())
    found = metal.implant_shift(picture(np.eye(3), **facts), (0, 1, 0), 6.0, 182.0)
    displaced = 42.577478518e6 * 1.5 * 182e-6 / 2 / 500
    assert found.readout_void_mm == pytest.approx(2 * np.cbrt(2 * displaced * 9))
    assert found.slice_void_mm == pytest.approx(6.0), "no slice is excited in a 3D scan"
    assert found.basis == "5812 Hz at the metal by 182 ppm in 1.5 T, readout 500 Hz/mm, no slice gradient"
    binned = metal.implant_shift(picture(np.eye(3), **facts, spectral_bin_hz="800"), (0, 1, 0), 6.0, 182.0)
    assert binned.readout_void_mm == pytest.approx(6.0), "half a bin moves the void as a whole"
    assert binned.basis.startswith("400 Hz at the metal, half a spectral bin of 800 Hz")
    seen = found.within(4.0)
    assert (seen.readout_void_mm, seen.slice_void_mm, seen.basis) == (8.0, 6.0, found.basis)


def picture(directions: np.ndarray, **facts: str) -> Image:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * 0.8
    return Image(np.ones((2, 2, 2), np.float32), matrix, metadata=facts)


def test_shift_of_a_screw_in_every_orientation(directions: np.ndarray) -> None:
    facts = metal.scan_facts(encoding())
    screw = directions @ (0.0, 3.0, 0.0)
    found = metal.implant_shift(picture(directions, **facts), screw, 6.0, 182.0)
    displaced = 42.577478518e6 * 1.5 * 182e-6 / 2 / 500
    assert found.across_mm == pytest.approx(np.cbrt(2 * displaced * 9) / 2)
    assert found.readout_mm == pytest.approx(found.across_mm)
    assert found.slice_mm == 0
    assert found.along_mm == pytest.approx(0, abs=1e-9)
    assert found.assumed == ()
    # Read along the screw, its ends move and its axis does not.
    along = metal.implant_shift(picture(directions, **facts), directions @ (2.0, 0.0, 0.0), 6.0, 182.0)
    assert along.across_mm == pytest.approx(0, abs=1e-6)
    assert along.along_mm > 3
    # Two gradients move the signal along one line.
    both = metal.implant_shift(picture(directions, **facts | {"slice_hz_per_mm": "500"}), screw, 6.0, 182.0)
    assert both.across_mm == pytest.approx(np.cbrt(2 * np.sqrt(2) * displaced * 9) / 2)
    assert both.slice_mm == pytest.approx(both.readout_mm)


def test_spectral_bins_leave_half_a_bin() -> None:
    facts = metal.scan_facts(encoding(metadata={"spectral_bin_hz": "800"}))
    found = metal.implant_shift(picture(np.eye(3), **facts), (0, 1, 0), 6.0, 182.0)
    assert found.across_mm == pytest.approx(400 / 500)


@pytest.mark.parametrize("missing", ["field_t", "readout_hz_per_mm", "slice_hz_per_mm", "readout_axis"])
@pytest.mark.parametrize("written", [None, "", "three", "nan", "-4"])
def test_what_is_unknown_widens_and_is_named(missing: str, written: str | None) -> None:
    facts = metal.scan_facts(encoding())
    whole = metal.implant_shift(picture(np.eye(3), **facts), (0, 1, 0.2), 6.0, 182.0)
    del facts[missing]
    lacking = facts if written is None else facts | {missing: written}
    found = metal.implant_shift(picture(np.eye(3), **lacking), (0, 1, 0.2), 6.0, 182.0)
    assert found.across_mm + found.along_mm > whole.across_mm + whole.along_mm
    assert len(found.assumed) == 1


def test_unknown_metal_is_taken_as_the_strongest() -> None:
    facts = metal.scan_facts(encoding())
    unknown = metal.implant_shift(picture(np.eye(3), **facts), (0, 1, 0), 6.0)
    assert unknown.assumed == ("the metal",)
    assert unknown.across_mm > metal.implant_shift(picture(np.eye(3), **facts), (0, 1, 0), 6.0, 182.0).across_mm


def test_refused() -> None:
    with pytest.raises(ReconstructionError, match="axis"):
        metal.implant_shift(picture(np.eye(3)), (0, 0, 0), 6.0)
    with pytest.raises(ReconstructionError, match="diameter"):
        metal.implant_shift(picture(np.eye(3)), (0, 0, 1), np.nan)
    with pytest.raises(ReconstructionError, match="susceptibility"):
        metal.implant_shift(picture(np.eye(3)), (0, 0, 1), 5.0, 0.0)
    with pytest.raises(ReconstructionError, match="rising centres"):
        metal.mavric(np.zeros((2, 3, 3, 3)), np.array([1.0, 0.0]))
    with pytest.raises(ReconstructionError, match="NaN"):
        metal.mavric(np.full((2, 3, 3, 3), np.nan), np.array([0.0, 1.0]))
    with pytest.raises(ReconstructionError, match="SEMAC needs"):
        metal.semac(np.zeros((2, 3, 3)), 0, 3)
    with pytest.raises(ReconstructionError, match="tilt below 80"):
        metal.vat_gain(2, 85, 4, FIELD)
    with pytest.raises(ReconstructionError, match="radius and a field"):
        metal.cylinder_hz(np.zeros((1, 3)), Z, 0.0, 182.0, 1.5, X)
