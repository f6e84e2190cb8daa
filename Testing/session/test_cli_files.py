"""The command line on files alone: from NIfTI or DICOM to report, record and scene; what is missing is said."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.cli.commands import INCOMPLETE
from IntraopMRILib.cli.files import CaseFiles, read_case_files
from IntraopMRILib.cli.follow import _Run
from IntraopMRILib.dicom_series import read_series
from IntraopMRILib.session import Session
from IntraopMRILib.workflow.record import read_record
from IntraopMRIReconstructionLib.errors import DataError, IntraopError, SessionError
from IntraopMRIReconstructionLib.simulate.case_files import write_case
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from IntraopMRIReconstructionLib.simulate.spine import SPINE, make_spine_case
from IntraopMRIReconstructionLib.simulate.volumes import write_volume
from peers.dicom_scans import write_series
from rich.progress import Progress
from session.small_world import BEGUN_S, SmallWorld, Truth

TIMES = ["--native-taken", "2025-01-31 10:00", "--contrast-taken", "2025-01-31 10:20"]


@pytest.fixture
def files(brain: BrainCase, tmp_path: Path) -> dict[str, Path]:
    images = {"preop": brain.preop, "tumour": replace(brain.tumour, array=(brain.tumour.array == 1).astype(np.uint8))}
    images |= {name: brain.intraop[f"T1 {name}"] for name in ("native", "contrast")}
    paths = {name: tmp_path / f"{name}.nii.gz" for name in images}
    for name, image in images.items():
        write_volume(image, paths[name])
    return paths


def arguments(files: dict[str, Path], out: Path) -> list[str]:
    return ["assess", *(part for name, path in files.items() for part in (f"--{name}", str(path))), "--out", str(out)]


def write_line(path: Path, points: np.ndarray) -> Path:
    """Points (n, 3), RAS mm, as a markups file of one line."""
    controls = [{"label": f"L-{n}", "position": place.tolist()} for n, place in enumerate(points)]
    content = {"markups": [{"type": "Line", "coordinateSystem": "RAS", "controlPoints": controls}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_work_that_takes_long_is_not_taken_for_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow computer a stage may say nothing for longer than a scanner may."""
    never = threading.Event()

    def slow(_stage: str) -> None:
        never.wait(0.5)

    world = SmallWorld(during=slow)
    world.stand_in(monkeypatch)
    plan = replace(world.spine(), measures=())
    with Session(plan) as session:
        session.connect(None)
        run = _Run(plan, session, tmp_path, wait_s=0.2)
        session.offer_scan(world.scan("native", Truth(), BEGUN_S), "native")
        run._until_assessed(Progress(disable=True))
        assert len(session.journal.record.implants) == 2
        with pytest.raises(SessionError, match="nothing more comes; no scanner is connected"):
            _Run(plan, session, tmp_path, wait_s=0.2)._until_assessed(Progress(disable=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nifti_files_become_a_report(files: dict[str, Path], brain: BrainCase, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([*arguments(files, out), "--patient", "P-1", *TIMES]) == 0
    record = read_record(out / "session.json")
    assert record.residual is not None
    assert record.residual.volume.interval is not None
    low, high = record.residual.volume.interval
    assert low <= brain.truth.residual_ml <= high
    assert [image.role for image in record.images] == ["native", "contrast"]
    assert {image.metadata["TakenFrom"] for image in record.images} == {"entered by hand"}
    assert not any("k-space" in measurement.name for measurement in record.measurements)
    assert (out / "report.html").is_file()
    assert (out / "scene" / "scene.mrml").is_file()
    segments = pydicom.dcmread(out / "dicom" / "segmentation.dcm")
    assert (segments.PatientID, segments.PatientName) == ("P-1", "")
    assert segments.SegmentSequence[0].SegmentLabel == "Residual enhancing tumour"
    scan, _facts = read_series(out / "dicom" / "102-contrast")
    np.testing.assert_allclose(scan.ras_from_ijk, brain.intraop["T1 contrast"].ras_from_ijk, atol=1e-3)
    # Nobody said what kind of volume the preoperative one is: there are no objects of it, nor one that leads there.
    assert not (out / "dicom" / "registration.dcm").exists()
    assert "DICOM objects" in next(event.text for event in record.events if event.kind == "dicom")


@pytest.mark.slow
def test_dicom_folders_say_time_patient_and_agent(
    files: dict[str, Path], brain: BrainCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    date: dict[str, Any] = {"AcquisitionDate": "20250131", "PatientID": "P-9", "FrameOfReferenceUID": "1.2.3"}
    native = write_series(tmp_path / "n", brain.intraop["T1 native"], "T1 pre", AcquisitionTime="100000", **date)
    agent: dict[str, Any] = {"AcquisitionTime": "102000", "ContrastBolusAgent": "Gadovist"}
    contrast = write_series(tmp_path / "c", brain.intraop["T1 contrast"], "T1 post", **date, **agent)
    plan, scans = read_case_files(CaseFiles(native, files["preop"], files["tumour"], contrast))
    assert plan.patient_id == "P-9"
    for role in ("native", "contrast"):
        np.testing.assert_allclose(scans[role].ras_from_ijk, brain.intraop[f"T1 {role}"].ras_from_ijk, atol=1e-4)
    times = [scans[role].acquired_utc_s for role in ("native", "contrast")]
    assert times[1] - times[0] == pytest.approx(1200.0)  # type: ignore[operator]
    # The same folders the wrong way round: the header names the agent in what is called native
    swapped = arguments(files | {"native": contrast, "contrast": native}, tmp_path / "out")
    assert main(swapped) == 1
    assert "names the agent 'Gadovist'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments(files | {"native": native, "contrast": contrast}, tmp_path / "out"), *TIMES]) == 1
    assert "leave the option out" in capsys.readouterr().err
    assert main([*arguments(files | {"native": native, "contrast": contrast}, tmp_path / "out"), "--patient", "X"]) == 1
    assert "is of patient 'P-9', the session of 'X'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patient_id": ""}, "name the patient with --patient"),
        ({"native_taken": ""}, "the native scan does not say when it was taken.*--native-taken"),
        ({"contrast_taken": ""}, "--contrast-taken"),
        ({"native_taken": "noon"}, "'noon' is no time"),
        ({"native": Path("gone.nii")}, "there is no volume at gone.nii"),
        ({"tumour": Path("preop")}, r"preop.nii.gz holds \d+ values, so it is no segmentation"),
        ({"label": "7"}, "holds no structure '7', only 1: name one of them with --label"),
    ],
)
def test_what_is_missing_is_said(files: dict[str, Path], changes: dict[str, object], said: str) -> None:
    whole = CaseFiles(**files, patient_id="P-1", native_taken="2025-01-31 10:00", contrast_taken="2025-01-31 10:20")  # type: ignore[arg-type]
    if "tumour" in changes:
        changes = {"tumour": files["preop"]}
    with pytest.raises(IntraopError, match=said):
        read_case_files(replace(whole, **changes))  # type: ignore[arg-type]


def test_what_does_not_go_together_is_said(
    files: dict[str, Path], brain: BrainCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, brain, None)
    paths = {**files, "case": tmp_path, "line": tmp_path / "l.mrk.json", "three": tmp_path / "3.mrk.json"}
    for name, count in (("line", 2), ("three", 3)):
        write_line(paths[name], np.arange(3.0 * count).reshape(count, 3))
    for arguments, said in (
        ("", "name a case folder with --case"),
        ("--preop preop", "with either --tumour or --planned"),
        ("--preop preop --tumour tumour", "give --contrast"),
        ("--preop preop --planned line --contrast contrast", "give --contrast"),
        ("--preop preop --planned line --patient P-1", "give --diameter"),
        ("--preop preop --planned three --diameter 5 --patient P-1", "holds 3 points"),
        (
            "--preop preop --planned line --planned line --diameter 1 --patient P-1",
            "two planned implants have one name",
        ),
        ("--case case --preop preop", "a case folder knows the plan"),
        ("--case case --native-taken 10:00", "give --contrast"),
    ):
        given = [str(paths.get(part, part)) for part in arguments.split()]
        assert main(["assess", "--native", str(files["native"]), *given, "--out", str(tmp_path / "out")]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_planned_screws_are_found_in_a_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = make_spine_case(3)
    plan, truth = case.plan, case.truth.deviations
    write_volume(case.preop, tmp_path / "preop.nrrd")
    write_volume(case.intraop[SPINE], tmp_path / "scan.nrrd")
    ends = np.array([plan.entry_ras_mm, plan.tip_ras_mm])
    line = write_line(tmp_path / "L4 left.mrk.json", ends)
    # In the next vertebra there is none: dark as some of it is, no metal is there.
    absent = write_line(tmp_path / "L5 left.mrk.json", ends - (0.0, 0.0, 37.0))
    said = [
        "--diameter",
        str(plan.diameter_mm),
        "--metal",
        "titanium",
        "--patient",
        "P-1",
        "--out",
        str(tmp_path / "o"),
    ]
    scans = ["--preop", str(tmp_path / "preop.nrrd"), "--native", str(tmp_path / "scan.nrrd")]
    outlined = ["--outlined", f"L3 pedicle left={tmp_path / 'pedicle.nrrd'}"]
    write_volume(case.pedicle, tmp_path / "pedicle.nrrd")
    assert main(["assess", *scans, "--planned", str(line), "--planned", str(absent), *said, *outlined]) == INCOMPLETE
    assert "missing: L5 left: deviation from its plan; no signal void" in capsys.readouterr().err
    record = read_record(tmp_path / "o" / "session.json")
    dash = next(m for m in record.measurements if m.name == "L5 left: deviation from its plan")
    assert dash.value is None
    report = pydicom.dcmread(tmp_path / "o" / "dicom" / "report.dcm").to_json()
    assert "L5 left: deviation from its plan: no value, no signal void" in report
    (found,) = record.implants
    assert "; Gertzbein-Robbins " in found.band
    breach = next(m for m in found.measurements if m.name == "L4 left: pedicle breach")
    assert breach.value is not None
    assert "outside the L3 pedicle left" in breach.definition
    for name, true in (("tip deviation", truth["tip_mm"]), ("depth deviation", truth["depth_mm"])):
        measured = next(m for m in found.measurements if m.name == f"L4 left: {name}")
        assert measured.interval is not None
        assert measured.interval[0] <= true <= measured.interval[1]


@pytest.mark.slow
def test_a_nidus_is_measured_on_a_scan_from_files(brain: BrainCase, tmp_path: Path) -> None:
    """The scan is registered; what is left is outlined by a person who has looked at that."""
    write_case(tmp_path, brain, None)
    nidus = replace(brain.tumour, array=(brain.tumour.array == 1).astype(np.uint8))
    write_volume(nidus, tmp_path / "case" / "nidus.nrrd")
    left = replace(brain.truth.residual, array=brain.truth.residual.array.astype(np.uint8))
    write_volume(left, tmp_path / "left.nrrd")
    results, case = str(tmp_path / "out"), ["--case", str(tmp_path)]
    scan = str(tmp_path / "theatre" / "brain_native.nrrd")
    assert main(["assess", *case, "--procedure", "vascular", "--native", scan, "--out", results]) == 0
    assert not read_record(tmp_path / "out" / "session.json").drawn
    drawn = ["--outline", str(tmp_path / "left.nrrd"), "--option", "not seen", "--by", "Dr. X"]
    assert main(["measure", "vascular", "--results", results, *case, *drawn]) == 0
    (entry,) = read_record(tmp_path / "out" / "session.json").drawn
    assert entry.measurements[1].value == pytest.approx(brain.truth.residual_ml, rel=1e-3)


def test_a_segmentation_of_several_values_needs_the_one_that_is_meant(
    files: dict[str, Path], brain: BrainCase, tmp_path: Path
) -> None:
    path = tmp_path / "parts.nrrd"
    write_volume(brain.tumour, path)
    case = CaseFiles(files["native"], files["preop"], path, files["contrast"], "", "P-1")
    case = replace(case, native_taken="2025-01-31 10:00", contrast_taken="2025-01-31 10:20")
    with pytest.raises(IntraopError, match=r"3 structures \(1, 2, 3\): name the one that is meant with --label"):
        read_case_files(case)
    plan, _scans = read_case_files(replace(case, label="1"))
    assert plan.tumour is not None
    np.testing.assert_array_equal(plan.tumour.array, brain.tumour.array == 1)


def test_a_four_dimensional_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    import SimpleITK

    path = tmp_path / "series.nii.gz"
    image = SimpleITK.ReadImage(str(files["native"]))
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image, image]), str(path))
    case = CaseFiles(path, files["preop"], files["tumour"], files["contrast"], "", "P-1", "10:00")
    with pytest.raises(DataError, match="three axes"):
        read_case_files(case)
