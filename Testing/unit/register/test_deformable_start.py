"""A registration that begins from an earlier scan of the same position: as exact, shorter, dropped when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register.deformable import DeformableRegistration, register_deformable
from IntraopMRIReconstructionLib.data import FILLED, Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.geometry import apply, invert

CAVITY_AT, CAVITY_MM = np.array([34.0, 4.0, 42.0]), 15.0
SHIFT_MM = 8.0


class Look:
    """Two scans of one position: without agent, and with agent at the wall of the cavity. Tissue moved by SHIFT_MM."""

    def __init__(self, head: Any, scan: Any, pose: Any, shifted: Any) -> None:
        self.pose = pose((0.4, 1.0, 0.2), 6.0, (5.0, -4.0, 3.0))
        self._head, self._scan, self._shifted = head, scan, shifted
        self.preop = scan(head, seed=5)
        self.brain = self._drawn(lambda p: self._head.brain(p).astype(float))
        self.preop_brain = scan(lambda p: head.brain(p).astype(float), noise=0.0)
        self.preop_brain = self.preop_brain.with_array((self.preop_brain.array > 0.5).astype(np.uint8))
        self.native = self.scan(0.0, seed=6)
        self.contrast = self.scan(1.5, seed=7)

    def scan(self, agent: float, seed: int, shift_mm: float = SHIFT_MM) -> Image:
        def seen(points: np.ndarray) -> np.ndarray:
            away = np.linalg.norm(points - CAVITY_AT, axis=-1)
            values = self._head(points) * (1.0 + agent * ((away < CAVITY_MM + 3.0) & (points[..., 0] > 34.0)))
            return np.where(away < CAVITY_MM, 18.0, values)

        warp = lambda p: self._shifted(p, shift_mm)  # noqa: E731
        image: Image = self._scan(seen, head_from_ras=invert(self.pose), warp=warp, noise=3.0, seed=seed)
        return image

    def _drawn(self, inside: Callable[[np.ndarray], np.ndarray]) -> Image:
        warp = lambda p: self._shifted(p, SHIFT_MM)  # noqa: E731
        drawn: Image = self._scan(inside, head_from_ras=invert(self.pose), warp=warp, noise=0.0)
        return drawn.with_array((drawn.array > 0.5).astype(np.uint8))

    def errors(self, found: DeformableRegistration) -> np.ndarray:
        points = apply(self.brain.ras_from_ijk, np.argwhere(self.brain.array)[::40, ::-1].astype(float))
        before = self._shifted(apply(invert(self.pose), points), SHIFT_MM)
        tissue = np.linalg.norm(before - CAVITY_AT, axis=1) > CAVITY_MM
        return np.asarray(np.linalg.norm(found.preop_from_intraop(points) - before, axis=1)[tissue])

    def follow(self, fixed: Image, told: list[str] | None = None, **more: Any) -> DeformableRegistration:
        def progress(_fraction: float, what: str) -> bool:
            if told is not None:
                told.append(what)
            return True

        masks = {"fixed_mask": self.brain, "moving_mask": self.preop_brain}
        return register_deformable(fixed, self.preop, self.pose, progress=progress, **masks, **more)


@pytest.fixture
def look(head: Any, scan: Any, pose: Any, shifted: Any) -> Look:
    return Look(head, scan, pose, shifted)


def test_begun_from_the_scan_before_it_is_as_exact_and_shorter(look: Look) -> None:
    start = look.follow(look.native)
    plain, told = look.follow(look.contrast), list[str]()
    found = look.follow(look.contrast, told, start=start)
    assert found.begun_from == look.native.uid
    assert found.fixed_uid == look.contrast.uid
    assert plain.begun_from == ""
    assert look.errors(found).mean() < 1.05 * look.errors(plain).mean()
    assert np.quantile(look.errors(found), 0.95) < 1.05 * np.quantile(look.errors(plain), 0.95)
    assert found.verdict.level is plain.verdict.level
    assert not any("8 mm" in what or "4 mm" in what for what in told)
    # The cavity is that of the new scan.
    cavities = [np.count_nonzero(each.cavity.array) for each in (found, plain)]
    assert cavities[0] == pytest.approx(cavities[1], rel=0.05)


def test_a_start_from_a_brain_that_lay_otherwise_is_dropped(look: Look) -> None:
    start = look.follow(look.scan(0.0, 6, shift_mm=2.0))
    found, plain = look.follow(look.contrast, start=start), look.follow(look.contrast)
    assert found.begun_from == ""
    np.testing.assert_array_equal(found.shift.array, plain.shift.array)
    assert found.verdict == plain.verdict


def test_a_doubt_that_the_start_had_not_drops_it(look: Look) -> None:
    start = look.follow(look.native)
    sound = Verdict(tuple(Reason(r.name, r.value, r.unit, r.expected, Level.GOOD) for r in start.verdict.reasons))
    dark = look.contrast.with_array((255.0 - look.contrast.array).astype(np.float32))
    assert "contrast translated" in look.follow(dark).verdict.text
    assert look.follow(dark, start=replace(start, verdict=sound)).begun_from == ""


def test_clot_that_the_scan_without_agent_showed_is_known_in_the_next(look: Look) -> None:
    start = look.follow(look.native)
    assert start.fit is not None
    assert not start.fit.filled.any()
    seen = np.zeros_like(start.fit.filled)
    middle = np.argwhere(start.brain.array).mean(axis=0).astype(int)
    seen[tuple(slice(n - 3, n + 3) for n in middle)] = True
    doubtful = Verdict(
        (*start.verdict.reasons, Reason("clot or packing in the cavity", 1.7, "ml", "none", Level.CHECK))
    )
    found = look.follow(look.contrast, start=replace(start, fit=replace(start.fit, filled=seen), verdict=doubtful))
    assert found.begun_from == look.native.uid
    np.testing.assert_array_equal(found.cavity.array == FILLED, seen)
    assert "clot or packing in the cavity" in found.verdict.text


@pytest.mark.parametrize("other", ["grid", "preoperative volume", "unfinished"])
def test_a_start_of_another_grid_or_patient_is_not_even_tried(look: Look, other: str) -> None:
    start = look.follow(look.native)
    assert start.fit is not None
    if other == "grid":
        moved = start.fit.ras_from_ijk.copy()
        moved[0, 3] += 0.5
        start = replace(start, fit=replace(start.fit, ras_from_ijk=moved))
    elif other == "unfinished":
        start = replace(start, fit=None)
    else:
        start = replace(start, moving_uid="1.2.3")
    told: list[str] = []
    assert look.follow(look.contrast, told, start=start).begun_from == ""
    assert sum(what == "cutting out the brain" for what in told) == 1
