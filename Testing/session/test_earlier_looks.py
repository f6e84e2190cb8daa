"""A second look at the resection: what the first one said stays in record, report and DICOM, as of then."""

from __future__ import annotations

import time

import pytest
from IntraopMRILib.report.dicom.measurements import general_words
from IntraopMRILib.report.html import render
from IntraopMRILib.report.text import interval_text, joined, value_text
from IntraopMRILib.session import Session
from IntraopMRILib.session.pair import AGAIN
from IntraopMRILib.session.updates import Problem, ResidualFound, Role, Update
from IntraopMRILib.workflow.record import as_document, from_json, to_json
from IntraopMRIReconstructionLib.data import Image
from session.small_world import BEGUN_S, SmallWorld, Truth


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    made = SmallWorld()
    made.stand_in(monkeypatch)
    return made


def look(session: Session, world: SmallWorld, begun_s: float) -> tuple[Image, Image]:
    """Both scans of one look, worked on to the end."""
    native = world.scan("native", Truth(), begun_s)
    contrast = world.scan("contrast", Truth(), begun_s + 300.0)
    session.offer_scan(native, "native")
    session.offer_scan(contrast, "contrast")
    for _ in range(6000):
        if any(isinstance(update, ResidualFound) for update in session.drain()):
            while session.working:
                time.sleep(0.005)
            return native, contrast
        time.sleep(0.01)
    pytest.fail("no residual")


def test_the_first_look_is_kept_and_does_not_count(world: SmallWorld) -> None:
    with Session(world.brain()) as session:
        session.connect(None)
        _, first = look(session, world, BEGUN_S)
        before = session.journal.record
        assert before.residual is not None
        assert not before.looks
        session.journal.event("confirmed", "good")
        session.journal.decided(first.uid, "resect further: rim")
        _, second = look(session, world, BEGUN_S + 3600.0)
        record = session.journal.record
    kept = record.looks
    assert [entry.image_uid for entry in kept] == [first.uid]
    assert record.residual is not None
    assert second.uid in record.residual.volume.based_on
    assert kept[0].measurements[:2] == (before.residual.volume, before.residual.extent_of_resection)
    assert kept[0].confirmed
    assert kept[0].decisions == ("resect further: rim",)
    # The same digits on paper and in DICOM as in the record.
    volume = as_document(record)["looks"][0]["measurements"][0]
    value, between = joined(*value_text(volume["value"], volume["unit"])), interval_text(volume)
    page, comments = render(as_document(record)), " ".join(general_words(as_document(record)))
    assert "Earlier scans of this operation" in page
    assert value in page.split("Earlier scans of this operation")[1]
    assert between in page.split("Earlier scans of this operation")[1]
    assert f"{value} ({between})" in comments
    assert "resect further: rim" in page
    assert from_json(to_json(record)) == record


def test_a_look_that_nobody_confirmed_says_so_and_one_without_numbers_is_none(world: SmallWorld) -> None:
    with Session(world.brain()) as session:
        session.connect(None)
        look(session, world, BEGUN_S)
        look(session, world, BEGUN_S + 3600.0)
        look(session, world, BEGUN_S + 7200.0)
        record = session.journal.record
    # A native scan alone, before its contrast scan, is no look of its own.
    assert [entry.image_name for entry in record.looks] == ["T1 contrast 1", "T1 contrast 2"]
    assert not any(entry.confirmed or entry.decisions for entry in record.looks)
    assert render(as_document(record)).count("Registration not confirmed by a person") == 2


def worked(session: Session, image: Image, role: Role) -> list[Update]:
    """All that came of one scan."""
    session.offer_scan(image, role)
    while session.working:
        time.sleep(0.005)
    return session.drain()


def test_a_scan_without_agent_from_before_the_resection_makes_no_pair(world: SmallWorld) -> None:
    """Two hours later clot is new in the contrast scan, which looked like enhancement; nothing was said."""
    with Session(world.brain()) as session:
        session.connect(None)
        look(session, world, BEGUN_S)
        told = worked(session, world.scan("contrast", Truth(), BEGUN_S + 7200.0), "contrast")
        assert session.journal.record.residual is None
        assert any(isinstance(update, Problem) and "120 min before" in update.text for update in told)
        # The one that belongs to it comes late, and completes it.
        worked(session, world.scan("native", Truth(), BEGUN_S + 6900.0), "native")
        assert session.journal.record.residual is not None


def test_a_second_contrast_scan_on_one_native_scan_is_said(world: SmallWorld) -> None:
    with Session(world.brain()) as session:
        session.connect(None)
        look(session, world, BEGUN_S)
        assert session.journal.record.residual is not None
        assert AGAIN not in session.journal.record.residual.notes
        worked(session, world.scan("contrast", Truth(), BEGUN_S + 900.0), "contrast")
        assert session.journal.record.residual is not None
        assert AGAIN in session.journal.record.residual.notes
