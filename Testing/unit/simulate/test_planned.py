"""What a brain case plans lies in tissue that surgery leaves; its files say where it is, the truth where it is now."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.simulate.case_files import read_case, read_truth
from IntraopMRIReconstructionLib.simulate.grids import index_coordinates, sampled
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from IntraopMRIReconstructionLib.simulate.planned import (
    BIOPSY,
    ENTRY,
    NEEDLE_CLEAR_MM,
    TRACT,
    TRACT_MARGIN_MM,
    TRACT_RADIUS_MM,
    PlannedThings,
    plan_things,
)
from scipy.spatial import KDTree


@pytest.fixture(scope="session")
def things(hard_case: BrainCase) -> PlannedThings:
    return plan_things(hard_case)


def voxels(label: Image) -> np.ndarray:
    return np.asarray(apply(label.ras_from_ijk, np.argwhere(label.array)[:, ::-1].astype(float)))


def taken(case: BrainCase) -> KDTree:
    gone = case.resection.cavity | np.isin(case.tumour.array, (1, 2))
    return KDTree(voxels(case.preop.with_array(gone)))


def test_all_of_it_is_still_there(hard_case: BrainCase, things: PlannedThings) -> None:
    truth = hard_case.truth
    points = np.vstack([*(np.reshape(p, (1, 3)) for p in things.points.values()), voxels(things.at_risk[TRACT])])
    now = truth.intraop_from_preop_points(points)
    there = sampled(truth.brain.array, index_coordinates(truth.brain.ras_from_ijk, now), outside=0.0)
    assert there.min() > 0.4


def test_the_needle_and_the_tract_keep_clear_of_what_is_taken_out(hard_case: BrainCase, things: PlannedThings) -> None:
    tree = taken(hard_case)
    target, entry = things.points[BIOPSY], things.points[ENTRY]
    path = target + np.linspace(0, 1, 60)[:, None] * (entry - target)
    assert tree.query(path)[0].min() > NEEDLE_CLEAR_MM - 0.5
    height, aside = hard_case.grown.opening.along_and_aside(np.stack([target, entry]).astype(np.float32))
    assert height[1] > height[0]
    assert aside.max() < hard_case.grown.opening.radius_mm
    tract = voxels(things.at_risk[TRACT])
    assert len(tract) > 300
    nearest = tree.query(tract)[0].min()
    assert TRACT_RADIUS_MM <= nearest <= TRACT_MARGIN_MM


def test_the_same_case_plans_the_same_and_is_left_as_it_was(hard_case: BrainCase, things: PlannedThings) -> None:
    again = plan_things(hard_case)
    assert np.array_equal(again.points[BIOPSY], things.points[BIOPSY])
    assert np.array_equal(again.at_risk[TRACT].array, things.at_risk[TRACT].array)


def test_the_files_hold_the_plan_and_the_truth_where_it_is_now(case_folder: Path) -> None:
    case = read_case(case_folder)
    assert list(case.plan.points) == [BIOPSY, ENTRY]
    assert case.plan.at_risk == (TRACT,)
    assert case.at_risk is not None
    header = SimpleITK.ReadImage(str(case_folder / "case" / "at_risk.seg.nrrd"))
    assert header.GetMetaData("Segment0_Name") == TRACT
    known, truth = read_truth(case_folder)
    assert truth is not None
    planned = known["brain"]["planned"]
    before = {name: np.reshape(point, (1, 3)) for name, point in case.plan.points.items()}
    before[TRACT] = voxels(case.at_risk)
    for name, places in before.items():
        now = truth.intraop_from_preop_points(places)
        assert planned[name]["now_ras_mm"] == pytest.approx(now.mean(axis=0), abs=0.01)
        moved = np.linalg.norm(now - apply(truth.intraop_from_preop, places), axis=-1).mean()
        assert planned[name]["moved_mm"] == pytest.approx(moved, abs=0.01)
    assert planned[BIOPSY]["moved_mm"] > 1.0


@pytest.mark.parametrize("points", [{"Biopsy": [1.0, 2.0]}, {"Biopsy": [1.0, 2.0, float("nan")]}, [1.0, 2.0]])
def test_a_broken_point_is_named(tmp_path: Path, points: object) -> None:
    plan = {"patient_id": "P", "patient_name": "N", "implant": None, "points": points}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DataError, match="is not a plan"):
        read_case(tmp_path)
