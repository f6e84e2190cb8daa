"""The measurement report (SR) says the record's numbers, and none that may not be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from IntraopMRILib.report.dicom.codes import own, unit
from IntraopMRILib.report.dicom.write import write
from IntraopMRILib.workflow.record import DrawnEntry, PieceEntry, SessionRecord, as_document
from IntraopMRIReconstructionLib.data import Level
from peers.dicom_case import case, number, record_of, scan
from pydicom.dataset import Dataset

pytest.importorskip("highdicom", reason="pip install highdicom: reports are not written without it")
RAS = np.eye(3)


def record(**changes: Any) -> SessionRecord:
    return replace(record_of(scan(RAS, "native"), scan(RAS, "contrast")), **changes)


def written(folder: Path, told: SessionRecord) -> Dataset:
    write(case(RAS, told), folder / "dicom")
    return pydicom.dcmread(folder / "dicom" / "report.dcm")


def walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def numbers(found: Dataset) -> dict[str, tuple[float, str, float | None, float | None]]:
    """Name of each group and number to value, unit, and its range below and above."""
    result = {}
    for group in (item for item in walk(found) if meaning(item) == "Measurement Group"):
        title = next(str(c.TextValue) for c in group.ContentSequence if meaning(c) == "Tracking Identifier")
        for item in (c for c in group.ContentSequence if c.ValueType == "NUM"):
            name = next(str(c.TextValue) for c in item.ContentSequence if meaning(c) == "Tracking Identifier")
            bounds = {meaning(c)[0]: value(c) for c in item.ContentSequence if c.ValueType == "NUM"}
            low, high = (bounds[sign][0] if sign in bounds else None for sign in "-+")
            assert all(bound[1] == value(item)[1] for bound in bounds.values()), "a bound in another unit"
            result[f"{title}: {name}"] = (*value(item), low, high)
    return result


def value(item: Dataset) -> tuple[float, str]:
    (measured,) = item.MeasuredValueSequence
    (used,) = measured.MeasurementUnitsCodeSequence
    assert used.CodingSchemeDesignator == "UCUM"
    return float(measured.NumericValue), str(used.CodeValue)


def meaning(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def words(found: Dataset) -> str:
    return "\n".join(str(item.TextValue) for item in walk(found) if item.ValueType == "TEXT")


def codes(found: Dataset) -> dict[str, str]:
    return {meaning(i): str(i.ConceptCodeSequence[0].CodeMeaning) for i in walk(found) if i.ValueType == "CODE"}


def test_numbers_with_unit_and_interval(tmp_path: Path) -> None:
    found = numbers(written(tmp_path, record()))
    assert found == {
        "Registration: Registration error": (0.4, "mm", None, None),
        "Residual enhancing tumour: Residual enhancing tumour": (1.25, "cm3", 0.25, 0.75),
        "Residual enhancing tumour: Extent of resection": (92.5, "%", 0.25, 0.75),
        "Screw: Tip deviation": (2.0, "mm", 0.25, 0.75),
        "Screw: Angular deviation": (3.0, "deg", 0.25, 0.75),
        "accepted thing (risk): Moved by brain shift": (3.5, "mm", None, None),
        "accepted thing (risk): Uncertainty of the place": (1.5, "mm", None, None),
        "rejected thing (risk): Moved by brain shift": (3.5, "mm", None, None),
        "rejected thing (risk): Uncertainty of the place": (1.5, "mm", None, None),
        "Resection cavity: Resection cavity": (24.0, "cm3", 0.25, 0.75),
    }


def test_volume_is_coded_and_refers_to_its_segment_and_the_scan(tmp_path: Path) -> None:
    found = written(tmp_path, record())
    segments = pydicom.dcmread(tmp_path / "dicom" / "segmentation.dcm")
    plane = pydicom.dcmread(tmp_path / "dicom" / "102-contrast" / "0001.dcm")
    (volume,) = (i for i in walk(found) if i.ValueType == "NUM" and meaning(i) == "Volume")
    assert volume.ConceptNameCodeSequence[0].CodeValue == "118565006"
    (reference,) = (i for i in walk(found) if i.ValueType == "IMAGE").__next__().ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == segments.SOPInstanceUID
    assert segments.SegmentSequence[reference.ReferencedSegmentNumber - 1].SegmentLabel == "Residual enhancing tumour"
    tracked = segments.SegmentSequence[reference.ReferencedSegmentNumber - 1].TrackingUID
    assert tracked in [i.UID for i in walk(found) if i.ValueType == "UIDREF"]
    assert plane.SeriesInstanceUID in [i.UID for i in walk(found) if i.ValueType == "UIDREF"]
    named = {
        each.ReferencedSOPInstanceUID
        for key in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in found.get(key, ())
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }
    assert {segments.SOPInstanceUID, plane.SOPInstanceUID} <= named


def test_the_implant_lies_where_it_was_found(tmp_path: Path) -> None:
    found = written(tmp_path, record())
    (line,) = (i for i in walk(found) if i.ValueType == "SCOORD3D")
    np.testing.assert_allclose(np.reshape(line.GraphicData, (2, 3)), [(-2, -2, 3), (-3, -32, 3)])
    plane = pydicom.dcmread(tmp_path / "dicom" / "102-contrast" / "0001.dcm")
    assert line.ReferencedFrameOfReferenceUID == plane.FrameOfReferenceUID
    assert "planned entry (-1.0, -2.0, 3.0), tip (-1.0, -32.0, 3.0) mm LPS" in words(found).replace(" mm LPS,", ",")


def test_who_and_what_was_decided(tmp_path: Path) -> None:
    found = written(tmp_path, record())
    assert [str(i.PersonName) for i in walk(found) if i.ValueType == "PNAME"] == ["Dr. Example^"]
    assert codes(found)["RANO resect class"] == "3A"
    assert codes(found)["RANO resect class, best of interval"] == "2B"
    assert codes(found)["Verdict on the detection"] == "check"
    said = words(found)
    for part in ("Not for clinical use", "confirmed: good", "accepted by Dr. A", "rejected by Dr. B", "definition of "):
        assert part in said
    assert (found.VerificationFlag, found.PreliminaryFlag, found.CompletionFlag) == ("UNVERIFIED", "FINAL", "COMPLETE")


def test_what_has_no_value_stands_in_words(tmp_path: Path) -> None:
    found = written(tmp_path, record())
    assert "Not assessed: no value, nobody looked" in words(found)
    assert "open thing" not in words(found)
    assert not any("open thing" in name for name in numbers(found))


def test_a_residual_that_was_withdrawn_leaves_no_number_and_no_class(tmp_path: Path) -> None:
    residual = record().residual
    assert residual is not None
    gone = replace(
        residual,
        volume=number("Residual enhancing tumour", None, "cm3", "the patient moved"),
        extent_of_resection=number("Extent of resection", None, "%", "the patient moved"),
    )
    found = written(tmp_path, record(residual=gone))
    assert not any("Residual" in name for name in numbers(found))
    assert "RANO resect class" not in codes(found)
    assert "the patient moved" in words(found)


def test_a_refused_registration_leaves_no_number(tmp_path: Path) -> None:
    refused = record_of(scan(RAS, "native"), scan(RAS, "contrast"), level=Level.REFUSED)
    found = written(tmp_path, replace(refused, carried=()))
    assert numbers(found) == {}
    assert codes(found)["Verdict on the registration"] == "refused"
    assert "RANO resect class" not in codes(found)
    assert not [i for i in walk(found) if i.ValueType in ("SCOORD3D", "IMAGE")]
    assert "the registration was refused" in words(found)


@pytest.mark.parametrize("when", ["2026-01-01T00:10:00+00:00", None])
def test_what_nobody_has_confirmed_is_preliminary(when: str | None, tmp_path: Path) -> None:
    before = record()
    told = replace(before, events=()).with_event("registration", "good", "2026-01-01T00:15:00+00:00")
    if when:
        told = told.with_event("confirmed", "an older registration", when)
    found = written(tmp_path, told)
    assert found.PreliminaryFlag == "PRELIMINARY"
    assert "No person has confirmed the registration" in words(found)


def test_writing_and_sending_do_not_make_another_report(tmp_path: Path) -> None:
    told = record()
    first = written(tmp_path / "a", told)
    second = written(tmp_path / "b", told.with_event("dicom", "written").with_event("sent", "to PACS"))
    assert first.SOPInstanceUID == second.SOPInstanceUID
    drawn = DrawnEntry("cobb", "Cobb angle", "uid-contrast", (number("Cobb angle", 12.0, "deg"),), "supine", "Dr. C")
    third = written(tmp_path / "c", replace(told, drawn=(drawn,)))
    assert third.SOPInstanceUID != first.SOPInstanceUID
    assert third.SeriesInstanceUID == first.SeriesInstanceUID
    assert "Drawn by Dr. C" in words(third)
    assert numbers(third)["Cobb angle: Cobb angle"][:2] == (12.0, "deg")


def test_an_unfinished_session_is_not_complete(tmp_path: Path) -> None:
    assert written(tmp_path, record(finished_utc=None)).CompletionFlag == "PARTIAL"


def test_own_codes_fit_and_differ() -> None:
    names = ["Tip deviation", "Angular deviation, axial part", "Angular deviation, sagittal part", "–", "ü" * 90]
    made = [own(name) for name in names]
    assert len({code.value for code in made}) == len(names)
    assert all(0 < len(code.value) <= 16 and len(code.meaning) <= 64 for code in made)
    assert made[0].value == "TIP_DEVIATION"
    assert unit("furlong").value == "{furlong}"


def test_the_document_is_the_record() -> None:
    assert case(RAS).document == as_document(record())


def test_each_piece_of_the_residual_is_a_group_with_its_place(tmp_path: Path) -> None:
    """One segment stays one; a piece that a person has excluded is no neoplasm."""
    told = record()
    assert told.residual is not None
    place = "left wall of the cavity"
    pieces = tuple(
        PieceEntry(
            n, place, "residual", number(f"Piece {n}: volume", 0.5 / n, "cm3"),
            number(f"Piece {n}: longest diameter", 9.0 / n), (4.0, 3.0, 2.0),
            number(f"Piece {n} to Tract", 6.0), by, "2026-01-01T00:30:00+00:00" if by else "",
        )
        for n, by in ((1, ""), (2, "Dr. X"))
    )  # fmt: skip
    found = written(tmp_path, replace(told, residual=replace(told.residual, pieces=pieces)))
    shown = numbers(found)
    assert shown["Piece 1: Volume"][:2] == (0.5, "cm3")
    assert shown["Piece 2: Longest diameter"][:2] == (4.5, "mm")
    assert shown["Piece 1: Piece 1 to Tract"][0] == 6.0
    groups = {
        next(str(c.TextValue) for c in group.ContentSequence if meaning(c) == "Tracking Identifier"): group
        for group in walk(found)
        if meaning(group) == "Measurement Group"
    }
    findings = [[meaning(c) for c in groups[name].ContentSequence].count("Finding") for name in ("Piece 1", "Piece 2")]
    assert findings == [1, 0]
    (point,) = (item for item in walk(groups["Piece 1"]) if item.ValueType == "SCOORD3D")
    assert point.GraphicType == "POINT"
    assert [float(x) for x in point.GraphicData] == [-4.0, -3.0, 2.0]
    words = " ".join(str(c.TextValue) for c in groups["Piece 2"].ContentSequence if c.ValueType == "TEXT")
    assert "Judged not tumour by Dr. X" in words
