"""The DICOM objects of a session, read back by others: places, values, directions, UIDs and what must not be there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from IntraopMRILib.dicom_series import read_series
from IntraopMRILib.report.dicom.case import VERSION, Case
from IntraopMRILib.report.dicom.image import stored_voxels
from IntraopMRILib.report.dicom.write import write
from IntraopMRILib.workflow.record import PartEntry
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import Cancelled, DataError, SessionError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, apply, invert
from peers.dicom_case import PATIENT, case, moved, places, pose, record_of, scan, verdict
from pydicom.dataset import Dataset

pytest.importorskip("highdicom", reason="pip install highdicom: segmentations and reports are not written without it")
RAS = np.eye(3)
needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is missing: apt-get install dicom3tools"
)


@pytest.fixture
def written(directions: np.ndarray, tmp_path: Path) -> tuple[Case, Path]:
    made = case(directions)
    write(made, tmp_path / "dicom")
    return made, tmp_path / "dicom"


def objects(folder: Path) -> dict[str, Dataset]:
    return {path.relative_to(folder).as_posix(): pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))}


@pytest.mark.parametrize("series", ["101-native", "102-contrast", "preoperative"])
def test_a_volume_is_where_it_was_with_its_values(written: tuple[Case, Path], series: str) -> None:
    made, folder = written
    original = made.preoperative if series == "preoperative" else made.scans[int(series[:3]) - 101]
    assert original is not None
    read, _facts = read_series(folder / series)
    index = np.rint(apply(invert(read.ras_from_ijk), places(original))).astype(int)
    np.testing.assert_allclose(apply(read.ras_from_ijk, index.astype(float)), places(original), atol=1e-6)
    there = read.array[tuple(index[..., axis] for axis in (2, 1, 0))]
    np.testing.assert_allclose(there, original.array, atol=0.51 * original.array.max() / 65535)


def test_segments_are_where_the_labels_are(written: tuple[Case, Path]) -> None:
    made, folder = written
    found = objects(folder)["segmentation.dcm"]
    assert found.FrameOfReferenceUID == objects(folder)["102-contrast/0001.dcm"].FrameOfReferenceUID
    for number, structure in enumerate(made.structures, start=1):
        points = np.concatenate(list(segment_points(found, number)))
        truth = places(structure.label)[structure.label.array != 0]
        inside = apply(invert(made.scan.ras_from_ijk), truth)
        within = ((inside > -0.5) & (inside < np.array(made.scan.array.shape)[::-1] - 0.5)).all(axis=1)
        assert 0.3 < len(points) * made.scan.voxel_volume_ml / (within.sum() * structure.label.voxel_volume_ml) < 2.0
        # The same grid: the same voxels. Another one: half a voxel of the coarser.
        np.testing.assert_allclose(points.mean(axis=0), truth[within].mean(axis=0), atol=1e-6 if number == 1 else 0.4)
    first, second = found.SegmentSequence
    assert (first.SegmentAlgorithmType, second.SegmentAlgorithmType) == ("AUTOMATIC", "SEMIAUTOMATIC")
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodingSchemeDesignator == "SCT"


def segment_points(found: Dataset, number: int) -> Iterator[np.ndarray]:
    """RAS of the voxels of a segment, from the frames' own positions."""
    shared = found.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    for frame, pixels in zip(found.PerFrameFunctionalGroupsSequence, found.pixel_array, strict=True):
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            start = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            j, i = np.nonzero(pixels)
            lps = start + i[:, None] * column_mm * orientation[0] + j[:, None] * row_mm * orientation[1]
            yield apply(RAS_FROM_LPS, lps)


def test_the_rigid_matrix_leads_from_before_to_now(written: tuple[Case, Path]) -> None:
    found = objects(written[1])
    registration, before = found["registration.dcm"], found["preoperative/0001.dcm"]
    assert registration.FrameOfReferenceUID == found["102-contrast/0001.dcm"].FrameOfReferenceUID
    by_frame = {str(part.FrameOfReferenceUID): part for part in registration.RegistrationSequence}
    assert set(by_frame) == {registration.FrameOfReferenceUID, before.FrameOfReferenceUID}
    there = matrix_of(by_frame[before.FrameOfReferenceUID].MatrixRegistrationSequence[0].MatrixSequence[0])
    point = np.array([13.0, -21.0, 34.0])
    lps = apply(there, apply(RAS_FROM_LPS, point))
    np.testing.assert_allclose(apply(RAS_FROM_LPS, lps), apply(pose(), point), atol=1e-9)
    here = by_frame[registration.FrameOfReferenceUID].MatrixRegistrationSequence[0].MatrixSequence[0]
    np.testing.assert_array_equal(matrix_of(here), np.eye(4))


def matrix_of(item: Dataset) -> np.ndarray:
    assert item.FrameOfReferenceTransformationMatrixType == "RIGID"
    return np.array(item.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4)


def test_the_deformation_leads_from_now_to_before(written: tuple[Case, Path]) -> None:
    """ITK interpolates the grid as the standard describes it: source = post (pre x + grid (pre x))."""
    made, folder = written
    assert made.shift is not None
    found = objects(folder)["deformation.dcm"]
    (item,) = found.DeformableRegistrationSequence
    assert item.SourceFrameOfReferenceUID == objects(folder)["preoperative/0001.dcm"].FrameOfReferenceUID
    (field,) = item.DeformableRegistrationGridSequence
    i, j, k = field.GridDimensions
    vectors = np.frombuffer(field.VectorGridData, "<f4").reshape(k, j, i, 3).astype(np.float64)
    grid = SimpleITK.GetImageFromArray(vectors, isVector=True)
    rows = np.array(field.ImageOrientationPatient, float).reshape(2, 3)
    grid.SetDirection(np.column_stack([*rows, np.cross(*rows)]).ravel().tolist())
    grid.SetOrigin([float(v) for v in field.ImagePositionPatient])
    grid.SetSpacing(list(field.GridResolution))
    transform = SimpleITK.DisplacementFieldTransform(SimpleITK.Image(grid))
    post = matrix_of(item.PostDeformationMatrixRegistrationSequence[0])
    np.testing.assert_array_equal(matrix_of(item.PreDeformationMatrixRegistrationSequence[0]), np.eye(4))
    inner = places(made.shift)[1:-1:2, 1:-1:2, 1:-1:2].reshape(-1, 3)
    for now in inner + apply(made.shift.ras_from_ijk, (0.3, 0.2, 0.4)) - made.shift.ras_from_ijk[:3, 3]:
        lps = transform.TransformPoint(apply(RAS_FROM_LPS, now).tolist())
        before = apply(RAS_FROM_LPS, apply(post, np.array(lps)))
        np.testing.assert_allclose(before, apply(invert(pose()), now + moved(now)), atol=1e-4)


def test_the_same_record_gives_the_same_objects_and_other_content_other_uids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(case(RAS), tmp_path / name)
    first, second = objects(tmp_path / "a"), objects(tmp_path / "b")
    assert first.keys() == second.keys()
    for name, one in first.items():
        for each in (one, second[name]):
            del each.InstanceCreationDate, each.InstanceCreationTime
        assert one == second[name], name
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    uids = [each.SOPInstanceUID for each in first.values()]
    assert len(set(uids)) == len(uids)
    changed = replace(scan(RAS, "contrast"), array=scan(RAS, "contrast").array + 1)
    write(case(RAS, scans=(scan(RAS, "native"), changed)), tmp_path / "c")
    # What refers to another object is another one too; only the other volumes are the same.
    same = {name for name, each in objects(tmp_path / "c").items() if each.SOPInstanceUID in uids}
    assert same == {name for name in first if name.startswith(("101-", "preoperative/"))}


def test_one_study_one_patient_research_said(written: tuple[Case, Path]) -> None:
    for name, each in objects(written[1]).items():
        assert each.PatientID == PATIENT
        assert each.PatientName == ""
        assert each.StudyInstanceUID == written[0].study["StudyInstanceUID"]
        assert each.ContentQualification == "RESEARCH"
        assert "research" in each.SeriesDescription
        assert f"IntraopMRI {VERSION}" in each.SoftwareVersions, name
    first = objects(written[1])["101-native/0001.dcm"]
    assert "fft, because every line; coils=8; SHA-256 of the raw data abc" in first.DerivationDescription
    assert "ContributionDescription" not in first.ContributingEquipmentSequence[0]
    assert first.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert first.ImageType[:2] == ["ORIGINAL", "PRIMARY"]


def test_version_is_that_of_the_newest_changes() -> None:
    changes = (Path(__file__).parents[3] / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == VERSION


@needs_dciodvfy
@pytest.mark.peer
def test_dciodvfy_finds_no_error(written: tuple[Case, Path]) -> None:
    checked = 0
    for path in sorted(written[1].rglob("*.dcm")):
        if path.parent.name == "101-native" and path.stem != "0001":
            continue
        said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, timeout=60)
        assert "Error" not in said.stderr + said.stdout, f"{path.name}: {said.stderr}"
        checked += 1
    assert checked > 9 + 9 + 4


def test_facts_of_patient_and_study_come_from_the_headers(tmp_path: Path) -> None:
    study = {"StudyInstanceUID": "1.2.3", "StudyDate": "20260101", "StudyTime": "0130", "AccessionNumber": "A7"}
    known = {**study, "FrameOfReferenceUID": "1.2.4", "TimezoneOffsetFromUTC": "+0130", "Modality": "MR"}
    scans = scan(RAS, "native"), scan(RAS, "contrast", metadata=known)
    record = record_of(*scans, patient={"PatientName": "Doe^Jane", "PatientBirthDate": "19700102", "PatientSex": "F"})
    write(case(RAS, record, scans=scans), tmp_path / "dicom")
    for name, each in objects(tmp_path / "dicom").items():
        assert (each.PatientName, each.PatientBirthDate, each.PatientSex) == ("Doe^Jane", "19700102", "F")
        assert (each.StudyInstanceUID, each.StudyDate, each.AccessionNumber) == ("1.2.3", "20260101", "A7")
        # 01:00 UTC, by the clock of that study
        assert each.ContentTime.startswith("0230"), name
        if not name.startswith("preop"):
            assert each.get("FrameOfReferenceUID", "1.2.4") == "1.2.4"
    assert objects(tmp_path / "dicom")["102-contrast/0001.dcm"].ImageType[:2] == ["DERIVED", "SECONDARY"]


def test_scans_share_a_frame_of_reference_only_when_the_patient_was_found_in_one_position() -> None:
    assert len(set(case(RAS).frames.values())) == 1
    apart = record_of(scan(RAS, "native"), scan(RAS, "contrast"), residual=None)
    assert len(set(case(RAS, apart).frames.values())) == 2
    together = record_of(scan(RAS, "native"), scan(RAS, "contrast"))
    assert together.residual is not None
    gone = replace(together.residual.volume, value=None, interval=None, missing_because="the patient moved")
    moved_on = replace(together, residual=replace(together.residual, volume=gone))
    assert len(set(case(RAS, moved_on).frames.values())) == 2


def bone(name: str, at_mm: float, level: Level = Level.GOOD, **changes: Any) -> PartEntry:
    matrix = pose().copy()
    matrix[0, 3] += at_mm
    return PartEntry(name, tuple(map(tuple, matrix.tolist())), 0.3, verdict(level), **changes)


@pytest.mark.parametrize("whole", [Level.GOOD, Level.REFUSED])
def test_bones_have_registrations_of_their_own(whole: Level, tmp_path: Path) -> None:
    """Where the whole was refused, of those that a person accepted; of a bone that was refused none at all."""
    scans = scan(RAS, "native"), scan(RAS, "contrast")
    asked: dict[str, Any] = {"decision": "accepted", "decided_by": "Dr. A"} if whole is Level.REFUSED else {}
    parts: tuple[PartEntry, ...] = (bone("L3", 1.0, **asked), bone("L4", 2.0, **asked), bone("L5", 3.0, Level.REFUSED))
    if whole is Level.REFUSED:
        parts = (*parts, bone("S1", 4.0))
    write(case(RAS, record_of(*scans, level=whole, parts=parts, residual=None, carried=())), tmp_path / "dicom")
    found = objects(tmp_path / "dicom")
    bones = [found[name] for name in sorted(found) if name.startswith("registration-bone")]
    assert [each.ContentDescription.partition(":")[0] for each in bones] == ["L3", "L4"]
    assert len({each.SOPInstanceUID for each in bones}) == 2
    (series,) = {each.SeriesInstanceUID for each in bones}
    assert ("registration.dcm" in found) is (whole is Level.GOOD)
    assert series not in {each.SeriesInstanceUID for name, each in found.items() if "bone" not in name}
    for each, entry in zip(bones, parts, strict=False):
        how = each.RegistrationSequence[1].MatrixRegistrationSequence[0]
        lps = RAS_FROM_LPS @ np.array(entry.intraop_from_preop) @ RAS_FROM_LPS
        np.testing.assert_allclose(matrix_of(how.MatrixSequence[0]), lps, atol=1e-9)
        said = how.FrameOfReferenceTransformationComment
        assert said.startswith(f"holds for {entry.name} alone; error 0.30 mm")
        assert ("accepted by Dr. A" in said) is (whole is Level.REFUSED)
    if shutil.which("dciodvfy"):
        path = tmp_path / "dicom" / "registration-bone-01.dcm"
        said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, timeout=60)
        assert "Error" not in said.stderr + said.stdout


@pytest.mark.parametrize("level", ["refused", None])
def test_without_a_registration_there_is_neither_segmentation_nor_registration(
    level: str | None, tmp_path: Path
) -> None:
    made = case(RAS)
    document = dict(made.document)
    document["registration"] = None
    if level:
        refused = {"name": "overlap", "value": 1.0, "unit": "%", "expected": "more", "level": level}
        document["registration"] = {**made.document["registration"], "verdict": {"reasons": [refused]}}
    write(case(RAS, document=document), tmp_path / "dicom")
    names = {path.name for path in (tmp_path / "dicom").glob("*.dcm")}
    assert names == {"report.dcm"}


def test_no_registration_leads_to_a_preoperative_volume_that_nobody_can_find(tmp_path: Path) -> None:
    before = case(RAS).preoperative
    assert before is not None
    write(case(RAS, preoperative=replace(before, metadata={})), tmp_path / "nowhere")
    assert not (tmp_path / "nowhere" / "registration.dcm").exists()
    write(case(RAS, preoperative=replace(before, metadata={"FrameOfReferenceUID": "1.2.9"})), tmp_path / "known")
    assert not (tmp_path / "known" / "preoperative").exists()
    found = pydicom.dcmread(tmp_path / "known" / "deformation.dcm")
    assert found.DeformableRegistrationSequence[0].SourceFrameOfReferenceUID == "1.2.9"


@pytest.mark.parametrize("name", ["", " ", "unknown", "Anonymous", "N/A", "xxx", "A\\B", "A" * 65, "A\nB"])
def test_nothing_is_written_for_a_patient_who_is_not_known(name: str) -> None:
    document = {**case(RAS).document, "patient_id": name}
    others = [replace(image, patient_id="") for image in case(RAS).scans]
    with pytest.raises(DataError, match="patient identifier"):
        case(RAS, document=document, scans=others, preoperative=None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patient_id": "Q-1"}, "is of patient 'Q-1', the session of 'P-17'"),
        ({"uid": "of another session"}, "is not of this session"),
        ({"metadata": {"Modality": "CT"}}, "is of modality CT"),
    ],
)
def test_what_is_mixed_up_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        case(RAS, scans=(scan(RAS, "native"), scan(RAS, "contrast", **changes)))
    before = case(RAS).preoperative
    assert before is not None
    with pytest.raises(DataError, match="is of patient 'Q-1'"):
        case(RAS, preoperative=replace(before, patient_id="Q-1"))


def sheared() -> Image:
    matrix = scan(RAS, "contrast").ras_from_ijk.copy()
    matrix[0, 1] = 0.2
    return scan(RAS, "contrast", ras_from_ijk=matrix)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (sheared(), "sheared"),
        (scan(RAS, "contrast", array=np.full((9, 12, 15), np.nan)), "not numbers"),
        (scan(RAS, "contrast", array=np.ones((9, 12, 15, 3))), "holds 3 values a voxel"),
    ],
)
def test_what_slices_cannot_hold_is_refused_and_nothing_stays(image: Image, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        write(case(RAS, scans=(scan(RAS, "native"), image), structures=()), tmp_path / "dicom")
    assert not list(tmp_path.iterdir())


def test_a_mirrored_pose_in_the_record_is_refused(tmp_path: Path) -> None:
    document = dict(case(RAS).document)
    document["registration"] = {**document["registration"], "intraop_from_preop": np.diag([1, 1, -1, 1.0]).tolist()}
    with pytest.raises(DataError, match="must not mirror"):
        write(case(RAS, document=document), tmp_path / "dicom")
    assert not list(tmp_path.iterdir())


def test_cancelled_leaves_what_was_there_before(tmp_path: Path) -> None:
    write(case(RAS), tmp_path / "dicom")
    before = sorted(path.read_bytes() for path in (tmp_path / "dicom").rglob("*.dcm"))
    with pytest.raises(Cancelled):
        write(case(RAS), tmp_path / "dicom", lambda fraction, _what: fraction < 0.5)
    assert sorted(path.read_bytes() for path in (tmp_path / "dicom").rglob("*.dcm")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["dicom"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SessionError, match=r"holds letter.txt"):
        write(case(RAS), tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "highdicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SessionError, match=r"'highdicom' is not installed.*pip install"):
        write(case(RAS), tmp_path / "dicom")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "slope"),
    [
        (np.array([[[0, 7, 65535]]], np.int32), 1.0),
        (np.array([[[-5.0, 0.0, 1e-7]]]), None),
        (np.array([[[0.0, 0.1, 1e6]]], np.float32), None),
        (np.zeros((1, 1, 3), np.float32), 1.0),
    ],
)
def test_values_survive(array: np.ndarray, slope: float | None) -> None:
    stored, factor, offset = stored_voxels(array)
    assert slope is None or factor == slope
    np.testing.assert_allclose(stored * factor + offset, array, atol=0.51 * factor)
