"""Screws whose voids touch: each is found at its own place, one that is missing is not, ends in air are no doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import ORIENTATIONS
from IntraopMRILib.assess.implant import Trajectory, compare
from IntraopMRILib.assess.implant_detection import find_implant
from IntraopMRILib.assess.implant_neighbours import separated
from IntraopMRILib.assess.implant_void import Region, Void
from IntraopMRILib.session.implants import Carrier, found_implant
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError, SessionError
from IntraopMRIReconstructionLib.reconstruct.metal import implant_shift
from IntraopMRIReconstructionLib.simulate.metal import MetalScan, with_rods
from scipy import ndimage

SIZE, DIAMETER, TITANIUM = 66, 6.0, 182.0


def pair(apart_mm: float, opening_deg: float) -> tuple[Trajectory, Trajectory]:
    """Right and left screw of one vertebra, so far apart at their tips, that converge."""
    wider = 32.0 * np.tan(np.deg2rad(opening_deg / 2.0))
    first, second = (
        Trajectory(
            np.array([side * (apart_mm / 2 + wider), -16.0, 1.0]),
            np.array([side * apart_mm / 2, 16.0, -1.0]),
            DIAMETER,
            name,
            TITANIUM,
        )
        for side, name in ((1.0, "Right"), (-1.0, "Left"))
    )
    return first, second


def scanned(
    directions: np.ndarray, plans: tuple[Trajectory, ...], scan: MetalScan, seed: int
) -> tuple[Image, list[Trajectory]]:
    """(picture, truth) of screws that miss their plans by about a millimetre."""
    rng = np.random.default_rng(seed)
    grid = np.eye(4)
    grid[:3, :3] = directions
    grid[:3, 3] = -directions @ np.full(3, (SIZE - 1) / 2)
    off = rng.uniform(-0.7, 0.7, (len(plans), 2, 3))
    truth = [
        replace(p, entry_ras_mm=p.entry_ras_mm + a, tip_ras_mm=p.tip_ras_mm + b)
        for p, (a, b) in zip(plans, off, strict=True)
    ]
    tissue = (100 + 60 * ndimage.gaussian_filter(rng.normal(size=(SIZE,) * 3), 3)).astype(np.float32)
    picture = with_rods(tissue, grid, [each.ends for each in truth], DIAMETER, scan)
    noise = 3 * (rng.normal(size=picture.shape) + 1j * rng.normal(size=picture.shape))
    return Image(np.abs(picture + noise).astype(np.float32), grid, metadata=scan.facts()), truth


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "apart_mm", "opening_deg", "field_t"),
    [("RAS", 9.0, 0.0, 1.5), ("LAS", 8.5, 8.0, 1.5), ("LPS", 9.0, 3.0, 3.0), ("oblique", 9.0, 0.0, 1.5)],
)
def test_two_screws_whose_voids_touch_are_both_found(
    name: str, apart_mm: float, opening_deg: float, field_t: float
) -> None:
    """One of them, or both, had been refused: the neighbour's void lies where tissue was looked for."""
    plans = pair(apart_mm, opening_deg)
    image, truth = scanned(
        ORIENTATIONS[name], plans, MetalScan(field_t, TITANIUM, 2000.0), sorted(ORIENTATIONS).index(name)
    )
    which = sorted(ORIENTATIONS).index(name) % 2
    plan, true = plans[which], truth[which]
    shift = implant_shift(image, plan.direction, DIAMETER, TITANIUM)
    found = find_implant(image, plan, shift=shift, others=plans[1 - which : 2 - which])
    assert found.beside == (plans[1 - which].name,)
    expected = {m.name: m.value for m in compare(plan, true)}
    for measured in compare(plan, found.trajectory, spread=found.spread)[:5]:
        assert measured.interval is not None
        value = expected[measured.name]
        assert value is not None
        assert measured.interval[0] <= value <= measured.interval[1], measured.name
    assert np.linalg.norm(found.trajectory.tip_ras_mm - true.tip_ras_mm) < 3.0


def test_beside_a_screw_that_is_there_a_missing_one_is_not_found() -> None:
    plans = pair(8.0, 3.0)
    image, _ = scanned(np.eye(3), plans[:1], MetalScan(3.0, TITANIUM, 600.0), 7)
    with pytest.raises((SessionError, AssessmentError), match="'Left'"):
        found_implant(image, plans[1], Carrier(np.eye(4), 0.2), None, others=plans)


def drawn(*voids: Trajectory) -> Region:
    """Tissue of 1 with a void of each trajectory."""
    grid = np.eye(4)
    grid[:3, 3] = -(SIZE - 1) / 2
    region = Region(np.ones((SIZE,) * 3), grid, (slice(0, SIZE),) * 3)
    for each in voids:
        aside, along = Void(each.entry_ras_mm, each.tip_ras_mm, 3.0, 0.4, 1.0, 0.1).cylindrical(region.points)
        inside = np.clip(3.5 - aside, 0, 1) * ((along > 0) & (along < each.length_mm))
        region = replace(region, remaining=region.remaining * (1.0 - inside))
    return region


def test_two_voids_that_may_be_exchanged_are_nobodys() -> None:
    """Both lie half way between the plans: one is as near to the one as to the other."""
    plans = pair(7.0, 0.0)
    by = np.array([0.0, 0.0, 3.8])
    along, across = (plans[0].ends[n] + plans[1].ends[n] for n in (0, 1))
    above, below = (
        replace(plans[0], entry_ras_mm=along / 2 + side * by, tip_ras_mm=across / 2 + side * by) for side in (1.0, -1.0)
    )
    fit = Void(above.entry_ras_mm, above.tip_ras_mm, 3.0, 0.4, 1.0, 0.1)
    with pytest.raises(AssessmentError, match="cannot be told which is that of 'Right' and which that of 'Left'"):
        separated(drawn(above, below), plans[0], fit, plans[1:], 10.0)
