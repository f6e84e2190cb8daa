from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.workflow import record as records
from IntraopMRILib.workflow.record import (
    DISCLAIMER,
    CarriedEntry,
    ImplantEntry,
    RegistrationEntry,
    ResidualEntry,
    SessionRecord,
    Timing,
    from_json,
    image_entry,
    read_record,
    to_json,
    write_record,
    write_together,
)
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError, SessionError


def full_record() -> SessionRecord:
    verdict = Verdict((Reason("metric", np.float64(-1.2), "", "below -1.0", Level.GOOD),))
    volume = Measurement("Residual", 0.8, "cm3", "enhancing volume", "paper", (0.4, 1.3), based_on=("a", "b"))
    gone = Measurement("Angle", None, "deg", "angle", missing_because="no direction in this plane")
    image = Image(np.zeros((4, 5, 6)), np.diag([1.0, 2.0, 3.0, 1.0]), "T1c", 1.7e9, "P1", "uid1", {"TE": "3"})
    entry, tip = (0.0, 0.0, 0.0), (0.0, 1.0, 40.0)
    return SessionRecord(
        patient_id="P1 «Ünï» <b>",
        procedure="resection",
        started_utc="2026-03-01T10:00:00.000+00:00",
        images=(image_entry(image, "intraoperative contrast"),),
        registration=RegistrationEntry("uid1", "uid0", "rigid", tuple(map(tuple, np.eye(4).tolist())), 0.4, verdict),
        residual=ResidualEntry(
            volume, volume, "2B", "1 or 2A", "3A", "near total", "definition", "source", (1.0, 2.0, 3.0), (gone,)
        ),
        implants=(
            ImplantEntry(
                "L4",
                5.5,
                entry,
                tip,
                entry,
                tip,
                0.4,
                "optimal",
                verdict,
                (gone,),
            ),
        ),
        carried=(
            CarriedEntry("Biopsy", "target", 3.2, 3.2, 1.1, verdict, "accepted", "Dr. X", "2026-03-01T10:05:00Z"),
        ),
        timings=(Timing("reconstruct", 1.5),),
        software={"numpy": np.__version__},
    ).with_event("scan", "contrast scan received")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    record = full_record()
    path = tmp_path / "session.json"
    write_record(record, path)
    again = read_record(path)
    assert again == read_record(path)
    assert to_json(again) == to_json(record)
    assert again.registration is not None
    assert again.registration.verdict.level is Level.GOOD
    assert again.residual is not None
    assert record.residual is not None
    assert again.residual.volume == record.residual.volume
    assert again.images[0].size_ijk == (6, 5, 4)
    assert again.images[0].spacing_mm == (1.0, 2.0, 3.0)
    assert again.images[0].acquired_utc == "2023-11-14T22:13:20.000+00:00"
    assert again.events[0].kind == "scan"
    assert json.loads(path.read_text(encoding="utf-8"))["disclaimer"] == DISCLAIMER
    assert [p.name for p in tmp_path.iterdir()] == ["session.json"]


def test_a_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "session.json"
    write_record(full_record(), path)
    before = path.read_text(encoding="utf-8")

    def full_disk(_descriptor: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full_disk)
    with pytest.raises(SessionError, match=r"No space left.*Nothing was changed"):
        write_record(replace(full_record(), procedure="other"), path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in tmp_path.iterdir()] == ["session.json"]


def test_a_name_that_is_no_text_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Names of files may hold bytes that are no letters; nothing is lost for that at the end of a session."""
    record = SessionRecord("P-1", "scan of caf\udce9", "2026-01-01T10:00:00+00:00")
    write_record(record, tmp_path / "session.json")
    assert read_record(tmp_path / "session.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["session.json"]


def test_a_record_may_be_read_by_whom_files_of_this_person_may(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("x")
    write_together({tmp_path / "session.json": "{}"})
    assert (tmp_path / "session.json").stat().st_mode == (tmp_path / "other.txt").stat().st_mode


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="choose a folder that exists"):
        write_record(full_record(), tmp_path / "missing" / "session.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema="other"), "not a session record"),
        (lambda d: d.update(schema_version=99), "version 99"),
        (lambda d: d.pop("patient_id"), "incomplete"),
        (lambda d: d.update(patient_id=" "), "patient id"),
        (lambda d: d.update(surprise=1), "unknown entries"),
        (lambda d: d["timings"][0].update(seconds="1.5"), r"timings\[0\].seconds must be a number"),
        (lambda d: d["registration"]["verdict"]["reasons"][0].update(level="fine"), "must be one of"),
        (lambda d: d["residual"]["volume"].update(interval=[2.0, 1.0]), r"must be \(lower, upper\)"),
        (lambda d: d["residual"]["volume"].update(interval=[2.0]), "must have 2 entries"),
        (lambda d: d["residual"]["volume"].update(value=None), "must say why"),
        (lambda d: d.update(events="none"), "must be a list"),
        (lambda d: d["images"][0].update(size_ijk=[1, True, 2]), "whole number"),
    ],
)
def test_a_damaged_record_is_named(change: Any, message: Any) -> None:
    document = json.loads(to_json(full_record()))
    change(document)
    with pytest.raises(DataError, match=message):
        from_json(json.dumps(document))


def test_text_that_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cut off"):
        from_json(to_json(full_record())[:-40])
    with pytest.raises(DataError, match="NaN"):
        from_json(to_json(full_record()).replace("1.5", "NaN"))
    with pytest.raises(DataError, match="cannot be read"):
        read_record(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_record(tmp_path / "binary.json")


def test_a_number_that_is_not_finite_is_not_written() -> None:
    with pytest.raises(DataError, match=r"timings\[0\]"):
        to_json(replace(full_record(), timings=(Timing("scan", float("inf")),)))


def test_a_record_needs_a_patient() -> None:
    with pytest.raises(SessionError, match="patient id"):
        SessionRecord("", "resection", "2026-03-01T10:00:00+00:00")


def test_a_record_is_read_while_its_module_is_being_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.json"
    record = SessionRecord("P1", "test", "2026-01-01T10:00:00+00:00").with_event("scan", "began")
    write_record(record, path)
    monkeypatch.delitem(sys.modules, SessionRecord.__module__)
    assert read_record(path) == record
