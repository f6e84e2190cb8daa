"""What of a session becomes DICOM objects, and what the command line makes of a folder of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.scan_facts import DicomFacts
from IntraopMRILib.session.dicom import Gathered, renew_report, save
from IntraopMRILib.session.plan import Plan
from IntraopMRILib.session.updates import ImageReady, PlanCarried, ResidualFound, ShiftFound
from IntraopMRILib.workflow.record import DrawnEntry, SessionRecord, read_record, write_record
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from peers.dicom_archive import TITLE, answering, committing
from peers.dicom_case import PATIENT, SHAPE, ball, grid, number, record_of, scan
from pydicom.dataset import Dataset

pytest.importorskip("highdicom", reason="pip install highdicom: nothing is written without it")
RAS = np.eye(3)
NATIVE, CONTRAST = scan(RAS, "native"), scan(RAS, "contrast")


def label(name: str, at: float) -> Image:
    return CONTRAST.with_array(ball(CONTRAST, (at, 4, 3), 3.0), name)


@pytest.fixture
def plan() -> Plan:
    before = Image(np.random.default_rng(5).random(SHAPE), grid(RAS), "before", None, PATIENT, "uid-preop")
    return Plan(PATIENT, "test", before, label("tumour", 8), patient={"PatientName": "Doe^Jane"})


def gathered() -> Gathered:
    """Every result on the contrast scan; of the structures at risk one is followed where ``now`` is not None."""
    cavity, shift = label("cavity", 10), Image(np.zeros((4, 4, 4, 3), np.float32), grid(RAS, (3, 3, 3)))
    labels: Mapping[str, tuple[Image, Image | None]] = {
        f"{decision} thing": (label("rigid", 4), label("now", 6)) for decision in ("accepted", "rejected", "open")
    }
    labels = {**labels, "unknown thing": (label("rigid", 5), None)}
    made = Gathered()
    made.take(ImageReady(NATIVE, "native", None, None))
    made.take(ImageReady(CONTRAST, "contrast", None, None))
    deformable: Any = SimpleNamespace(cavity=cavity, shift=shift)
    nothing: Any = None
    made.take(ShiftFound(nothing, deformable, CONTRAST, nothing, nothing, nothing, nothing))
    made.take(PlanCarried((), labels, CONTRAST))
    found: Any = SimpleNamespace(residual=label("residual", 9), resected=label("resected", 7))
    made.take(ResidualFound(found))
    return made


def written(folder: Path, of: Gathered, record: SessionRecord, plan: Plan) -> dict[str, Dataset]:
    save(of, record, plan, folder)
    return {path.name: pydicom.dcmread(path) for path in folder.glob("*.dcm")}


def segments(found: Dataset) -> dict[str, tuple[str, str]]:
    """Name to how each came about."""
    return {
        str(each.SegmentLabel): (
            str(each.SegmentAlgorithmType),
            str(each.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName),
        )
        for each in found.SegmentSequence
    }


def test_structures_are_written_as_a_person_has_decided(tmp_path: Path, plan: Plan) -> None:
    found = written(tmp_path / "dicom", gathered(), record_of(NATIVE, CONTRAST), plan)
    made = segments(found["segmentation.dcm"])
    assert list(made)[:3] == ["Residual enhancing tumour", "Resected part of the tumour", "Resection cavity"]
    assert made["Residual enhancing tumour"][0] == "AUTOMATIC"
    assert "accepted by Dr. A" in made["accepted thing"][1]
    assert "rigid pose" in made["rejected thing"][1]
    # Nobody has decided on this one, and nothing could be decided on the other, which the rigid pose carries.
    assert "open thing" not in made
    assert "rigid pose" in made["unknown thing"][1]


def test_the_place_is_that_of_the_decision(tmp_path: Path, plan: Plan) -> None:
    found = written(tmp_path / "dicom", gathered(), record_of(NATIVE, CONTRAST), plan)["segmentation.dcm"]
    names = [str(each.SegmentLabel) for each in found.SegmentSequence]
    middles = {}
    for name in ("accepted thing", "rejected thing"):
        at = [
            np.argwhere(pixels)[:, 1].mean()
            for frame, pixels in zip(found.PerFrameFunctionalGroupsSequence, found.pixel_array, strict=True)
            if names[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1] == name
        ]
        middles[name] = float(np.mean(at))
    assert middles == pytest.approx({"accepted thing": 6.0, "rejected thing": 4.0})


def test_a_new_image_withdraws_what_rested_on_the_one_before(tmp_path: Path, plan: Plan) -> None:
    of, newer = gathered(), scan(RAS, "second", uid="uid-second")
    of.take(ImageReady(newer, "contrast", None, None))
    record = record_of(NATIVE, CONTRAST, newer, residual=None, registration=None, carried=(), implants=())
    found = written(tmp_path / "dicom", of, record, plan)
    assert set(found) == {"report.dcm"}
    assert sorted(path.name for path in (tmp_path / "dicom").iterdir() if path.is_dir()) == ["101-native", "102-second"]


def test_a_residual_that_the_record_does_not_give_is_no_segment(tmp_path: Path, plan: Plan) -> None:
    found = written(tmp_path / "dicom", gathered(), record_of(NATIVE, CONTRAST, residual=None), plan)
    assert not any("tumour" in name for name in segments(found["segmentation.dcm"]))


def test_a_record_of_another_preoperative_volume_is_refused(tmp_path: Path, plan: Plan) -> None:
    other = replace(plan, preoperative=replace(plan.preoperative, uid="another"))
    with pytest.raises(DataError, match="another preoperative volume"):
        save(gathered(), record_of(NATIVE, CONTRAST), other, tmp_path / "dicom")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def results(tmp_path: Path, plan: Plan) -> Path:
    record = record_of(NATIVE, CONTRAST)
    save(gathered(), record, plan, tmp_path / "results" / "dicom")
    write_record(record, tmp_path / "results" / "session.json")
    return tmp_path / "results"


def test_a_renewed_report_knows_more_and_refers_to_the_same_objects(results: Path) -> None:
    before = pydicom.dcmread(results / "dicom" / "report.dcm")
    record = read_record(results / "session.json")
    renew_report(record, results / "dicom")
    again = pydicom.dcmread(results / "dicom" / "report.dcm")
    for each in (before, again):
        del each.InstanceCreationDate, each.InstanceCreationTime
    assert again == before
    drawn = DrawnEntry("cobb", "Cobb angle", CONTRAST.uid, (number("Cobb angle", 12.0, "deg"),))
    renew_report(replace(record, drawn=(drawn,)), results / "dicom")
    renewed = pydicom.dcmread(results / "dicom" / "report.dcm")
    assert renewed.SOPInstanceUID != before.SOPInstanceUID
    assert renewed.SeriesInstanceUID == before.SeriesInstanceUID
    assert "Cobb angle" in str(renewed)
    with pytest.raises(SessionError, match="does not hold the scan"):
        renew_report(replace(record, started_utc="2026-01-01T05:00:00+00:00"), results / "dicom")


def test_send_from_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing is sent without it")
    count = len(list((results / "dicom").rglob("*.dcm")))
    with answering(lambda _n: 0) as archive:
        command = ["send", "--results", str(results), "--to", f"127.0.0.1:{archive.port}", "--called", TITLE]
        assert main(command) == 0
    assert f"{count} stored of {count} DICOM objects" in capsys.readouterr().out
    assert read_record(results / "session.json").events[-1].kind == "sent"
    assert (results / "report.html").is_file()
    with answering(lambda n: 0xA700 if n == 1 else 0) as archive:
        command[4] = f"127.0.0.1:{archive.port}"
        assert main(command) == 1
    assert "not everything was stored" in capsys.readouterr().err
    assert "1 refused" in read_record(results / "session.json").events[-1].text


def test_commitment_from_the_command_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing is sent without it")
    command = ["send", "--results", str(results), "--called", TITLE, "--commit", "0", "--to"]
    with answering(lambda _n: 0, commit=committing) as archive:
        assert main([*command, f"127.0.0.1:{archive.port}"]) == 0
    assert " committed (of " in capsys.readouterr().out
    assert [event.kind for event in read_record(results / "session.json").events][-2:] == ["sent", "committed"]
    with answering(lambda _n: 0) as archive:
        assert main([*command, f"127.0.0.1:{archive.port}"]) == 1
    assert "everything was stored, not everything was committed" in capsys.readouterr().err
    assert "the archive does not offer it" in read_record(results / "session.json").events[-1].text


def test_interrupted_by_a_person_the_record_says_what_arrived(results: Path) -> None:
    pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing is sent without it")

    def store(n: int) -> int:
        if n == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return 0

    with answering(store) as archive:
        assert main(["send", "--results", str(results), "--to", f"127.0.0.1:{archive.port}", "--called", TITLE]) == 1
    said = read_record(results / "session.json").events[-1].text
    assert " stored, " in said
    assert said.endswith("(cancelled)")


def test_send_without_objects_or_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record_of(NATIVE, CONTRAST), tmp_path / "session.json")
    command = ["send", "--results", str(tmp_path), "--to", "127.0.0.1:1", "--called", TITLE]
    assert main(command) == 1
    assert "holds no DICOM objects" in capsys.readouterr().err


def test_two_headers_of_two_persons() -> None:
    mine = DicomFacts(patient={"PatientBirthDate": "19700102", "PatientSex": "F"})
    assert mine.contradicts({"PatientBirthDate": "19710102"}) == "PatientBirthDate 19700102 and 19710102"
    assert mine.contradicts({"PatientSex": "F"}) == ""
    assert mine.contradicts({}) == ""
