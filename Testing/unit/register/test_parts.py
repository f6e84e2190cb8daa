"""The parts that registrations stand on: sampling, tones, normalisation, brain mask, cavity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register import engines
from IntraopMRILib.register.brain_mask import brain_of
from IntraopMRILib.register.cavity import DRAWN_IN, find_cavity, find_gap, find_stains, hold_of
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.engines import greedy_disagreement
from IntraopMRILib.register.inverse import inverse_of
from IntraopMRILib.register.lattice import LOOSE, Lattice, firm_nodes
from IntraopMRILib.register.matching import LevelFit, LevelImages
from IntraopMRILib.register.normalise import locally_normalised
from IntraopMRILib.register.sampling import Volume, resampled, sample
from IntraopMRILib.register.tones import Tones
from IntraopMRILib.register.uncertainty import distance_mm, uncertainty_mm
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import Cancelled, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, resample_matrix, within_mm
from scipy import ndimage


def ramp(points: np.ndarray) -> np.ndarray:
    return np.asarray(points @ (2.0, -3.0, 5.0) + 7.0, dtype=np.float32)


def grid_points(shape: tuple[int, int, int], matrix: np.ndarray) -> np.ndarray:
    k, j, i = np.indices(shape)
    return apply(matrix, np.stack([i, j, k], axis=-1).astype(float))


def test_shrinking_averages_and_keeps_the_place(directions: np.ndarray) -> None:
    matrix = corner_from_centre(directions * (1.0, 1.5, 3.0), (3.0, 4.0, 5.0), (31, 22, 10))
    volume = Volume(ramp(grid_points((10, 22, 31), matrix)), matrix)
    small = volume.shrunk(3.0)
    assert small.values.shape == (10, 11, 10)
    np.testing.assert_allclose(small.values, ramp(grid_points((10, 11, 10), small.ras_from_ijk)), atol=1e-3)
    assert volume.shrunk(1.0) is volume


def test_resampling_between_oblique_grids(directions: np.ndarray) -> None:
    source = corner_from_centre(np.eye(3) * 2.0, (0.0, 0.0, 0.0), (40, 40, 40))
    values = ramp(grid_points((40, 40, 40), source))
    target = corner_from_centre(directions * 1.3, (2.0, -3.0, 1.0), (20, 22, 24))
    got = resampled(values, (24, 22, 20), resample_matrix(target, source))
    np.testing.assert_allclose(got, ramp(grid_points((24, 22, 20), target)), atol=1e-2)


def test_sampling_gives_exact_values_and_gradients_of_a_ramp() -> None:
    values = ramp(grid_points((9, 10, 11), np.eye(4)))
    points = np.random.default_rng(0).uniform(0, 8, (3, 500)).astype(np.float32)
    got = sample(values, points)
    np.testing.assert_allclose(got.values, ramp(points[::-1].T.astype(float)), atol=1e-3)
    np.testing.assert_allclose(got.gradient, np.repeat([[5.0], [-3.0], [2.0]], 500, axis=1), atol=1e-2)
    outside = sample(values, np.array([[-0.5], [3.0], [3.0]], np.float32))
    assert not outside.inside[0]
    assert outside.values[0] == 0.0


def test_tones_learn_a_curve() -> None:
    moving = np.random.default_rng(0).uniform(0, 100, 50000).astype(np.float32)
    fixed = (100.0 * np.exp(-(((moving - 50.0) / 30.0) ** 2))).astype(np.float32)
    tones = Tones.learnt(moving, fixed, (0.0, 100.0))
    mapped, slope = tones.mapped(np.linspace(10, 90, 50, dtype=np.float32))
    truth = 100.0 * np.exp(-(((np.linspace(10, 90, 50) - 50.0) / 30.0) ** 2))
    np.testing.assert_allclose(mapped, truth, atol=3.0)
    assert (slope[:20] > 0).all()
    assert (slope[-20:] < 0).all()


def test_normalised_values_forget_gain_and_bias() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(100.0, 20.0, (30, 30, 30)).astype(np.float32)
    inside = np.ones_like(values)
    k = np.arange(30, dtype=np.float32)[:, None, None]
    shaded = values * (1.5 + 0.01 * k) + 40.0
    first = locally_normalised(values, inside, (2.0, 2.0, 2.0))
    second = locally_normalised(shaded.astype(np.float32), inside, (2.0, 2.0, 2.0))
    assert np.abs(first - second).mean() < 0.05
    assert 0.8 < first.std() < 1.1


def test_masked_statistics_do_not_see_beyond_the_mask() -> None:
    values = np.random.default_rng(0).normal(100.0, 20.0, (20, 20, 20)).astype(np.float32)
    inside = np.zeros_like(values)
    inside[:, :, :10] = 1.0
    bright = values.copy()
    bright[:, :, 10:] = 5000.0
    voxel = (2.0, 2.0, 2.0)
    a, b = (locally_normalised(v, inside, voxel)[:, :, :10] for v in (values, bright))
    np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 44, 36), (41, 43, 37)])
def test_inverse_undoes_a_smooth_displacement(shape: tuple[int, int, int]) -> None:
    grid = np.indices(shape, dtype=np.float32)
    wave = np.sin(grid * (2 * np.pi / 24.0))
    displacement = np.stack([2.0 * wave[1], -1.5 * wave[2], 1.0 * wave[0]]).astype(np.float32)
    inverse = inverse_of(displacement, 2)
    at = grid + inverse
    there = np.stack([ndimage.map_coordinates(c, at, order=1, mode="nearest") for c in displacement])
    inner = (slice(None), *(slice(4, -4),) * 3)
    assert inverse.shape == displacement.shape
    assert np.abs(there + inverse)[inner].max() < 0.05


def test_distances_are_exact_on_stretched_voxels(directions: np.ndarray) -> None:
    inside = np.zeros((20, 22, 24), np.uint8)
    inside[5:9, 6:12, 3:8] = 3
    mask = Image(inside, corner_from_centre(directions * (1.0, 1.5, 3.0), (0.0, 0.0, 0.0), (24, 22, 20)))
    expected = ndimage.distance_transform_edt(inside == 0, sampling=(3.0, 1.5, 1.0))
    np.testing.assert_allclose(distance_mm(mask), expected, atol=1e-4)
    assert np.isinf(distance_mm(mask.with_array(np.zeros_like(inside)))).all()


def test_steps_settle_where_nothing_moved() -> None:
    rng = np.random.default_rng(0)
    anatomy = ndimage.gaussian_filter(rng.standard_normal((40, 40, 40)), 1.5).astype(np.float32)
    anatomy /= anatomy.std()
    fixed, moving = (anatomy + 0.3 * rng.standard_normal(anatomy.shape).astype(np.float32) for _ in range(2))
    images = LevelImages(fixed, moving, np.ones_like(anatomy), np.full(3, 2.0))
    lattice = Lattice(8.0, (80.0, 80.0, 80.0))
    fit = LevelFit(images, lattice, 0.05, 2)
    told: list[float] = []
    found = fit.fitted(np.zeros((3, *lattice.shape), np.float32), 40, told.append)
    assert len(told) < 20, "stops by itself"
    again = fit.fitted(found, 40, told.append)
    assert np.sqrt((again - found) ** 2).mean() < 0.1, "and has little left to do"


class Ball:
    """A ball of 16 mm is gone, its wall has drawn in by ``drawn_in_mm``; nothing is matched within 3 mm of the wall."""

    def __init__(self, drawn_in_mm: float) -> None:
        rng, size, radius = np.random.default_rng(0), 48, 16.0
        anatomy = ndimage.gaussian_filter(rng.standard_normal((size + 8,) * 3), 1.2).astype(np.float32)
        anatomy /= anatomy.std()
        self.offset = 2.0 * (np.indices((size,) * 3) - (size - 1) / 2.0)
        self.away = np.sqrt((self.offset**2).sum(axis=0))
        # Where tissue was: farther out, around the cavity without change of volume.
        self.pull = self.offset * drawn_in_mm * radius**2 / np.maximum(self.away, radius / 2) ** 3
        before = (np.indices((size,) * 3) + self.pull / 2.0 + 4.0).astype(np.float32)
        fixed = ndimage.map_coordinates(anatomy, before, order=1).astype(np.float32)
        gone = self.away < radius + 3.0
        self.images = LevelImages(fixed, anatomy[4:-4, 4:-4, 4:-4], (~gone).astype(np.float32), np.full(3, 2.0))
        self.lattice, self.gone = Lattice(8.0, (2.0 * size,) * 3), gone
        self.wall = (self.away > radius) & (self.away < radius + 1.5)

    def fitted(self, loose: float) -> tuple[LevelFit, np.ndarray]:
        firm = firm_nodes(self.lattice, self.gone, self.images.voxel_mm, loose)
        fit = LevelFit(self.images, self.lattice, 0.05, 2, firm=firm)
        return fit, fit.fitted(np.zeros((3, *self.lattice.shape), np.float32), 10, lambda _: None)


def test_the_wall_of_a_collapsed_cavity_is_not_held_back_by_the_other_one() -> None:
    ball = Ball(2.5)

    def lacking(loose: float) -> float:
        fit, coefficients = ball.fitted(loose)
        found = fit.basis.evaluated(coefficients)
        return float((((ball.pull - found) * ball.offset).sum(axis=0) / ball.away)[ball.wall].mean())

    loose, firm = lacking(LOOSE), lacking(1.0)
    assert 0.0 < loose < 0.9 * firm


def test_the_radius_is_wide_where_walls_drew_in() -> None:
    """The fit cannot follow a wall that it does not see: the radius has to say so, and only there."""

    def seen(drawn_in_mm: float) -> tuple[np.ndarray, np.ndarray]:
        ball = Ball(drawn_in_mm)
        fit, coefficients = ball.fitted(LOOSE)
        grid = np.diag([2.0, 2.0, 2.0, 1.0])
        shift, brain = Image(np.zeros((*ball.gone.shape, 3), np.float32), grid), Image(np.ones(ball.gone.shape), grid)
        from_cavity, nowhere = np.maximum(ball.away - 16.0, 0.0), np.full_like(ball.away, np.inf)
        radius = uncertainty_mm(fit, coefficients, shift, brain, from_cavity, nowhere).array
        error = np.sqrt(((fit.basis.evaluated(coefficients) - ball.pull) ** 2).sum(axis=0))
        return radius[ball.wall], error[ball.wall]

    (still, _), (radius, error) = seen(0.0), seen(2.5)
    assert (error <= radius).mean() >= 0.95
    assert radius.mean() > 1.4 * still.mean()


def test_the_radius_is_wider_below_a_surface_that_has_let_go_of_the_dura() -> None:
    """The brain lies 8 mm under the dura, and all of it as the fit has it, so that it stands out nowhere."""
    ball, size, voxel = Ball(0.0), 48, (2.0, 2.0, 2.0)
    offset = 2.0 * (np.indices((size,) * 3) - (size - 1) / 2.0)
    before, now = (np.linalg.norm(np.moveaxis(offset, 0, -1) + at, axis=-1) < 44.0 for at in ((0, 0, 0), (8, 0, 0)))
    values = np.where(now, np.random.default_rng(0).normal(100.0, 4.0, now.shape), 5.0).astype(np.float32)
    nowhere = np.zeros_like(now)
    # The surface that lies on the dura still lets go nowhere, and a misfit of one voxel is none.
    assert not find_gap(values, now, now, nowhere, voxel).any()
    assert not find_gap(values, now, ndimage.binary_dilation(now), nowhere, voxel).any()
    assert not find_gap(np.full_like(values, 90.0), now, before, nowhere, voxel).any(), "what is there is bright"
    gap = find_gap(values, now, before, nowhere, voxel)
    assert not (gap & ~(before & ~now)).any()
    # Its thickness is 8 mm times the cosine from the top: here more than 4 mm.
    assert gap[before & ~now & (offset[0] > 22.0)].mean() > 0.9
    assert not (find_gap(values, now, before, gap, voxel) & gap).any(), "nor is a cavity"

    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    shift, brain = Image(np.zeros((*now.shape, 3), np.float32), grid), Image(now.astype(np.uint8), grid)
    fit, coefficients = ball.fitted(1.0)
    far = np.full(now.shape, np.inf)
    closed, opened = (
        uncertainty_mm(fit, coefficients, shift, brain, far, distance_mm(Image(mask.astype(np.uint8), grid))).array
        for mask in (nowhere, gap)
    )
    below = ndimage.distance_transform_edt(~gap, sampling=voxel)
    wall = np.sqrt(opened[now] ** 2 - closed[now] ** 2)
    np.testing.assert_allclose(wall, 0.8 * np.exp(-below[now] / 6.0), atol=0.02)


def test_only_a_cavity_that_drew_in_lets_go_of_its_walls() -> None:
    offset = np.indices((30, 30, 30), dtype=np.float32) - 14.5
    cavity = np.linalg.norm(offset, axis=0) < 8.0
    # What is there lay farther out before surgery, by these parts of the volume.
    holds = [hold_of(cavity, offset * np.float32(part / 3.0)) for part in (0.4, DRAWN_IN, DRAWN_IN / 2, 0.0, -0.2)]
    np.testing.assert_allclose(holds, [LOOSE, LOOSE, np.sqrt(LOOSE), 1.0, 1.0], rtol=1e-3)
    assert hold_of(np.zeros_like(cavity), offset) == 1.0, "without a cavity nothing is loose"


def test_firm_nodes_lie_in_tissue() -> None:
    gone = np.zeros((24, 30, 20), dtype=bool)
    gone[:, 10:, :] = True
    lattice = Lattice(8.0, (48.0, 60.0, 40.0))
    firm = firm_nodes(lattice, gone, (2.0, 2.0, 2.0))
    # Node n lies n - 1 spacings into the box, the border of what is gone at 20 mm.
    np.testing.assert_allclose(firm[3, :3, 3], 1.0)
    assert firm[3, 3, 3] > 0.9 > 0.1 > firm[3, 5, 3]
    np.testing.assert_allclose(firm[3, 5:9, 3], LOOSE, atol=1e-6)
    part, nodes = lattice.part((16.0, 8.0, 8.0), (24.0, 32.0, 24.0))
    assert firm[nodes].shape == part.shape


def test_brain_mask_of_a_head_and_of_its_stripped_brain(head: Any, scan: Any, preop: Image) -> None:
    volume = Volume(preop.array.astype(np.float32), preop.ras_from_ijk).shrunk(2.0)
    truth = head.brain(grid_points(volume.values.shape, volume.ras_from_ijk))
    for values in (volume.values, volume.values * truth):
        found = brain_of(Volume(values, volume.ras_from_ijk))
        assert found.shape == truth.shape
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93


def test_no_brain_is_said(preop: Image) -> None:
    noise = Volume(np.random.default_rng(0).random(preop.array.shape).astype(np.float32), preop.ras_from_ijk)
    with pytest.raises(RegistrationError, match="give a brain mask"):
        brain_of(noise.shrunk(2.0))


def test_cavity_with_and_without_a_dark_tumour() -> None:
    shape, voxel = (48, 48, 48), (2.0, 2.0, 2.0)
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - 24.0, axis=-1)
    brain = distance < 22
    fixed = np.random.default_rng(0).normal(100.0, 6.0, shape).astype(np.float32)
    carried = np.random.default_rng(1).normal(100.0, 6.0, shape).astype(np.float32)
    hole = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - (24, 24, 34), axis=-1) < 6
    nowhere = np.zeros(shape, bool)
    assert not any(part.any() for part in find_cavity(fixed, carried, brain, brain, nowhere, voxel))
    fixed[22:25, 22:25, 22:25] = 15.0
    assert not any(part.any() for part in find_cavity(fixed, carried, brain, brain, nowhere, voxel)), (
        "too small for a resection"
    )
    fixed[hole] = 15.0
    found, *_ = find_cavity(fixed, carried, brain, brain, nowhere, voxel)
    assert 2 * (found & hole).sum() / (found.sum() + hole.sum()) > 0.9
    necrosis = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - (24, 24, 34), axis=-1) < 4
    carried[necrosis] = 30.0
    for tumour in (nowhere, hole):
        found, *_ = find_cavity(fixed, carried, brain, brain, tumour, voxel)
        assert 2 * (found & hole).sum() / (found.sum() + hole.sum()) > 0.9


def test_necrosis_that_nobody_took_out_and_what_was_not_scanned_are_no_cavity() -> None:
    shape, voxel = (48, 48, 48), (2.0, 2.0, 2.0)
    offset = np.moveaxis(np.indices(shape), 0, -1) - 24.0
    brain, tumour = (np.linalg.norm(offset - at, axis=-1) < r for at, r in ((0, 22), ((0, 0, 10), 8)))
    fixed, carried = (np.random.default_rng(n).normal(100.0, 6.0, shape).astype(np.float32) for n in (0, 1))
    core = np.linalg.norm(offset - (0, 0, 10), axis=-1) < 6
    fixed[core] = carried[core] = 30.0
    assert not any(part.any() for part in find_cavity(fixed, carried, brain, brain, tumour, voxel)), "as dark before"
    fixed[tumour] = 30.0
    found, *_ = find_cavity(fixed, carried, brain, brain, tumour, voxel)
    assert 2 * (found & tumour).sum() / (found.sum() + tumour.sum()) > 0.9, "its rim is gone"
    # The scan ends in the brain; what fills the box up, and half of the slice before, is dark.
    fixed[36:], fixed[35] = 0.0, 0.5 * fixed[35]
    found, *_ = find_cavity(fixed, carried, brain, brain, tumour, voxel)
    assert not found[35:].any()
    assert found.any()


def test_a_brain_that_has_sunk_under_air_has_no_cavity_but_for_what_is_taken_out_of_it() -> None:
    """The brain lies 8 mm under the dura, and the fit has not followed: a sheet as thick is dark now, tissue then."""
    shape, voxel = (48, 48, 48), (2.0, 2.0, 2.0)
    offset = np.moveaxis(np.indices(shape), 0, -1) - 24.0
    before, now = (np.linalg.norm(offset + at, axis=-1) < 22 for at in ((0, 0, 0), (4, 0, 0)))
    fixed, carried = (np.random.default_rng(n).normal(100.0, 4.0, shape).astype(np.float32) for n in (0, 1))
    sinus = before & (np.linalg.norm(offset - (20, 0, 0), axis=-1) < 5)
    carried[sinus], fixed[~now], tumour = 180.0, 5.0, np.zeros(shape, bool)
    way = (np.hypot(offset[..., 1], offset[..., 2]) < 5) & now & (offset[..., 0] > 6)
    lobe = before & (offset[..., 1] > 6)
    sideways = before & (np.linalg.norm(offset - (0, 0, 12), axis=-1) < 6)
    for gone in (tumour, way, lobe):
        image = np.where(gone, np.float32(15.0), fixed)
        for known in (tumour, sideways):
            found, *_ = find_cavity(image, carried, now & ~gone, before, known, voxel)
            assert (found & ~within_mm(gone, 4.0, voxel)).sum() * 8e-3 < 0.1
            assert not gone.any() or (found & gone).sum() > 0.85 * gone.sum()


@pytest.mark.parametrize("known", [True, False])
def test_a_shallow_trough_in_the_surface_is_a_cavity_where_the_tumour_was(known: bool) -> None:
    """12 mm deep and 60 mm wide: without a tumour there it may as well be brain that has sunk."""
    shape, voxel = (48, 48, 48), (2.0, 2.0, 2.0)
    offset = np.moveaxis(np.indices(shape), 0, -1) - 24.0
    brain = np.linalg.norm(offset, axis=-1) < 22
    trough = brain & (offset[..., 0] > 15)
    fixed, carried = (np.random.default_rng(n).normal(100.0, 4.0, shape).astype(np.float32) for n in (0, 1))
    fixed[trough] = 15.0
    found, *_ = find_cavity(fixed, carried, brain & ~trough, brain, trough & known, voxel)
    assert (found & trough).sum() > 0.9 * trough.sum() if known else not found.any()


def test_air_about_an_enhancing_sinus_is_no_cavity() -> None:
    """The brain carried over has it where there is air now: the sinus has stayed with the dura. Others are bright."""
    case = Operated()
    case.now[:, 38:] = case.before[:, 38:] = 180.0
    case.now[case.sinus], case.now[case.tumour] = 5.0, 20.0
    fluid, _, stayed = case.found()
    assert 2 * (fluid & case.tumour).sum() / (fluid.sum() + case.tumour.sum()) > 0.9
    assert (stayed & case.sinus).sum() > 0.9 * case.sinus.sum(), "nor is it matched"
    assert not (stayed & ~within_mm(case.sinus, 4.0, case.VOXEL)).any()


class Operated:
    """A brain with a tumour, bright rim about a dark core, and a sinus away from it, before and during surgery."""

    VOXEL = (2.0, 2.0, 2.0)

    def __init__(self, agent: bool = True) -> None:
        shape = (48, 48, 48)
        offset = np.moveaxis(np.indices(shape), 0, -1) - 24.0
        self.brain, self.tumour, self.core = (
            np.linalg.norm(offset - at, axis=-1) < r for at, r in ((0, 22), ((0, 0, 10), 8), ((0, 0, 10), 5))
        )
        self.sinus = (np.abs(offset[..., 0]) < 2.5) & (np.abs(offset[..., 2] + 12) < 2.5) & self.brain
        self.now, self.before = (np.random.default_rng(n).normal(100.0, 4.0, shape).astype(np.float32) for n in (0, 1))
        rim = self.tumour & ~self.core
        self.before[rim], self.before[self.core], self.before[self.sinus] = 170.0, 35.0, 180.0
        self.now[rim], self.now[self.core], self.now[self.sinus] = 170.0, 35.0, 180.0
        if not agent:
            self.now[rim], self.now[self.sinus] = 75.0, 35.0

    def found(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return find_cavity(self.now, self.before, self.brain, self.brain, self.tumour, self.VOXEL)


@pytest.mark.parametrize("agent", [True, False])
def test_a_tumour_that_is_whole_and_a_sinus_without_agent_are_no_cavity(agent: bool) -> None:
    fluid, filled, _ = Operated(agent).found()
    assert not fluid.any()
    assert not filled.any()


@pytest.mark.parametrize("level", [80.0, 100.0, 175.0])
@pytest.mark.parametrize("agent", [True, False])
def test_what_fills_the_place_of_a_tumour_is_seen(agent: bool, level: float) -> None:
    case = Operated(agent)
    case.now[case.tumour] = level
    fluid, filled, _ = case.found()
    assert not fluid.any()
    assert (filled & case.core).sum() > 0.9 * case.core.sum()
    assert (filled & ~case.tumour).sum() < 0.02 * case.tumour.sum()
    if agent == (level <= 100.0):
        # With agent the rim that no longer enhances, without it all that is brighter than tissue.
        assert (filled & case.tumour).sum() > 0.9 * case.tumour.sum()


def test_saline_beside_clot_is_told_apart() -> None:
    case = Operated()
    upper = case.tumour & (np.indices(case.tumour.shape)[0] > 24)
    case.now[case.tumour] = 100.0
    case.now[upper] = 20.0
    fluid, filled, _ = case.found()
    assert 2 * (fluid & upper).sum() / (fluid.sum() + upper.sum()) > 0.9
    lower = case.tumour & ~upper
    assert (filled & lower).sum() > 0.8 * lower.sum()
    assert not (filled & fluid).any()


def test_the_wall_of_the_cavity_lies_half_way_to_what_is_bright_beside_it() -> None:
    """Voxels that are fluid by 60 %, the rest clot twice as bright as brain: theirs is no dark grey value."""
    shape, voxel = (48, 48, 48), (2.0, 2.0, 2.0)
    from_hole = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - 24.0, axis=-1)
    brain, core, wall = from_hole < 22, from_hole < 6, (from_hole >= 6) & (from_hole < 7)
    carried = np.random.default_rng(1).normal(100.0, 3.0, shape).astype(np.float32)
    found = []
    for part in (0.6, 0.4):
        fixed = np.random.default_rng(0).normal(100.0, 3.0, shape).astype(np.float32)
        fixed[(from_hole >= 7) & (from_hole < 9)] = 190.0
        fixed[core], fixed[wall] = 20.0, part * 20.0 + (1 - part) * 190.0
        cavity, *_ = find_cavity(fixed, carried, brain, brain, np.zeros(shape, bool), voxel)
        assert cavity[core].all()
        assert not cavity[from_hole >= 7].any()
        found.append(float(cavity[wall].mean()))
    assert found[0] > 0.85
    assert found[1] < 0.1


def test_blood_on_the_wall_is_seen_and_other_contrast_is_not() -> None:
    shape, voxel = (48, 48, 48), (2.0, 2.0, 2.0)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    from_hole = np.linalg.norm(grid - (24, 24, 30), axis=-1)
    brain = np.linalg.norm(grid - 24.0, axis=-1) < 22
    white = (grid[..., 2] // 6) % 2 == 0
    rng = np.random.default_rng(0)
    carried = (np.where(white, 110.0, 90.0) + rng.normal(0, 3.0, shape)).astype(np.float32)
    fixed = (np.where(white, 55.0, 49.0) + rng.normal(0, 1.5, shape)).astype(np.float32)
    cavity = from_hole < 6
    fixed[cavity] = 8.0
    assert not (find_stains(fixed, carried, brain, cavity, voxel) & (from_hole > 8)).any()
    clot = brain & (from_hole < 8) & (grid[..., 0] < 24)
    far = brain & (np.linalg.norm(grid - (24, 24, 10), axis=-1) < 4)
    fixed[clot | far] = 110.0
    found = find_stains(fixed, carried, brain, cavity, voxel)
    assert found[clot & ~cavity].all()
    assert not found[far].any()
    assert not (found & (from_hole > 9.5)).any(), "one voxel around, no more"
    assert not find_stains(fixed, carried, brain, np.zeros_like(cavity), voxel).any()
    rim = brain & (from_hole < 8)
    carried[rim] = 220.0
    found = find_stains(fixed, carried, brain, cavity, voxel)
    assert found[clot & ~cavity & (from_hole < 7.5)].all(), "as bright as the rim that was there"


#: Stands in for the package: counts as greedy does, and writes a field of 1, 2, 3 voxels.
STAND_IN = """
import sys, SimpleITK as sitk
class Greedy3D:
    def execute(self, command):
        words = command.split()
        fixed = sitk.ReadImage(words[words.index("-i") + 1])
        for step in range(110):
            print("Level   0  Iter", step)
        field = sitk.Compose(*[sitk.Image(fixed.GetSize(), sitk.sitkFloat32) + value for value in (1.0, 2.0, 3.0)])
        if "{mode}" == "fails":
            print("no memory")
            sys.exit(3)
        sitk.WriteImage(field, words[words.index("-o") + 1])
"""


def ours(grid: np.ndarray, cavity: bool) -> DeformableRegistration:
    shape = (20, 22, 24)
    gone = np.zeros(shape, np.uint8)
    gone[:4] = cavity
    none = Image(np.zeros((*shape, 3), np.float32), grid)
    brain, doubt = Image(1 - gone, grid), Image(np.ones(shape, np.float32), grid)
    verdict = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
    return DeformableRegistration(np.eye(4), none, none, Image(gone, grid), brain, doubt, verdict, False, 1.0, "f", "m")


@pytest.fixture
def greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(mode: str) -> None:
        (tmp_path / "picsl_greedy.py").write_text(STAND_IN.replace("{mode}", mode))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(engines, "greedy_available", lambda: True)

    return install


def test_cross_check_runs_beside_us(greedy: Callable[[str], None], directions: np.ndarray) -> None:
    greedy("works")
    grid = corner_from_centre(directions * 2.0, (1.0, 2.0, 3.0), (24, 22, 20))
    image = Image(np.random.default_rng(1).normal(100, 10, (20, 22, 24)).astype(np.float32), grid)
    told: list[float] = []

    def tell(fraction: float, _what: str) -> bool:
        told.append(fraction)
        return True

    field, apart = greedy_disagreement(image, image, ours(grid, True), progress=tell)
    np.testing.assert_allclose(field.array[3, 4, 5], grid[:3, :3] @ (1.0, 2.0, 3.0), atol=1e-4)
    length = 2.0 * np.sqrt(14.0)
    np.testing.assert_allclose(apart.array, length, rtol=1e-5)
    assert told[-1] == 1.0
    whole, near = engines.disagreement_summary(apart, ours(grid, True), "greedy")
    assert whole.value == pytest.approx(length)
    assert near.value == pytest.approx(length)
    assert whole.based_on == ("f", "m")
    assert engines.disagreement_summary(apart, ours(grid, False), "greedy")[1].missing_because == "no cavity was found"


def test_cross_check_ends_at_once_and_says_why_it_failed(greedy: Callable[[str], None]) -> None:
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    image = Image(np.random.default_rng(1).normal(100, 10, (20, 22, 24)).astype(np.float32), grid)
    greedy("works")
    with pytest.raises(Cancelled):
        greedy_disagreement(image, image, ours(grid, True), progress=lambda fraction, _: fraction < 0.1)
    greedy("fails")
    with pytest.raises(RegistrationError, match="no memory"):
        greedy_disagreement(image, image, ours(grid, True))


def test_disagreement_of_poses_is_where_each_puts_the_tissue(directions: np.ndarray) -> None:
    grid = corner_from_centre(directions * 2.0, (1.0, 2.0, 3.0), (24, 22, 20))
    moved = np.eye(4)
    moved[:3, 3] = (0.0, 3.0, 4.0)
    apart = engines.poses_disagreement(ours(grid, False), moved)
    np.testing.assert_allclose(apart.array, 5.0, rtol=1e-5)


def test_cross_check_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, preop: Image) -> None:
    monkeypatch.setattr(engines, "greedy_available", lambda: False)
    with pytest.raises(RegistrationError, match="picsl_greedy"):
        greedy_disagreement(preop, preop, None)  # type: ignore[arg-type]
