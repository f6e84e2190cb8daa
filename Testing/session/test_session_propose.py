"""A proposal in a session: made on the registered scan, reviewed by a person, and only then a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.measures import PROPOSED, Drawn
from IntraopMRILib.workflow.record import as_document
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import Cancelled, SessionError
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


def test_a_newer_scan_withdraws_a_proposal_that_is_under_way(operation: Operation) -> None:
    def progress(fraction: float, _what: str) -> bool:
        if fraction > 0.5:
            operation.scan("T1 newer")
        return True

    with pytest.raises(SessionError, match="newer image"):
        operation.propose(progress=progress)
