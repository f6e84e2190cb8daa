"""A scan while it arrives at a session: previews that are only looked at, and scans that never become whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.session import Session
from IntraopMRILib.session.updates import ImageReady, Problem, Registered, ScanPreview, ScanProgress, Update
from IntraopMRIReconstructionLib.reconstruct import live
from IntraopMRIReconstructionLib.simulate.kspace import Scan
from IntraopMRIReconstructionLib.wire.messages_text import StringMessage
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server
from session.conftest import send, wait_with_all

NAME = "T1 native"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preview with every block."""
    monkeypatch.setattr(live, "PREVIEW_S", 0.0)


def rest(scanner: Server, scan: Scan, first: int) -> None:
    """The blocks of a scan from ``first`` on."""
    for block in list(scan.blocks())[first:]:
        scanner.send(message_from_acquisition(block))


def previews(updates: list[Update]) -> list[ScanPreview]:
    return [update for update in updates if isinstance(update, ScanPreview)]


def problems(updates: list[Update]) -> list[str]:
    return [update.text for update in updates if isinstance(update, Problem)]


def test_previews_are_shown_and_nothing_rests_on_them(
    session: Session, scanner: Server, scans: dict[str, Scan]
) -> None:
    send(scanner, scans[NAME])
    updates, ready = wait_with_all(session, ImageReady)
    shown = previews(updates)
    percents = [preview.fraction for preview in shown]
    assert len(shown) > 10
    assert percents == sorted(percents)
    assert percents[-1] < 1.0
    assert not any(isinstance(update, Registered) for update in updates)
    coarse = shown[-1].image
    assert coarse is not None
    assert coarse.uid != ready.image.uid
    # In the right place: the middle of the field of view is that of the volume.
    middles = [
        image.ras_from_ijk @ (*(size // 2 for size in image.array.shape[::-1]), 1) for image in (coarse, ready.image)
    ]
    np.testing.assert_allclose(middles[0], middles[1], atol=1e-6)
    assert [image.uid for image in session.journal.finish().images] == [ready.image.uid]


def test_cancel_drops_the_scan_that_arrives_at_once(session: Session, scanner: Server, scans: dict[str, Scan]) -> None:
    send(scanner, scans[NAME], blocks=20)
    wait_with_all(session, ScanProgress, lambda update: update.fraction > 0.1)
    session.cancel()
    updates, said = wait_with_all(session, Problem)
    assert f"'{NAME}' stopped at" in said.text
    assert "by hand" in said.text
    assert not said.fatal
    assert previews(updates)[-1].image is None
    # Its other lines say nothing and become nothing; the next scan does.
    rest(scanner, scans[NAME], 20)
    send(scanner, scans[NAME])
    updates, _ = wait_with_all(session, ImageReady)
    assert not problems(updates)


def test_a_stalled_scan_takes_its_preview_away(
    session: Session, scanner: Server, scans: dict[str, Scan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SCAN_SILENT_S", 0.3)
    send(scanner, scans[NAME], blocks=8)
    updates, said = wait_with_all(session, Problem, lambda update: True)
    assert said.fatal
    assert "scan again" in said.text
    shown = previews(updates)
    assert shown[-2].image is not None
    assert shown[-1].image is None


def test_a_scan_that_is_cut_off_by_the_next_is_said(session: Session, scanner: Server, scans: dict[str, Scan]) -> None:
    send(scanner, scans[NAME], blocks=8)
    send(scanner, scans[NAME])
    updates, said = wait_with_all(session, Problem, lambda update: True)
    assert "a new scan has begun" in said.text
    assert previews(updates)[-1].image is None
    wait_with_all(session, ImageReady)


def test_a_header_without_geometry_is_said_once(session: Session, scanner: Server, scans: dict[str, Scan]) -> None:
    (message,) = messages_from_encoding(scans[NAME].encoding)
    assert isinstance(message, StringMessage)
    fields = json.loads(message.text)
    del fields["ras_from_ijk"]
    scanner.send(replace(message, text=json.dumps(fields)))
    rest(scanner, scans[NAME], 0)
    send(scanner, scans[NAME])
    updates, _ = wait_with_all(session, ImageReady)
    (said,) = problems(updates)
    assert "ras_from_ijk" in said


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "coils dropped because they failed during the scan: 2"), (0.0, "coils dropped")]
)
def test_a_coil_that_dies_in_mid_scan_is_said(
    session: Session, scanner: Server, scans: dict[str, Scan], value: float, words: str
) -> None:
    scan = scans[NAME]
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    for number, block in enumerate(scan.blocks()):
        samples = block.samples.copy()
        if number > 30:
            samples[:, 2] = value
        scanner.send(message_from_acquisition(replace(block, samples=samples)))
    updates, _ = wait_with_all(session, ImageReady)
    assert any(words in text for text in problems(updates))


def test_lines_that_do_not_fit_are_said_and_missing(session: Session, scanner: Server, scans: dict[str, Scan]) -> None:
    scan = scans[NAME]
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    for number, block in enumerate(scan.blocks()):
        wrong = replace(block, ky=block.ky + 100000) if number == 40 else block
        scanner.send(message_from_acquisition(wrong))
    updates, ready = wait_with_all(session, ImageReady)
    said = problems(updates)
    assert any("ky" in text for text in said)
    assert any("planned lines are missing" in text for text in said)
    assert ready.reconstruction is not None
    assert np.isfinite(ready.image.array).all()
