"""The pieces of the residual in the report: where, how large, how sure, and what a person has judged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from IntraopMRILib.report.html import render
from IntraopMRILib.report.parts import Picture
from IntraopMRILib.report.pictures import BLUE, RED, piece_picture
from IntraopMRILib.workflow.record import PieceEntry, as_document
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.geometry import apply
from peers.dicom_case import number, record_of, scan

RAS = np.eye(3)


def document(judged: str = "", level: Level = Level.GOOD) -> dict[str, Any]:
    record = as_document(record_of(scan(RAS, "native"), scan(RAS, "contrast"), level=level))
    pieces = [
        PieceEntry(
            1, "posterior left wall of the cavity, 14 mm deep of the opening", "residual",
            number("Piece 1: volume", 0.84, "cm3"), number("Piece 1: longest diameter", 12.0),
            (1.0, 2.0, 3.0), number("Piece 1 to Motor tract", 5.0),
        ),
        PieceEntry(
            2, "superior wall of the cavity", "may be nothing", number("Piece 2: volume", 0.41, "cm3"),
            number("Piece 2: longest diameter", 7.0), (4.0, 5.0, 6.0),
            number("Piece 2 to structure at risk", None, why="not decided on: Motor tract"),
            judged, "2026-01-01T00:40:00+00:00" if judged else "",
        ),
    ]  # fmt: skip
    plain = copy.deepcopy(record)
    plain["residual"]["pieces"] = [as_plain(piece) for piece in pieces]
    return plain


def as_plain(piece: PieceEntry) -> dict[str, Any]:
    return {**vars(piece), **{k: vars(v) for k, v in vars(piece).items() if hasattr(v, "unit")}}


def test_every_piece_has_its_row() -> None:
    html = render(document())
    assert "Posterior left wall of the cavity, 14 mm deep of the opening" in html
    assert "0.84\u00a0cm³ (0.59 to 1.59\u00a0cm³)" in html
    assert "12.0\u00a0mm" in html
    assert "Motor tract: 5.00\u00a0mm" in html
    assert "May be nothing" in html
    assert "not decided on: Motor tract" in html
    assert "in 2 pieces" in html
    assert "Not tumour, judged by" not in html


def test_what_a_person_excluded_is_said_where_the_numbers_stand() -> None:
    html = render(document("Dr. <X>"))
    assert "Not tumour, judged by Dr. &lt;X&gt; at 00:40:00 UTC for this scan: not counted" in html
    assert "in 2 pieces" not in html
    # Beside the volume, the extent of resection and the class.
    assert html.count("without 1 piece that a person has excluded") == 3


def test_of_a_refused_registration_no_piece_is_listed() -> None:
    assert "Pieces of the residual" not in render(document(level=Level.REFUSED))


def test_a_record_without_pieces_is_read_as_before() -> None:
    plain = document()
    del plain["residual"]["pieces"]
    assert "Pieces of the residual" not in render(plain)


def test_a_picture_stands_in_its_row_and_not_among_the_views() -> None:
    shown = Picture(b"\x89PNG-two", "Piece 2: axial", 2)
    html = render(document(), [shown])
    row = html[html.index("Superior wall") - 2000 : html.index("Superior wall")]
    assert 'alt="Piece 2: axial"' in row
    assert '<section class="views">' not in html


@pytest.mark.parametrize(("counts", "colour"), [(True, RED), (False, BLUE)])
def test_the_outline_lies_where_the_piece_is(directions: np.ndarray, counts: bool, colour: Any, tmp_path: Path) -> None:
    """A bright landmark right, anterior and superior of the piece shows the sides of all three planes."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions
    matrix[:3, 3] = np.array([20.0, -5.0, 40.0]) - directions @ np.full(3, 31.5)
    places = apply(matrix, np.moveaxis(np.indices((64,) * 3)[::-1], 0, -1).astype(float)) - (20.0, -5.0, 40.0)
    piece = np.linalg.norm(places - (3.0, 0.0, 0.0), axis=-1) < 4.0
    image = np.full(piece.shape, 100.0)
    for axis in range(3):
        mark = np.array([3.0, 0.0, 0.0])
        mark[axis] += 12.0
        image[np.linalg.norm(places - mark, axis=-1) < 2.5] = 900.0
    label = Image(piece.astype(np.uint8), matrix)
    made = piece_picture(3, Image(image.astype(np.float32), matrix), label, counts)
    assert made.piece == 3
    pixels = decoded(made.data, tmp_path / "piece.png")
    tiles = [pixels[:, n * 224 : n * 224 + 220] for n in range(3)]
    for tile in tiles:
        outline = np.argwhere((tile == colour).all(axis=-1))
        outline = outline[outline[:, 0] < 200]
        # Told apart without colours: what counts has a whole outline, the other one dashes.
        assert (len(outline) > 250) is counts
        assert np.ptp(outline, axis=0) == pytest.approx(8.0 / 36.0 * 220, abs=12)
        assert outline.mean(axis=0) == pytest.approx((110, 110), abs=4)
    # Patient's right on the left, anterior up; right on the left, superior up; anterior on the left, superior up.
    for tile in tiles:
        bright = tile[:200].min(axis=-1) > 240
        up, left = bright[:60, 90:130].sum(), bright[90:130, :60].sum()
        down, right = bright[160:, 90:130].sum(), bright[90:130, 160:].sum()
        assert min(up, left) > 100
        assert max(down, right) == 0


def decoded(png: bytes, file: Path) -> np.ndarray:
    """Pixels (height, width, 3)."""
    file.write_bytes(png)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
