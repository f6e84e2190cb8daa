"""Page 6: the written report as DICOM objects beside it, sent to an archive, both beside the main thread."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from host.fixtures import app
from panels.operation import Operation, product
from peers.dicom_archive import TITLE, answering, committing, free_ports

__all__ = ["app"]

pytest.importorskip("highdicom", reason="pip install highdicom: nothing is written without it")
pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing is sent without it")


@pytest.fixture
def operation(app: Any, tmp_path: Path) -> Operation:
    made = Operation()
    made.register()
    made.open("DECIDE")
    made.page("DECIDE").ui.reportFolderEdit.currentPath = str(tmp_path)
    return made


def report(operation: Operation) -> Any:
    """The page, with a confirmed registration, a decision and a written report."""
    parameters = product("scene.parameters")
    operation.running.confirm()
    p, page = operation.panel.parameters, operation.page("DECIDE")
    p.decision, p.surgeon = parameters.Decision.CLOSE, "Dr. Example"
    page.report()
    assert operation.running.reportPath, operation.running.problem
    return page


def saved(operation: Operation) -> Any:
    page = report(operation)
    page.ui.saveDicomButton.click()
    assert operation.running.task is not None, operation.running.problem
    operation.until(lambda: operation.running.task is None, "the objects")
    assert not operation.running.problem
    return page


def address(operation: Operation, archive: Any) -> None:
    p = operation.panel.parameters
    p.archiveAddress, p.archiveTitle = f"{archive.host}:{archive.port}", TITLE
    operation.panel.refresh()


def events(folder: Path, kind: str) -> list[str]:
    record = json.loads((folder / "session.json").read_text())
    return [event["text"] for event in record["events"] if event["kind"] == kind]


def test_nothing_is_saved_before_the_report(operation: Operation) -> None:
    ui = operation.page("DECIDE").ui
    assert not ui.saveDicomButton.enabled
    assert not ui.sendDicomButton.enabled
    assert "Write the report first" in ui.archiveLabel.text


def test_the_report_becomes_objects_and_goes_to_the_archive(operation: Operation, tmp_path: Path) -> None:
    page = saved(operation)
    found = {path.name: pydicom.dcmread(path) for path in (tmp_path / "dicom").glob("*.dcm")}
    assert set(found) == {"report.dcm", "segmentation.dcm"}
    assert {(each.PatientID, str(each.PatientName)) for each in found.values()} == {("P-1", "Test^")}
    assert [segment.SegmentLabel for segment in found["segmentation.dcm"].SegmentSequence] == ["Resection cavity"]
    assert (found["report.dcm"].CompletionFlag, found["report.dcm"].PreliminaryFlag) == ("COMPLETE", "FINAL")
    assert "Saved: 52 DICOM objects" in page.ui.archiveLabel.text
    count = 0

    def store(_n: int) -> int:
        nonlocal count
        count += 1
        return 0

    with answering(store) as archive:
        address(operation, archive)
        page.ui.sendDicomButton.click()
        operation.until(lambda: operation.running.task is None, "sending")
    assert count == 52
    assert "52 stored of 52" in page.ui.archiveLabel.text
    assert "52 DICOM objects" in events(tmp_path, "dicom")[0]
    assert "52 stored of 52" in events(tmp_path, "sent")[0]


def test_the_commitment_is_waited_for_beside_everything_else(operation: Operation, tmp_path: Path) -> None:
    page, go = saved(operation), threading.Event()

    def commit(event: Any) -> tuple[int, None]:
        go.wait(30)
        return committing(event)

    with answering(lambda _n: 0, commit=commit) as archive:
        address(operation, archive)
        (operation.panel.parameters.commitmentPort,) = free_ports(1)
        page.ui.sendDicomButton.click()
        operation.until(lambda: "Waiting for storage commitment" in page.ui.archiveLabel.text, "the question")
        assert "52 stored of 52" in page.ui.archiveLabel.text
        assert operation.running.task is None, "a person can go on"
        assert not page.ui.sendDicomButton.enabled
        go.set()
        operation.until(lambda: "52 committed" in page.ui.archiveLabel.text, "the answer")
    assert page.ui.sendDicomButton.enabled
    assert "52 committed" in events(tmp_path, "committed")[0]
    assert page.record.events[-1].kind == "committed"


def test_what_is_not_committed_is_said_with_its_reason(operation: Operation, tmp_path: Path) -> None:
    page = saved(operation)
    with answering(lambda _n: 0) as archive:
        address(operation, archive)
        (operation.panel.parameters.commitmentPort,) = free_ports(1)
        page.ui.sendDicomButton.click()
        operation.until(lambda: bool(events(tmp_path, "committed")), "the answer")
    assert "52 not committed: the archive does not offer it" in events(tmp_path, "committed")[0]
    assert "52 stored of 52" in page.ui.archiveLabel.text


def test_a_new_scan_ends_the_waiting(operation: Operation, tmp_path: Path) -> None:
    page = saved(operation)
    with answering(lambda _n: 0, commit=lambda _event: (0, None)) as archive:
        address(operation, archive)
        (operation.panel.parameters.commitmentPort,) = free_ports(1)
        page.ui.sendDicomButton.click()
        operation.until(lambda: "Waiting for storage commitment" in page.ui.archiveLabel.text, "the question")
        image = operation.image
        operation.arrive(image.with_array(image.array + np.float32(1)))
        operation.panel.refresh()
        assert "commitment" not in page.ui.archiveLabel.text
        assert not events(tmp_path, "committed")


def test_what_was_decided_about_a_structure_is_what_is_written(operation: Operation, tmp_path: Path) -> None:
    item = next(i for i in operation.running.view.items.values() if i.kind == "risk")
    operation.session.decide(item, True, "Dr. Example")
    saved(operation)
    found = pydicom.dcmread(tmp_path / "dicom" / "segmentation.dcm")
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["Resection cavity", "Motor tract"]
    (method,) = found.SegmentSequence[1].SegmentationAlgorithmIdentificationSequence
    assert "accepted by Dr. Example" in method.AlgorithmName


def test_what_the_archive_refuses_is_said(operation: Operation, tmp_path: Path) -> None:
    page = saved(operation)
    with answering(lambda n: 0xA700 if n == 3 else 0) as archive:
        address(operation, archive)
        page.ui.sendDicomButton.click()
        operation.until(lambda: operation.running.task is None, "sending")
    assert "51 stored, 1 refused of 52" in operation.running.problem
    assert "Not everything was stored" in page.ui.archiveLabel.text
    assert "1 refused" in events(tmp_path, "sent")[0]


def test_a_cancelled_way_is_in_the_record(operation: Operation, tmp_path: Path) -> None:
    page = saved(operation)

    def store(n: int) -> int:
        if n == 2:
            operation.running.task.abandon()
        return 0

    with answering(store) as archive:
        address(operation, archive)
        page.ui.sendDicomButton.click()
        operation.until(lambda: operation.running.task is None, "the end")
    operation.until(lambda: bool(events(tmp_path, "sent")), "the record")
    assert "not sent of 52 DICOM objects (cancelled)" in events(tmp_path, "sent")[0]


@pytest.mark.parametrize(("where", "said"), [("", "is no address"), ("127.0.0.1:1", "cannot be reached")])
def test_an_archive_that_is_not_there(operation: Operation, where: str, said: str, tmp_path: Path) -> None:
    page = saved(operation)
    operation.panel.parameters.archiveAddress, operation.panel.parameters.archiveTitle = where, TITLE
    page.ui.sendDicomButton.click()
    operation.until(lambda: operation.running.task is None, "the refusal")
    assert said in operation.running.problem
    assert not events(tmp_path, "sent")


def test_a_new_scan_takes_the_objects_back(operation: Operation) -> None:
    page = saved(operation)
    assert page.ui.sendDicomButton.enabled
    image = operation.image
    operation.arrive(image.with_array(image.array + np.float32(1)))
    operation.open("DECIDE")
    operation.panel.refresh()
    assert not page.ui.sendDicomButton.enabled
    assert not page.ui.saveDicomButton.enabled


def test_an_unknown_patient_is_refused(operation: Operation, tmp_path: Path) -> None:
    page = report(operation)
    page.record = page.record.__class__(**{**vars(page.record), "patient_id": "unknown"})
    page.ui.saveDicomButton.click()
    operation.until(lambda: operation.running.task is None, "the refusal")
    assert "names nobody" in operation.running.problem
    assert not (tmp_path / "dicom").exists()
