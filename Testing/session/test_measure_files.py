"""Drawings as files that Slicer saves: read, measured on a finished session's scan, written into its results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.cli.cases import plan_of_case
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.session.files import read_correction, read_outline, read_points
from IntraopMRILib.session.journal import Journal
from IntraopMRILib.workflow.record import ResidualEntry, read_record, write_record
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about
from IntraopMRIReconstructionLib.simulate.volumes import write_volume

PATIENT = "P-7"
POSE = np.eye(4)
POSE[:3, :3] = rotation_about((0.2, 1.0, 0.3), 14.0)
POSE[:3, 3] = (5.0, -3.0, 8.0)


def markups(path: Path, points: list[tuple[str, Any]], frame: str = "LPS", status: str = "defined") -> Path:
    """A markups file as Slicer writes it, of RAS points."""
    flip = np.array([-1.0, -1.0, 1.0]) if frame == "LPS" else np.ones(3)
    controls = [
        {"id": str(n), "label": name, "position": (flip * place).tolist(), "positionStatus": status}
        for n, (name, place) in enumerate(points)
    ]
    content = {"markups": [{"type": "Fiducial", "coordinateSystem": frame, "controlPoints": controls}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def endplates(upper_deg: float, lower_deg: float, pose: np.ndarray | None = None) -> list[tuple[str, Any]]:
    around = 18.0 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=float)
    found = []
    for name, tilt, height in (("upper", upper_deg, 40.0), ("lower", lower_deg, -30.0)):
        for n, place in enumerate(around):
            point = rotation_about((0, 1, 0), tilt) @ place + (0.0, 0.0, height)
            found.append((f"{name} {n + 1}", point if pose is None else apply(pose, point)))
    return found


@pytest.fixture
def case(tmp_path: Path) -> Path:
    folder = tmp_path / "case"
    folder.mkdir()
    plan = {"patient_id": PATIENT, "patient_name": "Test", "implant": None}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    write_volume(Image(np.random.default_rng(0).random((24, 24, 24), np.float32), np.eye(4)), folder / "preop.nrrd")
    markups(folder / "landmarks.mrk.json", endplates(16.0, -9.0))
    return folder


def finished(folder: Path, level: Level = Level.GOOD, patient: str = PATIENT) -> Path:
    """The results of a session whose scan was registered."""
    folder.mkdir()
    journal, image = Journal(patient, "test"), Image(np.zeros((8, 8, 8), np.float32), np.eye(4), "T2")
    journal.image(image, "native")
    verdict = Verdict((Reason("overlap", 1.0, "", "1", level),))
    found = RigidRegistration(POSE, verdict, 1.0, 0.3, 0.9, 0.1, 1.0, image.uid, "preop")
    journal.registration(found, image, replace(image, uid="preop"))
    write_record(journal.finish(), folder / "session.json")
    return folder


def measure(results: Path, case: Path, points: Path, **more: str) -> int:
    options = {"--results": str(results), "--case": str(case), "--points": str(points), "--by": "Dr. X", **more}
    return main(["measure", "cobb", *(part for pair in options.items() for part in pair)])


def test_on_a_full_disk_nothing_of_the_results_changes(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, points = finished(tmp_path / "out"), markups(tmp_path / "now.mrk.json", endplates(8.0, -5.0, POSE))
    (results / "dicom").mkdir()
    (results / "dicom" / "report.dcm").write_bytes(b"as it was")
    (results / "report.html").write_text("as it was")
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    written: list[int] = []

    def full_after_one(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("IntraopMRILib.workflow.record.os.fsync", full_after_one)
    assert measure(results, case, points) == 1
    assert "report.html cannot be written: No space left on device. Nothing was changed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_landmarks_of_a_finished_session_become_numbers_in_its_report(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = finished(tmp_path / "out")
    points = markups(tmp_path / "now.mrk.json", endplates(10.0, -4.0, POSE))
    assert measure(results, case, points) == 0
    printed = capsys.readouterr().out
    assert "Cobb angle, coronal, supine: -14.00 deg" in printed
    assert "change: 11.00 deg" in printed
    record = read_record(results / "session.json")
    (entry,) = record.drawn
    assert (entry.kind, entry.drawn_by) == ("cobb", "Dr. X")
    assert entry.measurements[0].value == pytest.approx(-14.0, abs=1e-6)
    assert [event.kind for event in record.events][-2:] == ["confirmed", "measured"]
    assert "Drawn by Dr. X" in (results / "report.html").read_text(encoding="utf-8")
    assert measure(results, case, points, **{"--option": "sagittal"}) == 0
    assert len(read_record(results / "session.json").drawn) == 1


@pytest.mark.parametrize(
    ("level", "patient", "by", "words"),
    [
        (Level.REFUSED, PATIENT, "Dr. X", "nothing is measured on it"),
        (Level.GOOD, "SOMEONE-ELSE", "Dr. X", "SOMEONE-ELSE"),
        (Level.GOOD, PATIENT, " ", "--by NAME"),
    ],
)
def test_what_cannot_be_measured_changes_nothing(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], level: Level, patient: str, by: str, words: str
) -> None:
    results = finished(tmp_path / "out", level, patient)
    before = (results / "session.json").read_bytes()
    points = markups(tmp_path / "now.mrk.json", endplates(10.0, -4.0, POSE))
    assert measure(results, case, points, **{"--by": by}) == 1
    assert words in capsys.readouterr().err
    assert (results / "session.json").read_bytes() == before
    assert not (results / "report.html").exists()


def without_case(results: Path, kind: str, files: dict[str, Path]) -> int:
    options = {"results": results, "by": "Dr. X", **files}
    return main(["measure", kind, *(part for name, value in options.items() for part in (f"--{name}", str(value)))])


def test_own_volumes_need_no_case_folder(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = finished(tmp_path / "out")
    points = markups(tmp_path / "now.mrk.json", endplates(10.0, -4.0, POSE))
    files = {"points": points, "preop": case / "preop.nrrd", "landmarks": case / "landmarks.mrk.json"}
    assert without_case(results, "cobb", files) == 0
    assert "change: 11.00 deg" in capsys.readouterr().out
    for files, words in (
        ({"points": points}, "--case FOLDER, or --preop VOLUME"),
        ({"points": points, "preop": case / "preop.nrrd", "case": case}, "--case FOLDER, or --preop VOLUME"),
        ({"points": points, "landmarks": case / "landmarks.mrk.json", "case": case}, "leave out --landmarks"),
    ):
        assert without_case(results, "cobb", files) == 1
        assert words in capsys.readouterr().err


def test_a_non_enhancing_residual_from_a_file_completes_the_class(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = finished(tmp_path / "out")
    record = read_record(results / "session.json")
    zero, extent = (Measurement(name, value, unit, "") for name, value, unit in (("r", 0.0, "cm3"), ("e", 100.0, "%")))
    entry = ResidualEntry(zero, extent, "1 or 2A", "1 or 2A", "1 or 2A", "", "", "")
    write_record(replace(record, residual=entry), results / "session.json")
    outline = np.zeros((24, 24, 24), np.uint8)
    outline[4:12, 4:12, 4:12] = 1
    write_volume(Image(outline, np.eye(4)), tmp_path / "left.nrrd")
    assert without_case(results, "nonenhancing", {"outline": tmp_path / "left.nrrd", "preop": case / "preop.nrrd"}) == 0
    printed = capsys.readouterr().out
    assert "Residual non-enhancing tumour: 0.51 cm3" in printed
    assert "RANO class 1 with the enhancing residual of this scan" in printed
    report = (results / "report.html").read_text(encoding="utf-8")
    assert "RANO class 1 with the enhancing residual of this scan" in report


@pytest.mark.parametrize("frame", ["LPS", "RAS"])
def test_markups_are_read_in_ras(tmp_path: Path, frame: str) -> None:
    points = [("a", np.array([1.0, 2.0, 3.0])), ("b", np.array([-4.0, 5.0, -6.0]))]
    found = read_points(markups(tmp_path / "p.mrk.json", points, frame))
    assert [name for name, _ in found] == ["a", "b"]
    np.testing.assert_allclose([place for _, place in found], [place for _, place in points])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    points = [("a", np.zeros(3))]
    with pytest.raises(DataError, match=r"not placed: \['a'\]"):
        read_points(markups(tmp_path / "p.mrk.json", points, status="undefined"))
    with pytest.raises(DataError, match="'IJK', expected LPS or RAS"):
        read_points(markups(tmp_path / "p.mrk.json", points, frame="IJK"))
    with pytest.raises(DataError, match="cannot be read"):
        read_points(tmp_path / "absent.mrk.json")
    (tmp_path / "p.mrk.json").write_text('{"markups": []}', encoding="utf-8")
    with pytest.raises(DataError, match="no file of one markup"):
        read_points(tmp_path / "p.mrk.json")
    (tmp_path / "c.json").write_text('{"preop_from_preop": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}')
    with pytest.raises(DataError, match=r"preop_from_preop of c\.json"):
        read_correction(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{}")
    empty = Image(np.zeros((8, 8, 8), np.uint8), np.diag([-1.0, 2.0, 1.0, 1.0]))
    write_volume(empty, tmp_path / "gone.nrrd")
    np.testing.assert_allclose(read_outline(tmp_path / "gone.nrrd").ras_from_ijk, empty.ras_from_ijk)
    write_volume(replace(empty, array=empty.array + np.float32(0.5)), tmp_path / "grey.nrrd")
    with pytest.raises(DataError, match="expected a label of whole numbers"):
        read_outline(tmp_path / "grey.nrrd")
    with pytest.raises(DataError, match="cannot be read"):
        read_outline(tmp_path / "c.json")
    with pytest.raises(DataError, match="no correction"):
        read_correction(tmp_path / "c.json")


def test_a_case_folder_declares_its_procedure(case: Path) -> None:
    plan = plan_of_case(case, "cobb")
    assert plan.measures == ("cobb",)
    assert plan.procedure == "Cobb angle, intraoperative control"
    assert len(plan.landmarks) == 8
    with pytest.raises(SessionError, match="the label of the nidus"):
        plan_of_case(case, "vascular")
    write_volume(Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), case / "nidus.nrrd")
    markups(case / "centreline.mrk.json", [("F-1", np.zeros(3)), ("F-2", np.array([0, 0, 50.0]))])
    (case / "correction.json").write_text(json.dumps({"preop_from_preop": np.eye(4).tolist()}))
    assert plan_of_case(case, "vascular").nidus is not None
    line = plan_of_case(case, "cord").centreline
    assert line is not None
    assert np.asarray(line).shape == (2, 3)
    assert plan_of_case(case, "osteotomy").correction is not None
    markups(case / "landmarks.mrk.json", [("a", np.zeros(3)), ("a", np.ones(3))])
    with pytest.raises(SessionError, match="have one name"):
        plan_of_case(case, "cobb")
