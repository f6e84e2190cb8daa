"""A proposal in a session: made on the registered scan, reviewed by a person, and only then a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.cli.files import CaseFiles, proposal_for_review, read_case_files, run_files
from IntraopMRILib.cli.results import OPEN, PROPOSAL
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.files import read_outline
from IntraopMRILib.session.measures import PROPOSED, Drawn
from IntraopMRILib.workflow.record import as_document, read_record, write_record
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import Cancelled, SessionError
from IntraopMRIReconstructionLib.simulate.volumes import write_volume
from peers.low_grade import Head, operated

VERDICT = Verdict((Reason("overlap", 1.0, "", "1", Level.GOOD),))


class Operation:
    """A session whose newest scan, a T1, is registered; a FLAIR was taken beside it."""

    def __init__(self, head: Head) -> None:
        self.head = head
        before = replace(head.preop, patient_id="P-1")
        self.session = Session(Plan("P-1", "Glioma", before, head.tumour, measures=(PROPOSED,)))
        self.t1 = self.scan("T1 now")

    def scan(self, name: str, follow: bool = True) -> Image:
        image = replace(self.head.scan, name=name, uid=name, acquired_utc_s=1_700_000_000.0)
        pair, head = self.session._pair, self.head
        pair.take(image, "contrast")
        self.session.journal.image(image, "contrast")
        found = RigidRegistration(head.pose, VERDICT, 1.0, 0.3, 0.9, 0.1, 1.0, image.uid, "preop")
        pair.place("contrast", found)
        self.session.journal.registration(found, image, replace(head.preop, uid="preop"))
        if follow:
            doubt = head.cavity.with_array(np.ones(head.cavity.array.shape, np.float32))
            deformable: Any = SimpleNamespace(
                intraop_from_preop=head.pose,
                intraop_from_preop_points=head.carried,
                cavity=head.cavity,
                brain=head.brain,
                uncertainty=doubt,
                fixed_uid=image.uid,
                moving_uid="preop",
            )
            shift: Any = SimpleNamespace(deformable=deformable)
            pair.follow("contrast", shift)
        return image

    def propose(self, **other: Any) -> Any:
        flair = replace(self.head.scan, patient_id="P-1", acquired_utc_s=1_700_000_600.0)
        return self.session.propose(**{"scan": flair, "flair": self.head.flair, **other})

    def measure(self, label: Image, by: str = "Dr. Example") -> Any:
        return self.session.measure(PROPOSED, Drawn(self.t1.uid, label=label), by)


@pytest.fixture
def operation() -> Iterator[Operation]:
    made = Operation(operated(0.5))
    yield made
    made.session.close()


def test_a_proposal_is_a_number_only_after_a_person_has_reviewed_it(operation: Operation) -> None:
    proposal = operation.propose()
    record = operation.session.journal.record
    assert record.drawn == ()
    assert "not reviewed" in record.events[-1].text
    with pytest.raises(SessionError, match="who has reviewed"):
        operation.measure(proposal.label, " ")
    found = operation.measure(proposal.label)
    assert found.proposed == "unchanged"
    assert found.measurements[0].value == pytest.approx(proposal.volume.value)
    assert "not reviewed" not in found.measurements[0].name
    page = render(as_document(operation.session.journal.record), [])
    assert "Proposed by the software, reviewed by Dr. Example" in page
    assert "Drawn by" not in page


def test_what_the_person_has_changed_is_said(operation: Operation) -> None:
    proposal = operation.propose().label
    corrected = proposal.array.copy()
    where = np.argwhere(corrected)
    corrected[where[0][0] : where[0][0] + 3] = 0
    found = operation.measure(proposal.with_array(corrected))
    assert found.proposed.startswith("0.00 cm3 added, ")
    assert "unchanged" not in found.proposed
    none = operation.measure(proposal.with_array(np.zeros_like(corrected)))
    assert none.measurements[0].value == 0.0
    assert "taken away" in none.proposed


def test_an_outline_of_another_scan_owes_nothing_to_the_proposal(operation: Operation) -> None:
    proposal = operation.propose()
    operation.t1 = operation.scan("T1 again")
    found = operation.measure(proposal.label)
    assert found.proposed == ""
    page = render(as_document(operation.session.journal.record), [])
    assert "Drawn by Dr. Example" in page


def test_nothing_is_proposed_where_it_cannot_rest_on_anything(operation: Operation) -> None:
    flair = operation.head.scan
    for other, words in (
        ({"scan": replace(flair, patient_id="P-2")}, "of patient 'P-2'"),
        ({"flair": replace(operation.head.flair, patient_id="P-2")}, "of patient 'P-2'"),
        ({"scan": replace(flair, acquired_utc_s=1_700_009_000.0)}, "150 min apart"),
    ):
        with pytest.raises(SessionError, match=words):
            operation.propose(**other)
    with pytest.raises(Cancelled):
        operation.propose(progress=lambda _fraction, _what: False)
    operation.scan("T1 rigid", follow=False)
    with pytest.raises(SessionError, match="brain shift is not followed"):
        operation.propose()
    operation.session._pair.placed.clear()
    with pytest.raises(SessionError, match="not registered"):
        operation.propose()
    assert operation.session.journal.record.drawn == ()


def test_a_proposal_as_a_file_is_reviewed_and_measured_later(
    operation: Operation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = proposal_for_review(operation.session, operation.head.scan, operation.head.flair, tmp_path)
    assert "nobody has reviewed" in words
    assert read_outline(tmp_path / OPEN).array.any()
    write_record(operation.session.journal.finish(), tmp_path / "session.json")
    write_volume(operation.head.preop, tmp_path / "preop.nrrd")
    options = {"results": tmp_path, "outline": tmp_path / PROPOSAL, "preop": tmp_path / "preop.nrrd", "by": "Dr. X"}
    assert (
        main(["measure", PROPOSED, *(part for key, value in options.items() for part in (f"--{key}", str(value)))]) == 0
    )
    assert "Residual non-enhancing tumour: 4." in capsys.readouterr().out
    (entry,) = read_record(tmp_path / "session.json").drawn
    assert (entry.proposed, entry.drawn_by) == ("unchanged", "Dr. X")
    why = proposal_for_review(operation.session, operation.head.preop, None, tmp_path)
    assert why.startswith("nothing is proposed: ")


def test_the_non_enhancing_part_is_named_beside_the_enhancing_one(operation: Operation, tmp_path: Path) -> None:
    head = operation.head
    files: dict[str, Any] = {}
    labels = np.asarray(head.tumour.array).copy()
    labels[np.argwhere(labels).mean(axis=0).astype(int)[0]] //= 3
    images = {"preop": head.preop, "native": head.scan, "contrast": head.scan, "tumour": head.tumour.with_array(labels)}
    for name, image in images.items():
        files[name] = tmp_path / f"{name}.nrrd"
        write_volume(image, files[name])
    taken: dict[str, Any] = {
        "native_taken": "2026-01-01 10:00",
        "contrast_taken": "2026-01-01 10:10",
        "patient_id": "P-1",
    }
    parts: tuple[tuple[dict[str, Any], list[int]], ...] = (({"label": "1"}, [0, 1, 3]), ({}, [0, 3]))
    for named, values in parts:
        plan, _scans = read_case_files(CaseFiles(**files, **taken, **named, non_enhancing="3"))
        assert plan.tumour is not None
        assert np.unique(plan.tumour.array).tolist() == values
    with pytest.raises(SessionError, match="give --propose"):
        run_files(CaseFiles(**files, **taken, label="1", flair=files["preop"]), tmp_path / "out")


def test_a_newer_scan_withdraws_a_proposal_that_is_under_way(operation: Operation) -> None:
    def progress(fraction: float, _what: str) -> bool:
        if fraction > 0.5:
            operation.scan("T1 newer")
        return True

    with pytest.raises(SessionError, match="newer image"):
        operation.propose(progress=progress)
