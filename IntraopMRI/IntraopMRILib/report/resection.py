"""The sections of the report on a resection: the residual and its pieces, the margin, what earlier scans said."""

from __future__ import annotations

from collections.abc import Sequence

from .parts import Document, Picture, data_uri, table
from .parts import escaped as _e
from .text import clock, interval_text, joined, value_text
from .trust import checked


def residual_section(document: Document, pictures: Sequence[Picture] = ()) -> str:
    """The residual, what rests on it, and its pieces with the ``pictures`` that are of them."""
    residual = document.get("residual")
    if residual is None:
        return ""
    rows = table([residual["volume"], residual["extent_of_resection"], *residual["other"]], document)
    notes = "".join(f'<p class="note">{_e(note)}</p>' for note in residual["notes"])
    rano = f"Class {residual['rano']}, {rano_range(residual)}. {residual['rano_definition']}."
    if checked(residual["volume"], document)["value"] is None:
        rano = f"RANO class not given. {residual['rano_definition']}."
    return (
        f'<section><h2>Residual and resection</h2>{rows}<p class="note">{_e(rano)} '
        f'<span class="source">{_e(residual["rano_source"])}</span></p>'
        + (f"<ul>{notes}</ul>" if notes else "")
        + _pieces(residual, document, pictures)
        + "</section>"
    )


def _pieces(residual: Document, document: Document, pictures: Sequence[Picture]) -> str:
    """One row a piece that is large enough to be listed: where it lies, how large and how sure it is, what is near."""
    rows, shown = "", {picture.piece: picture for picture in pictures if picture.piece}
    known = checked(residual["volume"], document)["value"] is not None
    for piece in residual.get("pieces", ()) if known else ():
        picture = shown.get(piece["number"])
        image = "" if picture is None else f'<img alt="{_e(picture.caption)}" src="{data_uri(picture)}">'
        near = piece["near"]
        beside = "none planned in this scan" if near is None else near["missing_because"]
        if near is not None and near["value"] is not None:
            beside = f"{near['name'].partition(' to ')[2]}: {_value(near)}"
        judged = f"<p>{_e(piece['sure'].capitalize())}</p>"
        if piece["excluded_by"]:
            at = f"{piece['excluded_by']} at {clock(piece['excluded_utc'])} UTC"
            judged = f'<p class="judged">Not tumour, judged by {_e(at)} for this scan: not counted</p>'
        if piece["course"] is not None:
            judged += f"<p>{_e(_course(piece['course']))}</p>"
        rows += (
            f'<tr class="piece"><th>{piece["number"]}</th><td>{image}</td><td><strong>'
            f"{_e(piece['place'].capitalize())}</strong>{judged}<p>Nearest structure at risk: {_e(beside)}</p></td>"
            f'<td class="number">{_e(_value(piece["volume"]))}</td>'
            f'<td class="number">{_e(_value(piece["longest"]))}</td></tr>'
        )
    if not rows:
        return ""
    first = residual["pieces"][0]
    words = [
        f"Volume: {first['volume']['definition'].partition('; likely')[0]}",
        f"Longest diameter: {first['longest']['definition']}",
    ]
    if any(piece["near"] for piece in residual["pieces"]):
        words.append("Nearest structure: as it was decided on, see what was carried over")
    for course in [piece["course"] for piece in residual["pieces"] if piece["course"] is not None][:1]:
        words.append(f"Course: {course['change']['definition']} ({course['change']['source']})")
    seen = (
        "Pictures: axial, coronal and sagittal through the piece, its outline red, blue dashes if it does not count; "
        "the patient's right, or anterior, on the left; bar 10 mm. "
        if shown
        else ""
    )
    return (
        '<h3 class="pieces">Pieces of the residual, the largest first</h3><table><thead><tr><th>Piece</th><th></th>'
        '<th>Where, and how sure</th><th class="number">Volume</th><th class="number">Longest diameter</th></tr>'
        f'</thead><tbody>{rows}</tbody></table><p class="note">{_e(seen)}{_e(". ".join(words))}.</p>'
    )


def _course(course: Document) -> str:
    """How the enhancement changed, in words, with the change and its interval."""
    text, change = str(course["text"]), course["change"]
    text = text[:1].upper() + text[1:]
    return text if change["value"] is None else f"{text}; change {_value(change)}"


def excluded_words(residual: Document) -> str:
    """How many pieces a person has judged not to be tumour, in words; empty for none."""
    count = sum(bool(piece["excluded_by"]) for piece in residual.get("pieces", ()))
    return f"without {count} piece{'' if count == 1 else 's'} that a person has excluded" if count else ""


def _value(measurement: Document) -> str:
    between = interval_text(measurement)
    value = joined(*value_text(measurement["value"], measurement["unit"]))
    return f"{value} ({between})" if between else value


def margin_section(document: Document) -> str:
    """How far the cavity reaches beyond the tumour's border, and where it does not."""
    margin = document.get("margin")
    if not margin:
        return ""
    rows = table([margin["closest"], margin["outside"]], document)
    known = checked(margin["closest"], document)["value"] is not None
    words = f'<p class="note">{_e(margin["text"])}</p>' if known else ""
    return f"<section><h2>Resection margin</h2>{rows}{words}</section>"


def looks_section(document: Document) -> str:
    """What earlier scans of the operation said, before a newer one replaced them."""
    parts = []
    for look in document.get("looks", ()):
        confirmed = "Registration confirmed" if look["confirmed"] else "Registration not confirmed by a person"
        said = [look["rano"], confirmed, f"Decision then: {'; '.join(look['decisions']) or 'none'}"]
        parts.append(
            f"<h3>{_e(look['image_name'] or 'unnamed')}, taken {_e(clock(look['acquired_utc'] or ''))} UTC</h3>"
            # It rests on the registration of then, which was not refused.
            f'{table(look["measurements"], {})}<p class="note">{_e(". ".join(words for words in said if words))}.</p>'
        )
    if not parts:
        return ""
    note = '<p class="note">How it was before a newer scan, not how it is now.</p>'
    return f"<section><h2>Earlier scans of this operation</h2>{note}{''.join(parts)}</section>"


def rano_range(residual: Document) -> str:
    """The classes that the interval of the volume allows, in words."""
    best, worst = residual["rano_best"], residual["rano_worst"]
    return "the same over the whole interval" if best == worst else f"{best} to {worst} over the interval"
