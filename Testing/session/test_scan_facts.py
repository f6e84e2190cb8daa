"""What a DICOM header says of a scan: identity, agent, frame of reference, and the time of its acquisition."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from IntraopMRILib.scan_facts import DicomFacts, combined, facts_of, utc_of
from IntraopMRIReconstructionLib.errors import SessionError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

MOMENT = datetime(2025, 1, 31, 14, 5, 30, 250_000)


def header(**values: object) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = MRImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for key, value in values.items():
        setattr(made, key, value)
    return made


def written(folder: Path, made: Dataset, name: str = "1.dcm") -> Path:
    path = folder / name
    made.save_as(path, enforce_file_format=True)
    return path


def read_facts(path: Path) -> DicomFacts:
    return facts_of(pydicom.dcmread(path))


def test_everything_that_a_header_says(tmp_path: Path) -> None:
    made = header(
        PatientID=" P-1 ",
        SeriesDescription="T1 MPRAGE",
        SeriesInstanceUID="1.2.3",
        ContrastBolusAgent="Gadovist",
        FrameOfReferenceUID="1.2.840.1",
        AcquisitionDateTime="20250131140530.250000+0100",
    )
    facts = read_facts(written(tmp_path, made))
    assert facts == DicomFacts(
        "P-1",
        "T1 MPRAGE",
        "Gadovist",
        "1.2.840.1",
        "1.2.3",
        datetime(2025, 1, 31, 13, 5, 30, 250_000, UTC).timestamp(),
        "DICOM AcquisitionDateTime",
    )
    assert facts.metadata["ContrastBolusAgent"] == "Gadovist"
    assert "PatientID" not in facts.metadata


@pytest.mark.parametrize(
    ("values", "zoned"),
    [
        ({"AcquisitionDate": "20250131", "AcquisitionTime": "140530.25"}, False),
        ({"AcquisitionDate": "20250131", "AcquisitionTime": "140530.25", "TimezoneOffsetFromUTC": "+0000"}, True),
        ({"AcquisitionDateTime": "20250131140530.25"}, False),
    ],
)
def test_a_time_without_a_zone_is_that_of_this_computer_and_says_so(
    tmp_path: Path, values: dict[str, str], zoned: bool
) -> None:
    facts = read_facts(written(tmp_path, header(**values)))
    truth = MOMENT.replace(tzinfo=UTC) if zoned else MOMENT.astimezone()
    assert facts.taken_utc_s == pytest.approx(truth.timestamp())
    assert ("clock of this computer assumed" in facts.taken_from) is not zoned


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ContentDate": "20250131", "ContentTime": "140530"},
        {"SeriesDate": "20250131", "SeriesTime": "140530"},
        {"AcquisitionTime": "140530"},
        {"AcquisitionDate": "20250131"},
        {"AcquisitionDate": "20250131", "AcquisitionTime": "14"},
        {"AcquisitionDateTime": "20250131"},
    ],
)
def test_what_is_no_time_of_acquisition_is_not_taken_for_one(tmp_path: Path, values: dict[str, str]) -> None:
    """A picture that was computed anew has a later content time: it would look like the second of two scans."""
    facts = read_facts(written(tmp_path, header(**values)))
    assert facts.taken_utc_s is None
    assert facts.taken_from == ""


@pytest.mark.parametrize("agent", ["", "NONE", " no ", "0", "Without"])
def test_words_for_no_agent_name_none(tmp_path: Path, agent: str) -> None:
    assert read_facts(written(tmp_path, header(ContrastBolusAgent=agent))).agent == ""


def test_an_enhanced_object_has_time_and_agent_in_its_sequences(tmp_path: Path) -> None:
    content, frame, agent = Dataset(), Dataset(), Dataset()
    content.FrameAcquisitionDateTime = "20250131140530.250"
    frame.FrameContentSequence = Sequence([content])
    agent.CodeMeaning = "Gadobutrol"
    made = header(PerFrameFunctionalGroupsSequence=Sequence([frame, frame]))
    made.ContrastBolusAgentSequence = Sequence([agent])
    facts = read_facts(written(tmp_path, made))
    assert facts.taken_utc_s == pytest.approx(MOMENT.astimezone().timestamp())
    assert facts.taken_from.startswith("DICOM FrameAcquisitionDateTime")
    assert facts.agent == "Gadobutrol"


def test_slices_are_one_series_with_the_earliest_time_and_any_agent() -> None:
    shared = {"PatientID": "P-1", "SeriesInstanceUID": "1.2.3", "AcquisitionDate": "20250131"}
    told = [
        facts_of(header(**shared, AcquisitionTime=time, ContrastBolusAgent=agent))
        for time, agent in (("100200", ""), ("100100", "Gadovist"), ("", ""))
    ]
    facts = combined(told, "the series")
    assert facts.taken_utc_s == utc_of("20250131100100")
    assert facts.agent == "Gadovist"
    assert combined(told[-1:], "the series").taken_utc_s is None


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("PatientID", ("P-1", "P-2")),
        ("PatientBirthDate", ("19700101", "19710101")),
        ("StudyInstanceUID", ("1.2.3", "1.2.4")),
        ("FrameOfReferenceUID", ("1.2.3", "1.2.4")),
        ("Modality", ("MR", "CT")),
    ],
)
def test_slices_that_contradict_one_another_are_no_series(tag: str, values: tuple[str, str]) -> None:
    with pytest.raises(SessionError, match=f"no single series.*{values[0]}.*{values[1]}"):
        combined([facts_of(header(**{tag: value})) for value in values], "the folder")


@pytest.mark.parametrize("text", ["", "2025", "20251331140530", "20250131256000", "2025-01-31", "now"])
def test_what_is_no_moment_is_none(text: str) -> None:
    assert utc_of(text) is None


def test_a_leap_second_and_an_odd_zone_are_read() -> None:
    assert utc_of("20161231235960+0000") == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert utc_of("202501311405", "-0330") == datetime(2025, 1, 31, 17, 35, tzinfo=UTC).timestamp()
