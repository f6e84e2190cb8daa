"""The picture with the pointer is taken beside the residual where the tip has been there, and never waits in vain."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.cli import follow
from IntraopMRILib.cli.outcome import PointerSample
from IntraopMRILib.session import Plan, Session
from IntraopMRIReconstructionLib.data import Image, Measurement, Pose

#: What the screen says of the tip while the pointer comes back to the residual, mm.
COMING = (30.0, 21.0, 13.0, 8.0, 3.0)


@pytest.fixture
def begun(tmp_path: Path) -> Any:
    head = Image(np.random.default_rng(0).random((9, 11, 13), dtype=np.float32), np.eye(4), patient_id="P-1")
    plan = Plan("P-1", "test", head, head.with_array((head.array > 0.5).astype(np.uint8)))
    with Session(plan) as session:
        yield follow._Run(plan, session, tmp_path, 30.0)


def shown(begun: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Distances that were looked at until the picture may be taken."""
    looked: list[float] = []

    def measure() -> Measurement:
        looked.append(COMING[min(len(looked), len(COMING) - 1)])
        return Measurement("Tip to residual", looked[-1], "mm", "test")

    monkeypatch.setattr(begun.view, "tipToResidual", measure)
    monkeypatch.setattr(begun.view, "waitsForPose", lambda: False)
    return looked


def been(*distances_mm: float | None) -> list[PointerSample]:
    pose = Pose(np.eye(4), "Pointer", time.monotonic(), time.time())
    return [PointerSample(pose, distance) for distance in distances_mm]


def test_it_waits_until_the_tip_is_beside_the_residual(begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun.outcome.samples = been(40.0, None, 5.0, 40.0)
    looked = shown(begun, monkeypatch)
    begun._settle(near=True)
    assert looked == [30.0, 21.0, 13.0, 8.0]


@pytest.mark.parametrize(("near", "before"), [(True, (40.0, None)), (True, ()), (False, (5.0,))])
def test_it_does_not_wait_where_the_tip_has_not_been_there(
    begun: Any, monkeypatch: pytest.MonkeyPatch, near: bool, before: tuple[float | None, ...]
) -> None:
    begun.outcome.samples = been(*before)
    looked = shown(begun, monkeypatch)
    begun._settle(near=near)
    assert looked == [30.0]


def test_a_pointer_that_does_not_come_back_is_not_waited_for_without_end(
    begun: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun.outcome.samples = been(5.0)
    monkeypatch.setattr(follow, "RETURN_S", 0.05)
    monkeypatch.setattr(begun.view, "tipToResidual", lambda: None)
    begun._settle(near=True)
