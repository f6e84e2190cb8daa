"""To an archive: what it has acknowledged is called stored, nothing else is, and it has what was written."""

from __future__ import annotations

import io
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from IntraopMRILib.report.dicom.send import Archive, Fate, send
from IntraopMRIReconstructionLib.errors import SessionError
from peers import dicom_archive
from peers.dicom_archive import answering
from peers.dicom_case import PATIENT

pytest.importorskip("highdicom", reason="pip install highdicom: there is nothing to send without it")
pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing can be sent without it")


@pytest.mark.peer
def test_orthanc_has_what_was_written(files: list[Path], running: dicom_archive.Orthanc) -> None:
    told: list[float] = []

    def progress(fraction: float, _what: str) -> bool:
        told.append(fraction)
        return True

    outcome = send(files, running.archive, progress)
    assert outcome.complete, outcome.text
    assert outcome.text.endswith(f"{len(files)} stored of {len(files)} DICOM objects")
    assert told == sorted(told)
    assert told[-1] == 1.0
    kept = running.instances()
    assert set(kept) == {sent.sop_uid for sent in outcome.objects}
    for path in files:
        original = pydicom.dcmread(path)
        there = pydicom.dcmread(io.BytesIO(running.bytes(f"/instances/{kept[original.SOPInstanceUID]}/file")))
        assert there == original, path.name
    (patient,) = running.get("/patients?expand")
    assert patient["MainDicomTags"]["PatientID"] == PATIENT
    (study,) = running.get("/studies?expand")
    assert len(study["Series"]) == 7
    # A second time it is the same objects, not twice as many.
    assert send(files, running.archive).complete
    assert len(running.instances()) == len(files)


@pytest.mark.peer
def test_orthanc_rejects_a_wrong_title(files: list[Path], running: dicom_archive.Orthanc) -> None:
    with pytest.raises(SessionError, match=r"rejects .* or is not called 'OTHER'.*nothing was sent"):
        send(files, replace(running.archive, title="OTHER"))


def test_each_object_has_its_own_fate(files: list[Path]) -> None:
    statuses = {1: 0xA700, 2: 0xB000, 3: 0xC123}
    with answering(lambda n: statuses.get(n, 0)) as archive:
        outcome = send(files, archive)
    fates = [sent.fate for sent in outcome.objects]
    assert fates[:5] == [Fate.STORED, Fate.REFUSED, Fate.WARNED, Fate.REFUSED, Fate.STORED]
    assert not outcome.complete
    assert "0xA700" in outcome.objects[1].why
    assert f"{len(files) - 3} stored, 1 stored, with a warning, 2 refused of {len(files)}" in outcome.text


def test_classes_that_the_archive_does_not_take_are_refused_one_by_one(files: list[Path]) -> None:
    mr = "1.2.840.10008.5.1.4.1.1.4"
    with answering(lambda _n: 0, [mr]) as archive:
        outcome = send(files, archive)
    for sent in outcome.objects:
        slices = sent.path.parent.name in ("101-native", "102-contrast", "preoperative")
        assert sent.fate is (Fate.STORED if slices else Fate.REFUSED)
    assert "takes no Segmentation Storage" in "".join(sent.why for sent in outcome.objects)
    with answering(lambda _n: 0, []) as archive, pytest.raises(SessionError, match="takes none of these objects"):
        send(files, archive)


def test_cancelled_between_two_objects(files: list[Path]) -> None:
    with answering(lambda _n: 0) as archive:
        outcome = send(files, archive, lambda fraction, _what: fraction < 0.25)
    fates = [sent.fate for sent in outcome.objects]
    stored = fates.count(Fate.STORED)
    assert 0 < stored < len(files)
    assert fates == [Fate.STORED] * stored + [Fate.NOT_SENT] * (len(files) - stored)
    assert outcome.cancelled
    assert not outcome.complete
    assert "(cancelled)" in outcome.text


def test_an_archive_that_falls_silent_has_stored_nothing_more(files: list[Path]) -> None:
    still = threading.Event()

    def store(n: int) -> int:
        if n == 2:
            still.wait(20.0)
        return 0

    with answering(store) as archive:
        outcome = send(files, replace(archive, answer_s=0.5))
        still.set()
    fates = [sent.fate for sent in outcome.objects]
    assert fates[:3] == [Fate.STORED, Fate.STORED, Fate.UNKNOWN]
    assert set(fates[3:]) == {Fate.NOT_SENT}
    assert not outcome.complete
    assert "connection was lost" in outcome.objects[-1].why


def test_nothing_is_sent_when_the_echo_fails(files: list[Path]) -> None:
    with answering(lambda _n: 0, echo=lambda: 0x0122) as archive, pytest.raises(SessionError, match="C-ECHO"):
        send(files, archive)


def test_nobody_listens(files: list[Path]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        archive = Archive("127.0.0.1", holder.getsockname()[1], "PACS", connect_s=2.0)
        with pytest.raises(SessionError, match=r"PACS at 127.0.0.1:\d+ cannot be reached \(Connection refused\)"):
            send(files, archive)


def test_a_peer_that_accepts_and_says_nothing(files: list[Path]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        archive = Archive("127.0.0.1", listener.getsockname()[1], "PACS", connect_s=0.5, answer_s=0.5)
        with pytest.raises(SessionError, match="does not answer as an archive"):
            send(files, archive)


def test_a_host_that_does_not_exist(files: list[Path]) -> None:
    with pytest.raises(SessionError, match=r"PACS at nowhere.invalid:104 cannot be reached"):
        send(files, Archive("nowhere.invalid", 104, "PACS"))


def test_files_that_are_no_objects_stop_everything(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"no")
    with answering(lambda _n: 0) as archive:
        with pytest.raises(SessionError, match=r"x.dcm' is no DICOM object"):
            send([*files, tmp_path / "x.dcm"], archive)
        with pytest.raises(SessionError, match="no DICOM objects to send"):
            send([], archive)


@pytest.mark.parametrize(
    ("host", "port", "title", "said"),
    [
        ("", 104, "PACS", "no address"),
        ("pacs", 0, "PACS", "no address"),
        ("pacs", 104, "", "no application entity title"),
        ("pacs", 104, "T" * 17, "no application entity title"),
        ("pacs", 104, "Ä", "no application entity title"),
    ],
)
def test_an_address_that_is_none(host: str, port: int, title: str, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        Archive(host, port, title)
