"""A case written and read again, and what is said when it is not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.simulate.anatomy import Anatomy
from IntraopMRIReconstructionLib.simulate.case_files import (
    POINTER_STOPS_MM,
    pointer_stops,
    read_case,
    read_plan,
    read_pointer,
    read_scan,
    read_truth,
    scans_of,
    write_case,
)
from IntraopMRIReconstructionLib.simulate.phantom import CONTRAST, NATIVE, make_brain_case
from IntraopMRIReconstructionLib.simulate.spine import SPINE, SpineCase


def test_what_was_written_is_read(directions: np.ndarray, small_head: Anatomy, tmp_path: Path) -> None:
    brain = make_brain_case(3, small_head, "easy", spacing_mm=4.0, directions=directions)
    write_case(tmp_path, brain, None, "P-1")
    case = read_case(tmp_path)
    assert case.preop is not None
    assert case.tumour is not None
    assert case.preop.patient_id == "P-1"
    assert case.spine_preop is None
    assert np.array_equal(case.preop.array, brain.preop.array)
    assert case.preop.ras_from_ijk == pytest.approx(brain.preop.ras_from_ijk)
    assert np.array_equal(case.tumour.array, brain.tumour.array)
    scan = read_scan(tmp_path, CONTRAST)
    assert scan.name == CONTRAST
    assert scan.ras_from_ijk == pytest.approx(brain.intraop[CONTRAST].ras_from_ijk)
    known, truth = read_truth(tmp_path)
    assert truth is not None
    assert truth.residual_ml == pytest.approx(brain.truth.residual_ml)
    assert known["brain"]["residual_ml"] == pytest.approx(brain.truth.residual_ml)
    points = brain.truth.intraop_from_preop_points([[20.0, -5.0, 10.0], [-30.0, 8.0, -4.0]])
    assert truth.preop_from_intraop(points) == pytest.approx(brain.truth.preop_from_intraop(points), abs=1e-4)
    # What ITK makes of the displacement on disk is the same motion, in LPS.
    field = SimpleITK.DisplacementFieldTransform(
        SimpleITK.Cast(SimpleITK.ReadImage(str(tmp_path / "truth" / "pull.nrrd")), SimpleITK.sitkVectorFloat64)
    )
    flip = np.array([-1, -1, 1])
    moved = np.array(field.TransformPoint((points[0] * flip).tolist())) * flip
    aligned = apply(truth.intraop_from_preop, truth.preop_from_intraop(points[0]))
    assert moved == pytest.approx(aligned, abs=1e-3)


def test_the_pipeline_finds_no_truth_in_its_folder(case_folder: Path) -> None:
    names = {path.name for path in (case_folder / "case").iterdir()}
    spine = {"spine_preop.nrrd", "vertebrae.nrrd", "pedicle.nrrd"}
    assert names == {"preop.nrrd", "flair.nrrd", "tumour.seg.nrrd", "at_risk.seg.nrrd", "plan.json"} | spine
    assert scans_of(case_folder) == [NATIVE, CONTRAST, SPINE]


def test_the_tumour_is_a_segmentation_that_slicer_knows(case_folder: Path) -> None:
    image = SimpleITK.ReadImage(str(case_folder / "case" / "tumour.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") == "enhancing"
    assert image.GetMetaData("Segment0_LabelValue") == "1"
    assert image.GetMetaData("Segment2_ID") == "Segment_3"


def test_the_plan_is_read_in_preoperative_ras(case_folder: Path, spine_case: SpineCase) -> None:
    plan = read_plan(case_folder / "case" / "plan.json")
    assert plan.patient_id == "SIM-7"
    assert plan.implant is not None
    assert plan.implant.tip_ras_mm == pytest.approx(spine_case.plan.tip_ras_mm)


def test_pointer_stops_have_the_distances_that_the_truth_says(case_folder: Path, small_head: Anatomy) -> None:
    known, truth = read_truth(case_folder)
    assert truth is not None
    stops, shaft = read_pointer(case_folder)
    voxels = apply(truth.residual.ras_from_ijk, np.argwhere(truth.residual.array)[:, ::-1])
    assert np.linalg.norm(shaft) == pytest.approx(1.0)
    for stop, wanted in zip(stops, POINTER_STOPS_MM, strict=True):
        distance = np.linalg.norm(voxels - stop.tip_ras_mm, axis=-1).min()
        assert known["brain"]["pointer_distance_to_residual_mm"][stop.name] == pytest.approx(distance, abs=1e-6)
        assert distance == pytest.approx(wanted, abs=1e-6)
    bare = make_brain_case(7, small_head, "easy", residual_ml=0.0, spacing_mm=4.0)
    assert len(pointer_stops(bare)[0]) == len(POINTER_STOPS_MM)


def test_broken_cases_are_named(case_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a brain or a spine, got neither"):
        write_case(tmp_path, None, None)
    with pytest.raises(DataError, match=r"there is no plan.json in .*; make the case first"):
        read_case(tmp_path)
    shutil.copytree(case_folder / "case", tmp_path / "case")
    plan = tmp_path / "case" / "plan.json"
    plan.write_text("{")
    with pytest.raises(DataError, match=r"cannot be read: .*; make the case again"):
        read_case(tmp_path)
    plan.write_text(json.dumps({"patient_id": "P", "patient_name": "N", "implant": {"entry_ras_mm": [1, 2]}}))
    with pytest.raises(DataError, match="is not a plan"):
        read_case(tmp_path)
    plan.write_text(json.dumps({"patient_id": "P", "patient_name": "N", "implant": None}))
    for name in ("preop.nrrd", "spine_preop.nrrd"):
        (tmp_path / "case" / name).unlink()
    with pytest.raises(DataError, match=r"holds neither preop.nrrd nor spine_preop.nrrd"):
        read_case(tmp_path)
