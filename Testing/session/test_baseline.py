"""Follow-up: a later scan beside the results of the operation, and what is no baseline of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan
from IntraopMRILib.session.baseline import Baseline, compared, read_baseline
from IntraopMRILib.workflow.record import SessionRecord, as_document, write_record
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import SessionError
from peers.dicom_case import PATIENT, record_of, scan, verdict


def kept(folder: Path, volume_ml: float, interval: tuple[float, float] | None, **changes: object) -> SessionRecord:
    """Results of a session with this residual."""
    record = record_of(*(scan(np.eye(3), role) for role in ("native", "contrast")), implants=())
    assert record.residual is not None
    volume = replace(record.residual.volume, value=volume_ml, interval=interval)
    record = replace(record, residual=replace(record.residual, volume=volume))
    record = replace(record, **changes)  # type: ignore[arg-type]
    folder.mkdir()
    write_record(record, folder / "session.json")
    return record


def earlier(baseline: Baseline, days: float) -> Baseline:
    """The same, of scans that were taken so many days before."""
    taken = datetime.fromisoformat(baseline.taken_utc) - timedelta(days=days)
    return replace(baseline, taken_utc=taken.isoformat())


@pytest.mark.parametrize(
    ("then", "now", "change", "says"),
    [
        ((2.0, (1.5, 2.5)), (2.4, (1.8, 3.0)), (0.4, (-0.7, 1.5)), "it may be none"),
        ((2.0, (1.5, 2.5)), (6.0, (5.0, 7.0)), (4.0, (2.5, 5.5)), "it is more than both intervals"),
        ((6.0, (5.0, 7.0)), (2.0, (1.5, 2.5)), (-4.0, (-5.5, -2.5)), "it is more than both intervals"),
        ((2.0, None), (3.0, (2.0, 4.0)), (1.0, None), "no interval of it is known"),
    ],
)
def test_then_and_now(
    tmp_path: Path,
    then: tuple[float, tuple[float, float] | None],
    now: tuple[float, tuple[float, float] | None],
    change: tuple[float, tuple[float, float] | None],
    says: str,
) -> None:
    kept(tmp_path / "then", *then)
    baseline = earlier(read_baseline(tmp_path / "then"), 90.0)
    record = kept(tmp_path / "now", *now)
    before, differs = compared(baseline, record)
    assert (before.value, before.interval) == then
    assert differs.value == pytest.approx(change[0])
    assert differs.interval is None if change[1] is None else differs.interval == pytest.approx(change[1])
    assert says in differs.definition
    assert "not told from tumour" in differs.definition
    day = baseline.taken_utc[:10]
    html = render(as_document(replace(record, measurements=(before, differs))))
    # At the head of the report, and with its definition below.
    assert html.index(f"Residual: change of volume since {day}") < html.index("<h2>Further measurements</h2>")
    assert f"Residual at the baseline of {day}" in html


def test_without_a_residual_now_there_is_no_change(tmp_path: Path) -> None:
    kept(tmp_path / "then", 2.0, (1.0, 3.0))
    baseline = earlier(read_baseline(tmp_path / "then"), 90.0)
    record = kept(tmp_path / "now", 2.0, None)
    _before, differs = compared(baseline, replace(record, residual=None))
    assert (differs.value, differs.missing_because) == (None, "this scan says no residual")
    assert record.registration is not None
    refused = replace(record.registration, verdict=verdict(Level.REFUSED))
    _before, differs = compared(baseline, replace(record, registration=refused))
    assert differs.value is None
    assert "the registration was refused" in differs.missing_because


def test_what_is_no_baseline_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = kept(tmp_path / "then", 2.0, (1.0, 3.0))
    baseline = read_baseline(tmp_path / "then")
    before, label = Image(np.ones((2, 2, 2)), np.eye(4)), Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    assert Plan(PATIENT, "follow-up", before, label, baseline=baseline).baseline is baseline
    with pytest.raises(SessionError, match="the baseline is of patient 'P-17', the session of 'P-2'"):
        Plan("P-2", "follow-up", before, label, baseline=baseline)
    with pytest.raises(SessionError, match="a baseline is about a residual"):
        Plan(PATIENT, "follow-up", before, measures=("cobb",), baseline=baseline)
    now = kept(tmp_path / "now", 2.0, None)
    unknown = tuple(replace(image, acquired_utc=None) for image in now.images)
    for than, images, said in (
        (baseline, now.images, "which is not after the baseline"),
        (earlier(baseline, 90.0), unknown, "was taken at an unknown time"),
    ):
        _before, differs = compared(than, replace(now, images=images))
        assert differs.value is None
        assert said in differs.missing_because
    assert record.registration is not None
    refused = replace(record.registration, verdict=verdict(Level.REFUSED))
    timeless = tuple(replace(image, acquired_utc=None) for image in record.images)
    for name, changes, said in (
        ("spine", {"residual": None}, "holds no residual to compare with: name the results"),
        ("refused", {"registration": refused}, "compare with: the registration was refused"),
        ("timeless", {"images": timeless}, "does not say when its scans were taken"),
    ):
        kept(tmp_path / name, 2.0, None, **changes)
        with pytest.raises(SessionError, match=said):
            read_baseline(tmp_path / name)
    there = str(tmp_path / "then")
    assert main(["assess", "--native", "n.nii", "--baseline", there, "--out", there]) == 1
    assert "is the baseline, and would be replaced" in capsys.readouterr().err
