"""A proposal in a session: made on the registered scan, reviewed by a person, and only then a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.cli import main
from IntraopMRILib.cli.files import CaseFiles, proposal_for_review, read_case_files, run_files
from IntraopMRILib.cli.results import LAID, OPEN, PROPOSAL
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.files import read_outline
from IntraopMRILib.session.measures import PROPOSED, Drawn
from IntraopMRILib.session.propose import POSITION, laid_on
from IntraopMRILib.workflow.record import as_document, read_record, write_record
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import Cancelled, SessionError
from IntraopMRIReconstructionLib.geometry import apply, farthest_apart_mm, invert
from IntraopMRIReconstructionLib.simulate.flair import intraop_scan
from IntraopMRIReconstructionLib.simulate.phantom import CONTRAST, BrainCase
from IntraopMRIReconstructionLib.simulate.volumes import read_volume, write_volume
from peers.low_grade import DIRECTIONS, TUMOUR_AT, Head, dice, followed, moved, operated

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
            pair.follow("contrast", followed(head.pose, head.carried, head.cavity, head.brain, image.uid))
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


def position(session: Session) -> str:
    return next(event.text for event in reversed(session.journal.record.events) if event.kind == POSITION)


def test_a_patient_who_has_moved_is_followed_and_it_is_said(operation: Operation, tmp_path: Path) -> None:
    head = operation.head
    there = operation.propose()
    assert position(operation.session).startswith("The patient lay in 'FLAIR now' as in 'T1 now', by a rigid")
    assert np.array_equal(there.label.ras_from_ijk, head.scan.ras_from_ijk)
    scan, motion = moved(head.scan, 3.0, 1.5, TUMOUR_AT)
    found = operation.propose(scan=scan)
    # On the grid of the scan, and in the frame of the registered one.
    np.testing.assert_allclose(found.label.ras_from_ijk, invert(motion) @ scan.ras_from_ijk, atol=0.05)
    assert dice(found.label.array > 0, head.left) > 0.9
    assert found.volume.value == pytest.approx(there.volume.value, rel=0.02)
    said = position(operation.session)
    assert "did not lie in 'FLAIR now' as in 'T1 now' (3." in said
    assert "1.5 deg" in said
    assert said in found.rests_on
    entry = operation.measure(found.label)
    assert entry.proposed == "unchanged"
    assert entry.note.endswith(said)
    assert escape(said) in render(as_document(operation.session.journal.record), [])
    words = proposal_for_review(operation.session, scan, head.flair, tmp_path)
    assert f"on {LAID}" in words
    laid = read_volume(tmp_path / LAID)
    np.testing.assert_allclose(laid.ras_from_ijk, read_outline(tmp_path / PROPOSAL).ras_from_ijk, atol=1e-4)
    np.testing.assert_array_equal(laid.array, scan.array)


def test_a_scan_whose_place_is_not_certain_gives_no_proposal(operation: Operation) -> None:
    scan = operation.head.scan
    noise = np.random.default_rng(0).normal(500, 20, scan.array.shape).astype(np.float32)
    grid = scan.ras_from_ijk @ np.diag([1.0, 1.0, 3.0, 1.0])
    grid[:3, 3] += scan.ras_from_ijk[:3, 2]
    thick = Image(scan.array[:78].reshape(26, 3, *scan.array.shape[1:]).mean(axis=1), grid, "thick")
    for other, words in (
        (
            moved(scan, 14.0, 1.0, TUMOUR_AT)[0],
            r"did not lie in .* \(14.* mm at the tumour, 1.0 deg\): positioned anew",
        ),
        (moved(scan, 1.0, 8.0, TUMOUR_AT)[0], r"8.0 deg\): positioned anew"),
        (
            moved(thick, 4.0, 1.0, TUMOUR_AT)[0],
            r"\(4.* mm .*uncertain \(check: voxel size 4.8 mm.*repeat it in the position",
        ),
        (scan.with_array(noise), "cannot be told"),
        (replace(scan, array=scan.array[:12]), "cannot be told: .*at least 30 mm"),
        (operation.head.flair, "from before the operation"),
    ):
        with pytest.raises(SessionError, match=words):
            operation.propose(scan=other)
        assert operation.session.journal.record.events[-1].text.startswith("none: ")
    # Measured where the header says: two witnesses.
    operation.propose(scan=thick)
    assert "look at both over one another first (check: voxel size" in position(operation.session)


@pytest.mark.parametrize("way", DIRECTIONS)
def test_a_flair_is_followed_over_another_contrast_in_any_orientation(brain: BrainCase, way: str) -> None:
    """The T1 with agent of a simulated head, and its FLAIR in slices of another orientation."""
    t1, truth = brain.noisy(CONTRAST), brain.truth
    shape, axes = (75, 100, 90), DIRECTIONS[way] * 2.0
    middle = apply(t1.ras_from_ijk, (np.array(t1.array.shape[::-1]) - 1) / 2)
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = axes, middle - axes @ ((np.array(shape[::-1]) - 1) / 2)
    flair = intraop_scan(brain, grid=(grid, shape))
    box = Plan("P-1", "", brain.preop, brain.tumour).operated_mm
    tumour_mm = apply(truth.intraop_from_preop, box)
    as_it_is = laid_on(t1, flair, tumour_mm)
    assert as_it_is.scan is flair
    assert as_it_is.error_mm < 0.5
    scan, motion = moved(flair, 3.0, 1.5, tumour_mm.mean(axis=0))
    laid = laid_on(t1, scan, tumour_mm)
    assert farthest_apart_mm(laid.scan.ras_from_ijk @ invert(scan.ras_from_ijk), invert(motion), tumour_mm) < 0.5


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
