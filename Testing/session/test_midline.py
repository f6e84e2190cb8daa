"""On which side a screw leaves its pedicle, of a patient who does not lie in the middle of the scanner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.session import Plan
from IntraopMRILib.session.implants import carriers, found_implant
from IntraopMRIReconstructionLib.data import Image, Level, no_progress
from session.small_world import PATIENT, SmallWorld, Truth, verdict_of

SCREW = "Screw L2"


def box(shape: tuple[int, int, int], low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return array


@pytest.mark.parametrize("middle_r_mm", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize(("side", "off_mm", "expected"), [
    ("right", -4.0, "medial"), ("right", 4.0, "lateral"), ("left", 4.0, "medial"), ("left", -4.0, "lateral"),
])  # fmt: skip
def test_medial_is_toward_the_vertebra_wherever_the_patient_lies(
    middle_r_mm: float, side: str, off_mm: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canal lies medial: with 60 mm between patient and scanner a screw in it was told to be lateral."""
    world, grid = SmallWorld(), np.diag([2.0, 2.0, 2.0, 1.0])
    shape = (24, 40, 44)
    grid[:3, 3] = (middle_r_mm - 43.0, -40.0, -24.0)
    bone = Image(box(shape, (6, 8, 6), (18, 32, 38)), grid, "L2")
    columns = (28, 32) if side == "right" else (12, 16)
    pedicle = Image(box(shape, (9, 10, columns[0]), (15, 26, columns[1])), grid, "pedicle")
    at = middle_r_mm + 2.0 * (columns[0] + 1.5) - 43.0
    screw = Trajectory(np.array([at, -24.0, -1.0]), np.array([at, 20.0, -1.0]), 4.0, SCREW)
    plan = Plan(
        PATIENT, "test", Image(np.ones(shape, np.float32), grid, "before"), trajectories=(screw,),
        vertebrae={"L2": bone}, implanted={SCREW: "L2"}, pedicles={SCREW: pedicle},
    )  # fmt: skip
    scan = Image(np.ones(shape, np.float32), grid, "scan")
    world.truths["scan"] = Truth()
    monkeypatch.setattr(SmallWorld, "pose", staticmethod(lambda _truth: np.eye(4)))
    world.stand_in(monkeypatch)
    by = np.array([off_mm, 0.0, 0.0])
    actual = replace(screw, entry_ras_mm=screw.entry_ras_mm + by, tip_ras_mm=screw.tip_ras_mm + by)
    detected = DetectedImplant(actual, Spread(0.1), None, verdict_of("void", Level.GOOD), scan, 4.0)
    monkeypatch.setattr("IntraopMRILib.session.implants.find_implant", lambda *_, **__: detected)
    rigid = world._rigid(scan, plan.preoperative, progress=no_progress)
    carrier = carriers(plan, scan, rigid, no_progress, 1).by_name[SCREW]
    breach = found_implant(scan, screw, carrier, pedicle).breach
    assert breach is not None
    assert breach.direction == expected
    unnamed = found_implant(scan, screw, replace(carrier, middle_mm=None), pedicle).breach
    assert unnamed is not None
    assert unnamed.direction == ("right" if off_mm > 0 else "left")
