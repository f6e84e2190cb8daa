"""Leads of 1.27 mm in a brain with sulci, vessels and a ventricle: found where they are, and nowhere without one."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ORIENTATIONS
from IntraopMRILib.assess.implant import Trajectory, compare
from IntraopMRILib.assess.implant_detection import find_implant
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.reconstruct.metal import implant_shift
from IntraopMRIReconstructionLib.simulate.metal import MetalScan, with_rod
from scipy import ndimage

SIZE, DIAMETER, TOP = 84, 1.27, 36.0
TITANIUM, PLATINUM_IRIDIUM = 182.0, 260.0


class Head:
    """Tissue with dark sheets (sulci), dark tubes (vessels) and a ventricle below a wavy cortex; air above."""

    def __init__(self, seed: int, directions: np.ndarray) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.grid = np.eye(4)
        self.grid[:3, :3] = directions
        self.grid[:3, 3] = -directions @ np.full(3, (SIZE - 1) / 2)
        k, j, i = np.indices((SIZE,) * 3)
        self.ras = ras = apply(self.grid, np.stack([i, j, k], axis=-1))
        tissue = 100 + 200 * ndimage.gaussian_filter(rng.normal(size=(SIZE,) * 3), 3)
        for _ in range(5):
            normal = rng.normal(size=3) * (1.0, 1.0, 0.2)
            normal /= np.linalg.norm(normal)
            at, turn = rng.uniform(-35, 35), np.cross(normal, [0, 0, 1])
            wave = 2.5 * np.sin(ras @ turn / rng.uniform(4, 8) + rng.uniform(0, 6))
            sheet = np.abs(ras @ normal - at + wave) - rng.uniform(0.6, 1.6)
            tissue = _put(tissue, np.maximum(sheet, TOP - ras[..., 2] - rng.uniform(8, 22)), 35)
        for _ in range(6):
            place, along = rng.uniform(-28, 28, 3), rng.normal(size=3)
            along /= np.linalg.norm(along)
            bend = rng.normal(size=3)
            bend -= (bend @ along) * along
            curve, off = rng.uniform(0, 1) / 60, ras - place
            t = off @ along
            beside = np.linalg.norm(off - t[..., None] * along - (t**2 * curve)[..., None] * bend, axis=-1)
            tissue = _put(tissue, np.maximum(beside - rng.uniform(0.5, 1.5), np.abs(t) - rng.uniform(15, 45)), 12)
        ventricle = np.linalg.norm((ras - (rng.uniform(-12, 12), 0, -10)) / (5, 14, 6), axis=-1) - 1
        self.tissue = np.where(ras[..., 2] > TOP + 2, 3.0, _put(tissue, 5 * ventricle, 32))
        tip = np.array([rng.uniform(-14, 14), rng.uniform(-10, 10), -22 + rng.normal(0, 2)])
        entry = np.array([tip[0] + rng.uniform(-18, 18), tip[1] + rng.uniform(-18, 18), 30.0])
        self.plan = Trajectory(entry, tip, DIAMETER, "Lead")
        off = rng.normal(0, 1.2, (2, 3))
        self.truth = Trajectory(entry + off[0], tip + off[1], DIAMETER, "Lead")

    def image(self, picture: np.ndarray, scan: MetalScan) -> Image:
        noise = 3 * (self.rng.normal(size=picture.shape) + 1j * self.rng.normal(size=picture.shape))
        return Image(np.abs(picture + noise).astype(np.float32), self.grid, metadata=scan.facts())

    def with_lead(self, scan: MetalScan) -> Image:
        ends = (self.truth.entry_ras_mm, self.truth.tip_ras_mm)
        return self.image(with_rod(self.tissue.astype(np.float32), self.grid, ends, DIAMETER, scan), scan)

    def with_tube(self, width_mm: float, scan: MetalScan) -> Image:
        """A void of that width all round the lead, whatever the scan says of its metal."""
        off = self.ras - self.truth.entry_ras_mm
        t = off @ self.truth.direction
        beside = np.linalg.norm(off - t[..., None] * self.truth.direction, axis=-1) - width_mm / 2
        ends = np.maximum(-t, t - self.truth.length_mm) - (width_mm - DIAMETER) / 2
        return self.image(_put(self.tissue, np.maximum(beside, ends), 3), scan)


def _put(tissue: np.ndarray, distance_mm: np.ndarray, value: float) -> np.ndarray:
    part = np.clip(0.5 - distance_mm, 0, 1)
    return np.asarray(tissue * (1 - part) + value * part)


def judged(head: Head, image: Image, ppm: float) -> tuple[float, float]:
    """(error of the tip mm, of the axis deg); every interval holds the truth."""
    found = find_implant(image, head.plan, shift=implant_shift(image, head.plan.direction, DIAMETER, ppm))
    true = {m.name: m.value for m in compare(head.plan, head.truth)}
    for measured in compare(head.plan, found.trajectory, spread=found.spread)[:5]:
        value = true[measured.name]
        assert measured.interval is not None
        assert value is not None
        assert measured.interval[0] <= value <= measured.interval[1], measured.name
    turned = np.linalg.norm(np.cross(found.trajectory.direction, head.truth.direction))
    return float(np.linalg.norm(found.trajectory.tip_ras_mm - head.truth.tip_ras_mm)), float(np.rad2deg(turned))


@pytest.mark.parametrize(("field_t", "ppm"), [(1.5, TITANIUM), (3.0, PLATINUM_IRIDIUM)])
@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_a_lead_is_found_where_it_is(name: str, field_t: float, ppm: float) -> None:
    head = Head(sorted(ORIENTATIONS).index(name), ORIENTATIONS[name])
    tip_mm, turned_deg = judged(head, head.with_lead(MetalScan(field_t, ppm, 700.0)), ppm)
    assert tip_mm < 2.5
    assert turned_deg < 0.3


@pytest.mark.parametrize(("name", "width_mm"), [("LAS", 1.0), ("LPS", 2.0), ("RAS", 3.0), ("oblique", 4.0)])
def test_an_artefact_of_any_width_is_the_lead(name: str, width_mm: float) -> None:
    """One of 4 mm was refused: more than three times as wide as the lead."""
    head = Head(5, ORIENTATIONS[name])
    tip_mm, turned_deg = judged(head, head.with_tube(width_mm, MetalScan(1.5, TITANIUM, 700.0)), TITANIUM)
    assert tip_mm < 1.5
    assert turned_deg < 0.3


@pytest.mark.parametrize("seed", [4, 11, 17, 23])
def test_sulci_and_vessels_on_the_way_are_no_lead(seed: int) -> None:
    """Each of these gave a lead: 'check', with numbers."""
    head = Head(seed, ORIENTATIONS[sorted(ORIENTATIONS)[seed % 4]])
    with pytest.raises(AssessmentError, match="no signal void like 'Lead'"):
        find_implant(head.image(head.tissue, MetalScan()), head.plan)


def test_an_entry_in_air_leaves_no_doubt_of_the_tip() -> None:
    """Nothing ends the void of a lead in air: every interval had 403 mm to either side, tip and angle too."""
    head = Head(2, ORIENTATIONS[sorted(ORIENTATIONS)[2]])
    image = head.with_tube(1.5, MetalScan(1.5, TITANIUM, 700.0))
    shift = implant_shift(image, head.plan.direction, DIAMETER, TITANIUM)
    found = find_implant(image, head.plan, shift=shift)
    assert found.spread.ball_mm < 3.0
    assert np.linalg.norm(found.trajectory.tip_ras_mm - head.truth.tip_ras_mm) < found.uncertainty_mm
