"""Storage commitment: committed is what the archive answers for by name, whatever else it says or does not say."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from IntraopMRILib.report.dicom.commit import PUSH_MODEL, WELL_KNOWN, ask
from IntraopMRILib.report.dicom.send import Archive, Fate, Outcome, Sent, send
from IntraopMRIReconstructionLib.errors import SessionError
from peers import dicom_archive
from peers.dicom_archive import answering, free_ports
from pydicom.dataset import Dataset

pytest.importorskip("highdicom", reason="pip install highdicom: there is nothing to commit to without it")
pynetdicom = pytest.importorskip("pynetdicom", reason="pip install pynetdicom: nothing can be sent without it")

ENOUGH_S = 20.0


@pytest.mark.peer
def test_orthanc_commits_itself_to_what_it_has(files: list[Path], running: dicom_archive.Orthanc) -> None:
    outcome = send(files, running.archive)
    found = ask(outcome, running.reply_port, ENOUGH_S)
    assert found.complete, found.text
    assert found.text.endswith(f"{len(files)} committed (of {len(files)} DICOM objects)")
    gone = outcome.objects[3].sop_uid
    running.remove(running.instances()[gone])
    found = ask(outcome, running.reply_port, ENOUGH_S)
    assert not found.complete
    assert found.refused == {gone: "no such object there"}
    assert len(found.committed) == len(files) - 1
    assert "1 not committed: no such object there" in found.text


@pytest.mark.peer
def test_orthanc_calls_elsewhere(files: list[Path], running: dicom_archive.Orthanc) -> None:
    """Its configuration names another port than the one that is opened here."""
    found = ask(send(files, running.archive), free_ports(1)[0], 0.5)
    assert not found.committed
    assert f"{len(files)} not committed: no answer within 0.5 s" in found.text


def stored(archive: Archive, *uids: str) -> Outcome:
    """As after sending objects with these UIDs."""
    return Outcome(archive, tuple(Sent(Path(uid), "1.2.840.10008.5.1.4.1.1.4", uid, Fate.STORED) for uid in uids))


Reply = Callable[[Any, Dataset], None]


def reply_of(request: Dataset, done: list[str], failed: dict[str, int]) -> Dataset:
    told = Dataset()
    told.TransactionUID = request.TransactionUID
    for key, uids in (("ReferencedSOPSequence", done), ("FailedSOPSequence", list(failed))):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", uid
            if uid in failed and key.startswith("Failed"):
                item.FailureReason = failed[uid]
            items.append(item)
        if items:
            setattr(told, key, items)
    return told


def afterwards(reply: Reply) -> Callable[[Any], tuple[int, None]]:
    """Accept the request, then ``reply`` from a thread of its own, as an archive does that looks for objects first."""

    def commit(event: Any) -> tuple[int, None]:
        request = event.action_information
        threading.Thread(target=reply, args=(event.assoc, request), daemon=True).start()
        return 0, None

    return commit


def here(told: Callable[[Dataset], Dataset], kind: int = 1) -> Reply:
    """On the same connection."""
    return lambda association, request: association.send_n_event_report(told(request), kind, PUSH_MODEL, WELL_KNOWN)


def calling(port: int, told: Callable[[Dataset], Dataset], title: str = "INTRAOPMRI") -> Reply:
    """By calling back, as the provider that it stays."""

    def reply(_association: Any, request: Dataset) -> None:
        entity = pynetdicom.AE(ae_title="ARCHIVE")
        entity.add_requested_context(PUSH_MODEL)
        role = pynetdicom.build_role(PUSH_MODEL, scp_role=True)
        association = entity.associate("127.0.0.1", port, ae_title=title, ext_neg=[role])
        if association.is_established:
            association.send_n_event_report(told(request), 1, PUSH_MODEL, WELL_KNOWN)
            association.release()

    return reply


def test_the_answer_on_the_same_connection() -> None:
    with answering(lambda _n: 0, commit=afterwards(here(lambda r: reply_of(r, ["1.2", "1.3"], {})))) as archive:
        found = ask(stored(archive, "1.2", "1.3"), 0, ENOUGH_S)
    assert found.complete
    assert "2 committed" in found.text


def test_the_answer_by_a_call() -> None:
    (port,) = free_ports(1)
    with answering(lambda _n: 0, commit=afterwards(calling(port, lambda r: reply_of(r, ["1.2"], {})))) as archive:
        found = ask(stored(archive, "1.2"), port, ENOUGH_S)
    assert found.complete


def test_what_failed_what_is_not_mentioned_and_what_nobody_asked_for() -> None:
    told = here(lambda r: reply_of(r, ["1.1", "1.2", "9.9"], {"1.2": 0x0112, "1.3": 0x0777, "8.8": 0x0110}), 2)
    with answering(lambda _n: 0, commit=afterwards(told)) as archive:
        found = ask(stored(archive, "1.1", "1.2", "1.3", "1.4"), 0, ENOUGH_S)
    assert found.committed == {"1.1"}
    assert found.refused == {"1.2": "no such object there", "1.3": "reason 0x0777"}
    assert "1 not committed: the archive does not mention them" in found.text
    assert not found.complete


def test_only_what_was_stored_is_asked_for() -> None:
    asked: list[int] = []

    def told(request: Dataset) -> Dataset:
        asked.append(len(request.ReferencedSOPSequence))
        return reply_of(request, ["1.1"], {})

    with answering(lambda _n: 0, commit=afterwards(here(told))) as archive:
        both = stored(archive, "1.1", "1.2")
        part = replace(both, objects=(both.objects[0], replace(both.objects[1], fate=Fate.UNKNOWN)))
        assert ask(part, 0, ENOUGH_S).complete
        assert not ask(replace(both, objects=(replace(both.objects[0], fate=Fate.REFUSED),)), 0, ENOUGH_S).complete
    assert asked == [1]


def forged(request: Dataset) -> Dataset:
    told = reply_of(request, ["1.2"], {})
    told.TransactionUID = "1.2.3.4.5"
    return told


def test_an_answer_to_another_request_counts_for_nothing() -> None:
    with answering(lambda _n: 0, commit=afterwards(here(forged))) as archive:
        found = ask(stored(archive, "1.2"), 0, 0.5)
    assert not found.committed


def test_a_call_for_another_title_is_not_taken() -> None:
    (port,) = free_ports(1)
    reply = calling(port, lambda r: reply_of(r, ["1.2"], {}), title="SOMEONE")
    with answering(lambda _n: 0, commit=afterwards(reply)) as archive:
        assert not ask(stored(archive, "1.2"), port, 0.5).committed


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        (None, "the archive does not offer it"),
        (lambda _event: (0x0112, None), "the archive refuses with status 0x0112"),
        (lambda _event: (0, None), "no answer within 0.3 s"),
        # Before or after its acknowledgement.
        (afterwards(lambda association, _request: association.abort()), "the archive (closed|does not answer)"),
    ],
)
def test_no_commitment_and_why(commit: Any, said: str) -> None:
    with answering(lambda _n: 0, commit=commit) as archive:
        found = ask(stored(archive, "1.2"), 0, 0.3 if "0.3" in said else ENOUGH_S)
    assert not found.committed
    assert re.search(f"1 not committed: {said}", found.text), found.text


def test_nobody_has_to_wait() -> None:
    with answering(lambda _n: 0, commit=lambda _event: (0, None)) as archive:
        found = ask(stored(archive, "1.2"), 0, 600.0, lambda _fraction, _what: False)
    assert "nobody waited for the answer" in found.text


def test_an_archive_that_went_away_and_a_port_that_is_taken() -> None:
    with answering(lambda _n: 0) as archive:
        pass
    assert "could not be reached again" in ask(stored(archive, "1.2"), 0, ENOUGH_S).text
    with answering(lambda _n: 0) as archive, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(SessionError, match=r"port \d+, where the archive would call back, cannot be opened"):
            ask(stored(archive, "1.2"), holder.getsockname()[1], ENOUGH_S)


def test_the_class_of_each_object_is_that_of_its_file(files: list[Path]) -> None:
    with answering(lambda _n: 0) as archive:
        outcome = send(files, archive)
    for sent in outcome.objects:
        assert sent.sop_class == pydicom.dcmread(sent.path, stop_before_pixels=True).SOPClassUID
