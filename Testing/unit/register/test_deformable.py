"""The head sinks below a craniotomy by a known field, part of it is gone, and the pose is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register import deformable_work
from IntraopMRILib.register.deformable import DeformableRegistration, register_deformable
from IntraopMRILib.register.deformable_verdict import Findings, deformable_verdict, jacobian_determinant
from IntraopMRILib.register.inverse import before_moving
from IntraopMRILib.register.uncertainty import distance_mm
from IntraopMRIReconstructionLib.data import FILLED, Image, Level
from IntraopMRIReconstructionLib.errors import Cancelled, DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, invert
from scipy import ndimage

CAVITY_AT, CAVITY_MM = np.array([34.0, 4.0, 42.0]), 15.0
SHIFT_MM = 8.0


class Case:
    """Images and truth: the intraoperative point y shows the head at shifted(pose^-1 y)."""

    def __init__(
        self,
        head: Any,
        scan: Any,
        pose: Any,
        shifted: Any,
        axes: np.ndarray,
        look: Any = None,
        filling: float = 18.0,
        **grid: Any,
    ) -> None:
        self.pose = pose((0.4, 1.0, 0.2), 6.0, (5.0, -4.0, 3.0))
        self._warp = lambda p: shifted(p, SHIFT_MM)

        def resected(points: np.ndarray) -> np.ndarray:
            cavity = np.linalg.norm(points - CAVITY_AT, axis=-1) < CAVITY_MM
            values = head(points) * (1.0 + 0.0015 * points[..., 1])
            return np.where(cavity, filling, values if look is None else look(values))

        back = invert(self.pose)
        self.preop = scan(head, seed=5, **grid)
        self.intraop = scan(resected, head_from_ras=back, warp=self._warp, axes=axes, noise=3.0, seed=6, **grid)

        def mask(inside: Callable[[np.ndarray], np.ndarray], **more: Any) -> Image:
            drawn = scan(lambda p: inside(p).astype(float), noise=0.0, **grid, **more)
            return drawn.with_array((drawn.array > 0.5).astype(np.uint8))

        self.cavity = mask(
            lambda p: np.linalg.norm(p - CAVITY_AT, axis=-1) < CAVITY_MM, head_from_ras=back, warp=self._warp, axes=axes
        )
        self.brain = mask(head.brain, head_from_ras=back, warp=self._warp, axes=axes)
        self.preop_brain = mask(head.brain)
        self.tumour = mask(lambda p: np.linalg.norm(p - CAVITY_AT, axis=-1) < CAVITY_MM - 1.0)
        self.intraop_points = self._tissue()

    def _tissue(self) -> np.ndarray:
        inside = (self.brain.array != 0) & (self.cavity.array == 0)
        kji = np.argwhere(inside)[::40]
        return apply(self.intraop.ras_from_ijk, kji[:, ::-1].astype(float))

    def true_preop(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(self._warp(apply(invert(self.pose), points)))

    def errors(self, found: DeformableRegistration) -> np.ndarray:
        difference = found.preop_from_intraop(self.intraop_points) - self.true_preop(self.intraop_points)
        return np.asarray(np.linalg.norm(difference, axis=1))


@pytest.fixture
def make(head: Any, scan: Any, pose: Any, shifted: Any) -> Callable[..., Case]:
    def case(axes: np.ndarray | None = None, look: Any = None, **grid: Any) -> Case:
        return Case(head, scan, pose, shifted, np.eye(3) if axes is None else axes, look, **grid)

    return case


def test_follows_the_shift_in_every_orientation(make: Any, directions: np.ndarray) -> None:
    case = make(directions)
    found = register_deformable(
        case.intraop, case.preop, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain, tumour=case.tumour
    )
    rigid = np.linalg.norm(apply(invert(case.pose), case.intraop_points) - case.true_preop(case.intraop_points), axis=1)
    errors = case.errors(found)
    assert rigid.max() > 5.0
    assert errors.mean() < 0.35
    assert np.quantile(errors, 0.95) < 0.9
    assert found.verdict.level is Level.GOOD, found.verdict.text


def test_cavity_is_found_where_it_is(make: Any) -> None:
    case = make()
    found = register_deformable(
        case.intraop, case.preop, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain
    )
    ijk = np.round(apply(invert(case.cavity.ras_from_ijk), _voxels(found.cavity))).astype(int)
    truth = case.cavity.array[ijk[:, 2], ijk[:, 1], ijk[:, 0]] != 0
    found_ml = len(ijk) * found.cavity.voxel_volume_ml
    true_ml = np.count_nonzero(case.cavity.array) * case.cavity.voxel_volume_ml
    assert 2 * truth.sum() * found.cavity.voxel_volume_ml / (found_ml + true_ml) > 0.85
    known = register_deformable(
        case.intraop, case.preop, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain, cavity=case.cavity
    )
    assert case.errors(found).mean() < 1.1 * case.errors(known).mean() + 0.01


def test_a_cavity_full_of_clot_is_said_and_does_not_pull_its_walls(make: Any) -> None:
    def enhanced(preop: Image) -> Image:
        """The tumour before surgery: a bright rim about a dark core."""
        k, j, i = np.indices(preop.array.shape)
        away = np.linalg.norm(apply(preop.ras_from_ijk, np.stack([i, j, k], -1).astype(float)) - CAVITY_AT, axis=-1)
        rim, core = (away < CAVITY_MM - 1.0), away < CAVITY_MM - 5.0
        return preop.with_array(np.where(core, 35.0, np.where(rim, 165.0, preop.array)).astype(np.float32))

    errors = {}
    for filling in (18.0, 100.0):
        case = make(filling=filling, spacing=(2.0, 2.0, 2.0))
        masks = {"fixed_mask": case.brain, "moving_mask": case.preop_brain, "tumour": case.tumour}
        found = register_deformable(case.intraop, enhanced(case.preop), case.pose, **masks)
        tissue = (case.brain.array != 0) & (case.cavity.array == 0)
        near = distance_mm(case.cavity)[tissue][::40] < 12.0
        errors[filling] = float(case.errors(found)[near].mean())
    true_ml = np.count_nonzero(case.cavity.array) * case.cavity.voxel_volume_ml
    assert np.count_nonzero(found.cavity.array == FILLED) * found.cavity.voxel_volume_ml > 0.5 * true_ml
    assert found.verdict.level is Level.CHECK
    assert "clot or packing in the cavity" in found.verdict.text
    assert errors[100.0] < 1.5 * errors[18.0] + 0.05


def test_finer_steps_around_the_cavity_help_there(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(spacing=(1.25, 1.25, 1.25))
    ijk = apply(invert(case.cavity.ras_from_ijk), case.intraop_points)
    distance = ndimage.distance_transform_edt(case.cavity.array == 0, sampling=case.cavity.spacing_mm[::-1])
    near = distance[tuple(np.round(ijk[:, ::-1]).astype(int).T)] < 12.0

    def near_error() -> float:
        masks = {"fixed_mask": case.brain, "moving_mask": case.preop_brain}
        return float(case.errors(register_deformable(case.intraop, case.preop, case.pose, **masks))[near].mean())

    finer = near_error()
    monkeypatch.setattr(deformable_work, "NEAR_STEPS", 0)
    assert finer < 0.4
    assert finer < 0.95 * near_error()


def test_a_bright_tumour_that_is_gone_does_not_pull_the_wall(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make()
    bright = case.preop.with_array(np.where(case.tumour.array != 0, 2.2, 1.0).astype(np.float32) * case.preop.array)
    ijk = apply(invert(case.cavity.ras_from_ijk), case.intraop_points)
    distance = ndimage.distance_transform_edt(case.cavity.array == 0, sampling=case.cavity.spacing_mm[::-1])
    near = distance[tuple(np.round(ijk[:, ::-1]).astype(int).T)] < 10.0

    def near_error() -> float:
        masks = {"fixed_mask": case.brain, "moving_mask": case.preop_brain, "cavity": case.cavity}
        return float(case.errors(register_deformable(case.intraop, bright, case.pose, **masks))[near].mean())

    apart = near_error()
    monkeypatch.setattr(deformable_work, "before_moving", lambda mask, *_: np.zeros_like(mask))
    assert apart < 0.9 * near_error()


def test_what_is_gone_is_found_where_it_was() -> None:
    gone = np.zeros((24, 26, 28), bool)
    gone[8:13, 10:16, 9:14] = True
    displacement = np.zeros((3, *gone.shape), np.float32)
    displacement[0], displacement[2] = 2.0, -3.0
    was = before_moving(gone, displacement, 2)
    np.testing.assert_array_equal(was, np.roll(gone, (2, -3), (0, 2)))
    assert not before_moving(np.zeros_like(gone), displacement, 2).any()


def test_without_masks(make: Any) -> None:
    case = make()
    found = register_deformable(case.intraop, case.preop, case.pose)
    errors = case.errors(found)
    assert errors.mean() < 0.4
    assert found.verdict.level is not Level.REFUSED, found.verdict.text


def test_both_directions_undo_each_other(make: Any) -> None:
    case = make()
    found = register_deformable(case.intraop, case.preop, case.pose, fixed_mask=case.brain)
    preop = found.preop_from_intraop(case.intraop_points)
    back = np.linalg.norm(found.intraop_from_preop_points(preop) - case.intraop_points, axis=1)
    assert np.quantile(back, 0.95) < 0.1


def test_inverted_contrast_is_translated_and_said(make: Any) -> None:
    case = make(look=lambda v: np.where(v > 10, 200.0 - v, v))
    found = register_deformable(
        case.intraop, case.preop, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain, cavity=case.cavity
    )
    assert found.remapped
    assert found.verdict.level is not Level.GOOD
    assert case.errors(found).mean() < 0.5


def test_another_head_is_not_good(make: Any, head: Any, scan: Any) -> None:
    case = make()
    other = scan(type(head)(seed=33), seed=8)
    found = register_deformable(case.intraop, other, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain)
    assert found.verdict.level is not Level.GOOD
    assert likeness(found) < 0.8


def test_noise_does_not_make_one_head_unlike_itself(make: Any) -> None:
    case = make()
    rng = np.random.default_rng(2)
    noisy = np.abs(case.intraop.array + rng.normal(0, 12.0, case.intraop.array.shape))
    found = register_deformable(
        case.intraop.with_array(noisy.astype(np.float32)),
        case.preop,
        case.pose,
        fixed_mask=case.brain,
        moving_mask=case.preop_brain,
    )
    assert likeness(found) > 0.88


def likeness(found: DeformableRegistration) -> float:
    return next(reason.value for reason in found.verdict.reasons if "likeness" in reason.name)


def test_mirrored_head_is_not_good(make: Any) -> None:
    case = make()
    mirrored = case.preop.with_array(case.preop.array[:, :, ::-1].copy())
    found = register_deformable(case.intraop, mirrored, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain)
    assert np.quantile(case.errors(found), 0.95) > 2.0
    assert found.verdict.level is not Level.GOOD


def test_pose_that_is_off_is_said_though_the_fit_makes_up_for_it(make: Any, pose: Any) -> None:
    case = make()
    off = pose((0, 0, 1), 0.0, (5.0, -5.0, 4.0)) @ case.pose
    found = register_deformable(case.intraop, case.preop, off, fixed_mask=case.brain, moving_mask=case.preop_brain)
    assert "motion far from the cavity" in found.verdict.text


@pytest.mark.parametrize("upper", [True, False])
def test_half_a_preoperative_head_is_said_and_does_not_pull_the_rest(make: Any, upper: bool) -> None:
    case = make()
    middle = case.preop.array.shape[0] // 2
    rest = slice(middle, None) if upper else slice(0, middle)
    matrix = case.preop.ras_from_ijk.copy()
    matrix[:3, 3] = apply(matrix, (0.0, 0.0, float(rest.start or 0)))
    half, brain = (Image(image.array[rest].copy(), matrix) for image in (case.preop, case.preop_brain))
    found = register_deformable(case.intraop, half, case.pose, fixed_mask=case.brain, moving_mask=brain)
    assert found.verdict.level is not Level.GOOD
    assert "brain covered by the preoperative volume" in found.verdict.text
    errors = case.errors(found)
    # Where the half was scanned it is as good as ever; elsewhere the map says how little is known.
    radius = ndimage.map_coordinates(
        found.uncertainty.array,
        apply(invert(found.uncertainty.ras_from_ijk), case.intraop_points)[:, ::-1].T,
        order=1,
        mode="nearest",
    )
    k = apply(invert(matrix), case.true_preop(case.intraop_points))[:, 2]
    scanned = (k > 6.0) & (k < len(half.array) - 7.0)
    assert (errors <= radius).mean() > 0.85
    assert np.median(errors[scanned]) < 0.3


def test_thick_slices_are_said(make: Any, head: Any, scan: Any) -> None:
    case = make()
    thick = scan(head, spacing=(2.0, 2.0, 6.0), seed=5)
    found = register_deformable(case.intraop, thick, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain)
    assert "voxel size 6 mm" in found.verdict.text


def test_same_input_same_field(make: Any) -> None:
    case = make()
    first, again = (
        register_deformable(case.intraop, case.preop, case.pose, fixed_mask=case.brain, threads=n) for n in (1, 2)
    )
    np.testing.assert_array_equal(first.shift.array, again.shift.array)
    np.testing.assert_array_equal(first.uncertainty.array, again.uncertainty.array)


def test_stops_at_once_and_tells_levels(make: Any) -> None:
    case = make()
    told: list[tuple[float, str]] = []

    def watch(fraction: float, what: str) -> bool:
        told.append((fraction, what))
        return "at 2 mm" not in what

    with pytest.raises(Cancelled, match="fitting at 2 mm"):
        register_deformable(case.intraop, case.preop, case.pose, fixed_mask=case.brain, progress=watch)
    assert sum("at 2 mm" in what for _, what in told) == 1
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert {"fitting at 8 mm", "fitting at 4 mm"} <= {what for _, what in told}


def test_masks_that_do_not_fit_are_named(make: Any, pose: Any) -> None:
    case = make()
    away = Image(case.brain.array, pose((0, 0, 1), 0.0, (800.0, 0.0, 0.0)) @ case.brain.ras_from_ijk)
    with pytest.raises(DataError, match="intraoperative mask"):
        register_deformable(case.intraop, case.preop, case.pose, fixed_mask=away)
    with pytest.raises(DataError, match="finest_mm"):
        register_deformable(case.intraop, case.preop, case.pose, finest_mm=3.0)
    with pytest.raises((DataError, RegistrationError), match=r"preoperative mask|share"):
        register_deformable(
            case.intraop,
            case.preop,
            pose((0, 0, 1), 0.0, (500.0, 0.0, 0.0)),
            fixed_mask=case.brain,
            moving_mask=case.preop_brain,
        )


def _voxels(mask: Image) -> np.ndarray:
    return apply(mask.ras_from_ijk, np.argwhere(mask.array)[:, ::-1].astype(float))


@pytest.fixture
def findings(directions: np.ndarray) -> Findings:
    matrix = corner_from_centre(directions * 2.0, (0.0, 0.0, 0.0), (40, 40, 40))
    still = Image(np.zeros((40, 40, 40, 3), np.float32), matrix)
    brain = Image(np.ones((40, 40, 40), np.uint8), matrix)
    empty = Image(np.zeros((40, 40, 40), np.uint8), matrix)
    return Findings(still, still, empty, brain, Image(np.full((40, 40, 40), 0.5), matrix), 0.1, False)


def test_jacobian_of_a_known_stretch(findings: Findings) -> None:
    kji = np.argwhere(findings.brain.array)
    points = apply(findings.shift.ras_from_ijk, kji[:, ::-1].astype(float)).reshape(40, 40, 40, 3)
    stretch = np.array([0.1, -0.2, 0.3])
    ratio = jacobian_determinant(Image(points * stretch, findings.shift.ras_from_ijk))
    np.testing.assert_allclose(ratio, np.prod(1 + stretch), atol=1e-9)


def test_verdict_rules(findings: Findings) -> None:
    assert deformable_verdict(findings).level is Level.GOOD
    matrix = findings.shift.ras_from_ijk

    def moved(mm: float) -> Image:
        field = np.zeros((40, 40, 40, 3), np.float32)
        field[..., 0] = mm
        return Image(field, matrix)

    covered = np.ones((40, 40, 40), np.uint8)
    covered[:30] = 0
    rules = {
        "covered by the preoperative": replace(findings, matched=Image(covered, matrix)),
        "largest displacement": replace(findings, shift=moved(35.0), inverse_shift=moved(-35.0)),
        "misfit": replace(findings, misfit=0.9),
        "likeness": replace(findings, likeness=0.1),
        "uncertainty": replace(findings, uncertainty=Image(np.full((40, 40, 40), 7.0), matrix)),
    }
    for text, bad in rules.items():
        verdict = deformable_verdict(bad)
        assert verdict.level is Level.REFUSED
        assert text in verdict.text
    assert deformable_verdict(replace(findings, inverse_shift=moved(3.0))).level is Level.CHECK
    assert deformable_verdict(replace(findings, remapped=True)).level is Level.CHECK
    assert deformable_verdict(replace(findings, thickest_mm=6.0)).level is Level.CHECK
    assert deformable_verdict(replace(findings, likeness=0.7)).level is Level.CHECK
    packed = np.zeros((40, 40, 40), np.uint8)
    packed[10:15, 10:20, 10:20] = FILLED
    filled = deformable_verdict(replace(findings, cavity=Image(packed, matrix)))
    assert filled.level is Level.CHECK
    assert "clot or packing in the cavity 4 ml" in filled.text
    assert "outside of the outline 20 %" in deformable_verdict(replace(findings, missing=0.2)).text
    assert deformable_verdict(replace(findings, likeness=float("nan"))).level is Level.REFUSED
    rng = np.random.default_rng(0)
    torn = Image(rng.normal(0, 4, (40, 40, 40, 3)), matrix)
    assert "folded" in deformable_verdict(replace(findings, shift=torn, inverse_shift=torn)).text


def test_the_radius_holds_the_error_near_the_cavity_and_far(make: Any) -> None:
    case = make(spacing=(2.0, 2.0, 2.0))
    found = register_deformable(
        case.intraop, case.preop, case.pose, fixed_mask=case.brain, moving_mask=case.preop_brain
    )
    radius, from_cavity = (
        ndimage.map_coordinates(values, _index(found.shift, case.intraop_points), order=1, mode="nearest")
        for values in (found.uncertainty.array, distance_mm(found.cavity))
    )
    inside, near = case.errors(found) <= radius, from_cavity < 15.0
    assert inside[near].mean() >= 0.95
    assert inside[~near].mean() >= 0.95
    # A radius of a voxel and more near the cavity would say little.
    assert radius[near].mean() < 0.7
    assert radius[from_cavity < 4.0].mean() > 1.1 * radius[~near].mean()


def _index(image: Image, points: np.ndarray) -> np.ndarray:
    return np.asarray(apply(invert(image.ras_from_ijk), points)[:, ::-1].T)
