"""What came as DICOM and is that still is referred to, never written again; what was changed names its source."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from IntraopMRILib.dicom_series import read_series
from IntraopMRILib.report.dicom.case import Case
from IntraopMRILib.report.dicom.commit import ask
from IntraopMRILib.report.dicom.send import send
from IntraopMRILib.report.dicom.source import UNKNOWN, Source, source_of
from IntraopMRILib.report.dicom.write import Written, files_of, write
from IntraopMRILib.session.dicom import renew_report
from IntraopMRILib.workflow.record import DrawnEntry, as_document, from_json, to_json
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError
from peers import dicom_archive
from peers.dicom_case import case, number, record_of, scan
from peers.dicom_scans import write_enhanced, write_series
from pydicom.dataset import Dataset

RAS = np.eye(3)
STUDY, BEFORE, PLACE = "1.2.826.0.1.11", "1.2.826.0.1.12", "1.2.826.0.1.13"
needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is missing: apt-get install dicom3tools"
)


def received(folder: Path, directions: np.ndarray, role: str, enhanced: bool = False, **facts: Any) -> Image:
    """A volume of the small session as its DICOM series gives it."""
    truth = scan(directions, role)
    truth = replace(truth, array=np.rint(truth.array * 1000))
    if enhanced:
        path = write_enhanced(folder / role / "x.dcm", truth, role, [4, 0, 8, 2, 6, 1, 3, 5, 7], **facts)
    else:
        path = write_series(folder / role, truth, role, **facts)
    return replace(read_series(path)[0], uid=f"uid-{role}")


def volumes(folder: Path, directions: np.ndarray, enhanced: bool = False) -> dict[str, Image]:
    now = {"StudyInstanceUID": STUDY, "FrameOfReferenceUID": PLACE}
    found = {role: received(folder, directions, role, enhanced, **now) for role in ("native", "contrast")}
    return {**found, "preop": received(folder, directions, "preop", enhanced, StudyInstanceUID=BEFORE)}


@pytest.fixture(params=[False, True], ids=["slices", "enhanced"])
def turned(directions: np.ndarray, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Image]:
    """In every orientation and both kinds of objects."""
    return volumes(tmp_path, directions, request.param)


@pytest.fixture
def images(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Image]:
    return volumes(tmp_path, RAS, bool(getattr(request, "param", False)))


def session(images: dict[str, Image], **changes: Any) -> Case:
    scans = images["native"], images["contrast"]
    fields = {"scans": scans, "preoperative": images["preop"], "structures": structures(images["contrast"])}
    return case(RAS, record_of(*scans), **{**fields, **changes})


def structures(image: Image) -> tuple[Any, ...]:
    """Those of the small session on the grid of the received scan."""
    residual, _fine = case(RAS).structures
    label = np.zeros(image.array.shape, np.uint8)
    label[3:6, 4:7, 5:10] = 1
    return (replace(residual, label=image.with_array(label)),)


def objects(folder: Path) -> dict[str, Dataset]:
    return {path.relative_to(folder).as_posix(): pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))}


def written(made: Case, folder: Path) -> tuple[Written, dict[str, Dataset]]:
    result = write(made, folder / "dicom")
    return result, objects(folder / "dicom")


def source(image: Image) -> Source:
    found = source_of(image.metadata)
    assert found is not None
    return found


def referred(item: Dataset) -> set[tuple[str, str]]:
    """Study and series of all that an object says to rest on."""
    own = str(item.StudyInstanceUID)
    found = {(own, str(series.SeriesInstanceUID)) for series in item.get("ReferencedSeriesSequence", ())}
    for key in (
        "StudiesContainingOtherReferencedInstancesSequence", "CurrentRequestedProcedureEvidenceSequence",
        "PertinentOtherEvidenceSequence",
    ):  # fmt: skip
        for study in item.get(key, ()):
            uid = str(study.StudyInstanceUID)
            found |= {(uid, str(series.SeriesInstanceUID)) for series in study.ReferencedSeriesSequence}
    return found


def test_everything_refers_to_the_originals_and_nothing_is_copied(turned: dict[str, Image], tmp_path: Path) -> None:
    result, found = written(session(turned), tmp_path)
    assert set(found) == {"segmentation.dcm", "registration.dcm", "deformation.dcm", "report.dcm"}
    assert result.originals == ("native scan", "contrast scan", "preoperative volume")
    assert "refer to the original native scan and contrast scan and preoperative volume" in result.text
    now, before = source(turned["contrast"]), source(turned["preop"])
    segments, rigid, report = found["segmentation.dcm"], found["registration.dcm"], found["report.dcm"]
    for each in found.values():
        assert each.StudyInstanceUID == STUDY
    for each in (segments, rigid, found["deformation.dcm"]):
        assert each.FrameOfReferenceUID == PLACE
    assert referred(segments) == {(STUDY, now.series_uid)}
    assert referred(rigid) == {(STUDY, now.series_uid), (BEFORE, before.series_uid)}
    assert rigid.RegistrationSequence[1].FrameOfReferenceUID == before.frame_uid
    assert {i.ReferencedSOPInstanceUID for i in rigid.RegistrationSequence[1].ReferencedImageSequence} == set(
        before.instances
    )
    assert {series for _study, series in referred(report)} >= {source(turned[r]).series_uid for r in ("native",)}
    (line,) = (i for i in walk(report) if i.get("ValueType") == "SCOORD3D")
    assert line.ReferencedFrameOfReferenceUID == PLACE


def walk(item: Dataset) -> Any:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def test_each_frame_of_a_segment_names_the_slice_that_it_lies_on(turned: dict[str, Image], tmp_path: Path) -> None:
    """By where the original's own header puts it; read by the library that wrote neither."""
    found = written(session(turned), tmp_path)[1]["segmentation.dcm"]
    places = {}
    for path in sorted((tmp_path / "contrast").iterdir()):
        header = pydicom.dcmread(path)
        for n in range(int(header.get("NumberOfFrames") or 1)):
            groups = header.get("PerFrameFunctionalGroupsSequence")
            at = groups[n].PlanePositionSequence[0] if groups else header
            places[str(header.SOPInstanceUID), n + 1 if groups else None] = at.ImagePositionPatient
    checked = 0
    for group in found.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        key = str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber")
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, places[key], atol=1e-6)
        checked += 1
    assert checked == 3
    read = highdicom.seg.segread(tmp_path / "dicom" / "segmentation.dcm")
    named = {str(uid) for _study, _series, uid in read.get_source_image_uids()}
    assert named == set(source(turned["contrast"]).instances)
    volume = read.get_volume(combine_segments=True)
    centre = np.argwhere(volume.array > 0).mean(axis=0)
    truth = np.array([4, 5, 7, 1.0])[[2, 1, 0, 3]]  # middle of the label, i j k
    lps = volume.affine @ [*centre, 1.0]
    np.testing.assert_allclose(lps[:3] * [-1, -1, 1], (turned["contrast"].ras_from_ijk @ truth)[:3], atol=1e-4)


@needs_dciodvfy
@pytest.mark.peer
@pytest.mark.parametrize("images", [False, True], indirect=True, ids=["slices", "enhanced"])
def test_dciodvfy_finds_no_error(images: dict[str, Image], tmp_path: Path) -> None:
    changed = images["native"].with_array(images["native"].array + 1)
    made = session({**images, "native": replace(changed, uid="uid-native")})
    assert written(made, tmp_path)[0].counts["slices of the native scan"] == 9
    for path in [*(tmp_path / "dicom").glob("*.dcm"), tmp_path / "dicom" / "101-native" / "0001.dcm"]:
        said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, timeout=60)
        assert "Error" not in said.stderr + said.stdout, f"{path.name}: {said.stderr}"


def named_objects(item: Dataset) -> set[str]:
    """Every instance that an object refers to, anywhere in it."""
    found = {str(item.ReferencedSOPInstanceUID)} if "ReferencedSOPInstanceUID" in item else set()
    for element in item:
        for inner in element.value if element.VR == "SQ" else ():
            found |= named_objects(inner)
    return found


@pytest.mark.peer
@pytest.mark.parametrize("images", [False, True], indirect=True, ids=["slices", "enhanced"])
def test_an_archive_that_has_the_originals_has_all_that_is_referred_to(
    images: dict[str, Image], tmp_path: Path
) -> None:
    """Orthanc: what was written joins the study of the scans, and nothing points to what is not there."""
    pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing is sent without it")
    if dicom_archive.missing():
        pytest.skip(dicom_archive.missing())
    originals = [path for role in images for path in sorted((tmp_path / role).iterdir())]
    _result, found = written(session(images), tmp_path)
    with dicom_archive.orthanc(tmp_path / "orthanc") as running:
        outcome = send([*originals, *files_of(tmp_path / "dicom")], running.archive)
        assert outcome.complete, outcome.text
        assert ask(outcome, running.reply_port, 20.0).complete
        there = set(running.instances())
        studies = {each["MainDicomTags"]["StudyInstanceUID"]: each for each in running.get("/studies?expand")}
    for name, each in found.items():
        assert named_objects(each) <= there, name
    assert {uid: len(study["Series"]) for uid, study in studies.items()} == {STUDY: 6, BEFORE: 1}


def moved(image: Image) -> Image:
    matrix = image.ras_from_ijk.copy()
    matrix[0, 3] += 3.3
    return replace(image, ras_from_ijk=matrix)


def cropped(image: Image) -> Image:
    matrix = image.ras_from_ijk.copy()
    matrix[:3, 3] = (matrix @ (0, 0, 1, 1))[:3]
    return replace(image, array=image.array[1:], ras_from_ijk=matrix)


def filtered(image: Image) -> Image:
    return replace(image, array=image.array * 0.5)


@pytest.mark.parametrize(
    ("work", "said", "in_place"),
    [(moved, "another grid", False), (cropped, "another grid", True), (filtered, "voxels are no longer", True)],
)
def test_what_was_changed_is_a_copy_that_names_its_source(
    images: dict[str, Image], tmp_path: Path, work: Any, said: str, in_place: bool
) -> None:
    used = work(images["native"]), images["contrast"]
    # Without a residual nothing says that the patient lay in both as before.
    apart = as_document(record_of(*used, residual=None))
    result, found = written(session({**images, "native": used[0]}, document=apart), tmp_path)
    copies = [each for name, each in found.items() if name.startswith("101-native/")]
    assert len(copies) in (8, 9)
    origin = source(images["native"])
    for each in copies:
        assert each.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert tuple(i.ReferencedSOPInstanceUID for i in each.SourceImageSequence) == origin.instances
        assert referred(each) == {(STUDY, origin.series_uid)}
        assert said in each.DerivationDescription
        assert each.SeriesInstanceUID != origin.series_uid
        # What may have been moved is not where the scanner says that the original is.
        assert (each.FrameOfReferenceUID == PLACE) is in_place
    assert result.originals == ("contrast scan", "preoperative volume")
    assert "the native scan is a copy: " in result.text
    assert said in result.text


def test_an_origin_that_is_not_complete_is_said_and_copied(images: dict[str, Image], tmp_path: Path) -> None:
    known = {key: value for key, value in images["preop"].metadata.items() if key != "DicomSource"}
    why = "2 of its 9 instances are not on this computer"
    before = replace(images["preop"], metadata={**known, UNKNOWN: why})
    result, found = written(session({**images, "preop": before}), tmp_path)
    copies = [each for name, each in found.items() if name.startswith("preoperative/")]
    assert len(copies) == 9
    assert why in copies[0].DerivationDescription
    assert "SourceImageSequence" not in copies[0]
    assert f"the preoperative volume is a copy: {why}" in result.text
    assert found["registration.dcm"].RegistrationSequence[1].FrameOfReferenceUID == copies[0].FrameOfReferenceUID
    assert copies[0].FrameOfReferenceUID != known["FrameOfReferenceUID"]


def test_a_ct_before_surgery_needs_no_copy(images: dict[str, Image], tmp_path: Path) -> None:
    ct = received(tmp_path / "ct", RAS, "preop", Modality="CT", SOPClassUID=pydicom.uid.CTImageStorage)
    _result, found = written(session({**images, "preop": ct}), tmp_path)
    (item,) = {
        i.ReferencedSOPClassUID for i in found["registration.dcm"].RegistrationSequence[1].ReferencedImageSequence
    }
    assert item == pydicom.uid.CTImageStorage
    assert not any("preoperative" in name for name in found)
    # Changed, it can neither be referred to nor be written as MR: only its frame of reference is left.
    result, found = written(session({**images, "preop": filtered(ct)}), tmp_path / "changed")
    assert "the preoperative volume is not referred to: its voxels are no longer" in result.text
    part = found["registration.dcm"].RegistrationSequence[1]
    assert "ReferencedImageSequence" not in part
    assert part.FrameOfReferenceUID == source(ct).frame_uid


@pytest.mark.parametrize("images", [False, True], indirect=True, ids=["slices", "enhanced"])
@pytest.mark.parametrize("work", [None, moved, filtered])
def test_a_report_is_renewed_without_the_voxels(images: dict[str, Image], tmp_path: Path, work: Any) -> None:
    used = images if work is None else {**images, "native": work(images["native"])}
    record = from_json(to_json(record_of(used["native"], used["contrast"])))
    written(session(used), tmp_path)
    before = pydicom.dcmread(tmp_path / "dicom" / "report.dcm")
    renew_report(record, tmp_path / "dicom")
    again = pydicom.dcmread(tmp_path / "dicom" / "report.dcm")
    for each in (before, again):
        del each.InstanceCreationDate, each.InstanceCreationTime
    assert again == before
    drawn = DrawnEntry("cobb", "Cobb angle", "uid-contrast", (number("Cobb angle", 12.0, "deg"),))
    renew_report(replace(record, drawn=(drawn,)), tmp_path / "dicom")
    renewed = pydicom.dcmread(tmp_path / "dicom" / "report.dcm")
    assert "Cobb angle" in str(renewed)
    assert referred(renewed) == referred(before)
    bare = json.loads(to_json(record))
    for image in bare["images"]:
        image["metadata"] = {}
    with pytest.raises(SessionError, match="does not hold the scan"):
        renew_report(from_json(json.dumps(bare)), tmp_path / "dicom")
