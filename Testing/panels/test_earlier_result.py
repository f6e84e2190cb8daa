"""The result of an earlier operation is chosen on page 1; page 6 and the report say what was left then and now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host.fixtures import app
from IntraopMRIReconstructionLib.errors import SessionError
from panels.operation import Operation, ball, product
from panels.test_pieces import LARGE, SECOND, find
from peers.dicom_case import record_of, scan

__all__ = ["app"]

#: The scan of the operation is of November 2023.
BEFORE_UTC_S, AFTER_UTC_S = 1_690_000_000.0, 1_710_000_000.0
THEN_ML, SPREAD_ML = 2.0, 0.5


def kept(folder: Path, taken_utc_s: float = BEFORE_UTC_S, patient: str = "P-1") -> str:
    """Results of an earlier operation with a residual of THEN_ML; returns the folder."""
    scans = [scan(np.eye(3), role, acquired_utc_s=taken_utc_s) for role in ("native", "contrast")]
    record = record_of(*scans)
    assert record.residual is not None
    volume = replace(record.residual.volume, value=THEN_ML, interval=(THEN_ML - SPREAD_ML, THEN_ML + SPREAD_ML))
    record = replace(record, patient_id=patient, residual=replace(record.residual, volume=volume))
    folder.mkdir()
    product("workflow.record").write_record(record, folder / "session.json")
    return str(folder)


def decided(operation: Operation) -> Any:
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.register()
    find(operation)
    operation.running.confirm()
    operation.open("DECIDE")
    operation.panel.refresh()
    return operation.page("DECIDE").ui


def test_then_and_now_on_page_6_and_in_the_report(app: Any, tmp_path: Path) -> None:
    then = kept(tmp_path / "then")
    operation = Operation(then)
    operation.open("CASE")
    operation.panel.refresh()
    assert "Earlier, 2023-07-22: residual 2.0 ± 0.5 cm³" in operation.page("CASE").ui.summaryLabel.text
    assert not operation.page("CASE").ui.earlierResults.enabled, "the plan is fixed while connected"
    ui = decided(operation)
    # All that is left is in the two known balls.
    now = float((ball(LARGE, 6.5) | ball(SECOND, 4.5)).sum()) * operation.image.voxel_volume_ml
    number = product("scene.display").number
    assert ("+" if now > THEN_ML else "") + number(now - THEN_ML, "cm3") in ui.resultLabel.text
    assert "since 2023-07-22: 2.0 ± 0.5 cm³ then" in ui.resultLabel.text
    rows = {ui.measuredTable.item(row, 0).text(): ui.measuredTable.item(row, 1).text() for row in range(6)}
    assert rows["Residual at the baseline of 2023-07-22"] == "2.0 cm³"
    assert rows["Residual: change of volume since 2023-07-22"] == number(now - THEN_ML, "cm3")
    # The results of then stay as they are.
    ui.reportFolderEdit.currentPath = then
    operation.page("DECIDE").report()
    assert "holds the earlier result" in operation.running.problem
    assert not (tmp_path / "then" / "report.html").exists()
    operation.running.problem = ""
    ui.reportFolderEdit.currentPath = str(tmp_path / "now")
    operation.page("DECIDE").report()
    report = (tmp_path / "now" / "report.html").read_text()
    assert report.index("Residual: change of volume since 2023-07-22") < report.index("<h2>Further measurements</h2>")


def test_a_scan_that_is_not_later_gives_no_change(app: Any, tmp_path: Path) -> None:
    ui = decided(Operation(kept(tmp_path / "then", AFTER_UTC_S)))
    assert "–" in ui.resultLabel.text
    assert "which is not after the baseline" in ui.resultLabel.text
    assert "Residual " in ui.resultLabel.text, "the residual of now stands"


def test_what_is_no_earlier_result_is_refused(app: Any, tmp_path: Path) -> None:
    operation = Operation()
    operation.running.disconnect()
    operation.until(lambda: operation.running.task is None, "the end of the session")
    page, connect = operation.page("CASE"), operation.page("CONNECT")
    operation.open("CASE")
    (tmp_path / "empty").mkdir()
    page.ui.earlierResults.currentPath = str(tmp_path / "empty")
    assert page.state().readiness.name == "BLOCKED"
    assert "session.json" in page.state().text
    connect.toggle()
    assert "session.json" in operation.running.problem
    assert operation.running.task is None
    # Another patient's: said at once, and the plan is not made.
    page.ui.earlierResults.currentPath = kept(tmp_path / "other", patient="P-2")
    assert "patient 'P-2'" in page.state().text
    with pytest.raises(SessionError, match="is of patient 'P-2', not of 'P-1'"):
        page.baseline()
    page.ui.earlierResults.currentPath = ""
    assert page.state().readiness.name == "DONE"
    # Without a tumour there is nothing to compare.
    page.ui.earlierResults.currentPath = str(tmp_path / "other")
    operation.panel.parameters.tumourSegmentation = None
    operation.panel.refresh()
    assert not page.ui.earlierResults.visible
    assert page.baseline() is None
