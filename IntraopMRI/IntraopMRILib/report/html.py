"""The session report: one HTML file with everything inside, for the screen and for A4 paper.

It reads the session record as a document (the content of its JSON file) and shows nothing that is not in it.
A number is never shown without its definition, nor at all when it was withdrawn: then the reason stands there.
"""

from __future__ import annotations

from collections.abc import Sequence

from IntraopMRIReconstructionLib.errors import DataError

from . import drawings
from .implants import DEVIATION, decision_words, implants_section
from .parts import Document, Picture, data_uri, table
from .parts import escaped as _e
from .resection import excluded_words, looks_section, margin_section, rano_range, residual_section
from .style import STYLE, running
from .text import by_whom, clock, day, interval_text, joined, level_of, value_text
from .trust import WITHHELD, checked, found_parts

__all__ = ["Picture", "render"]

_LEVEL_WORDS = {"good": "Good", "check": "Check", "refused": "Refused"}
#: How the names of numbers end that a plan asks for: the reason why one is missing belongs where it would stand.
_ASKED = (DEVIATION, "Residual enhancing tumour", "Change of alignment", "Temperature scan")
_KINDS = {"target": "target", "plan": "planned path or implant", "risk": "structure at risk", "landmark": "landmark"}


def render(document: Document, pictures: Sequence[Picture] = ()) -> str:
    """The report of one session as self-contained HTML text.

    ``document``: the record as plain dictionaries. Raises DataError when it lacks what every report must say
    (patient, start) or a picture is neither PNG nor JPEG.
    """
    for key in ("patient_id", "started_utc", "disclaimer"):
        if not document.get(key):
            raise DataError(f"the session record has no {key}: a report without it must not exist")
    body = [
        _header(document),
        _summary(document),
        _pictures([picture for picture in pictures if not picture.piece]),
        residual_section(document, pictures),
        margin_section(document),
        looks_section(document),
        _heating(document),
        _drawn(document),
        implants_section(document, _missing(document)),
        _carried(document),
        _more_measurements(document),
        _registration(document),
        _course(document),
        _provenance(document),
        f"<footer><strong>{_e(document['disclaimer'])}</strong> Every number is an estimate with the definition and "
        "source beside it; MRI of metal shows the void, not the implant.</footer>",
    ]
    title = f"Session report {_e(document['patient_id'])}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{running(document['patient_id'], _on_each_page(document))}</style></head><body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _on_each_page(document: Document) -> str:
    return f"Intraoperative MRI, {day(_scanned(document))}. {document['disclaimer']}"


def _scanned(document: Document) -> str:
    """When the newest scan was taken: volumes from files may be read years later. The session's own without a time."""
    taken = (image["acquired_utc"] for image in document.get("images", ()))
    return max((utc for utc in taken if utc), default=document["started_utc"])


def _header(document: Document) -> str:
    started, when = document["started_utc"], clock(document["started_utc"])
    when += f" to {clock(document.get('finished_utc') or '')}"
    on_that_day = day(_scanned(document)) == day(started)
    facts = [
        ("Patient", document["patient_id"]),
        ("Procedure", document.get("procedure") or "not stated"),
        ("Date", day(_scanned(document))),
        ("Time (UTC)", when) if on_that_day else ("Evaluated (UTC)", f"{day(started)}, {when}"),
        ("Site", document.get("site") or "not stated"),
        ("Operator", document.get("operator") or "not stated"),
    ]
    items = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in facts)
    return (
        f'<div class="warning" role="note">{_e(document["disclaimer"])}</div>'
        f'<header><h1>Intraoperative MRI<span>Session report</span></h1><dl class="facts">{items}</dl></header>'
    )


def _summary(document: Document) -> str:
    registration, residual, missing = document.get("registration"), document.get("residual"), _missing(document)
    cards = []
    scale = ""
    if residual is None and (document.get("planned_measures") or document.get("drawn")):
        cards += [_measured_card(checked(first, document)) for first in _first_drawn(document)]
    elif residual is None and not missing and not any(document.get(what) for what in ("implants", "parts", "heating")):
        cards.append(_card("Residual enhancing tumour", None, "not assessed in this session"))
    elif residual is not None:
        volume, extent = (checked(residual[key], document) for key in ("volume", "extent_of_resection"))
        less = excluded_words(residual)
        count = sum(not piece["excluded_by"] for piece in residual.get("pieces", ()))
        more = "; ".join(words for words in (f"in {count} pieces" if count > 1 else "", less) if words)
        cards += [_measured_card(volume, more), _measured_card(extent, less)]
        if volume["value"] is None:
            cards.append(_card("RANO class", None, volume["missing_because"]))
        else:
            said = (residual["rano_meaning"], rano_range(residual), less)
            cards.append(_card("RANO class", _e(residual["rano"]), "; ".join(words for words in said if words)))
            scale = drawings.residual_scale(volume["value"], volume["interval"])
    implants = document.get("implants", ())
    cards += [_implant_card(implant, document) for implant in implants]
    cards += [_measured_card(m) for m in missing]
    # Without an implant, how the angles between vertebrae have changed is what a session of the spine is about.
    changes = [m for m in document.get("measurements", ()) if ": change of " in m["name"] and not implants]
    cards += [_measured_card(checked(m, document)) for m in changes]
    for heat in document.get("heating", ())[-1:]:
        peak, _dose, volume = (checked(m, {}) for m in heat["measurements"][:3])
        cards += [_measured_card(peak), _measured_card(volume)]
    if document.get("margin"):
        cards.append(_measured_card(checked(document["margin"]["closest"], document)))
    if registration is None:
        cards.append(_card("Registration", None, "no registration in this session"))
    else:
        level = level_of(registration["verdict"])
        error = registration.get("error_mm")
        about = registration["method"] + ("" if error is None or level == "refused" else f", error {error:.1f} mm")
        if level == "refused" and (parts := found_parts(document)):
            about += f"; {_words_of(parts)} each on its own: " + ", ".join(part["name"] for part in parts)
        cards.append(_card("Registration", f'<span class="level {level}">{_LEVEL_WORDS[level]}</span>', about))
    return (
        f'<section class="summary"><h2>Decision summary</h2><div class="cards">{"".join(cards)}</div>{scale}'
        f"{_lossy(document)}</section>"
    )


def _lossy(document: Document) -> str:
    """Which images have lost something before they came here."""
    names = [image["name"] for image in document.get("images", ()) if image["metadata"].get("LossyImageCompression")]
    if not names:
        return ""
    said = f"Compressed with loss before it came here: {', '.join(names)}. Its numbers are less sure than they say."
    return f'<p class="none">{_e(said)}</p>'


def _card(title: str, value: str | None, below: str) -> str:
    shown = '<p class="none">No value</p>' if value is None else f'<p class="value">{value}</p>'
    return f'<div class="card"><h3>{_e(title)}</h3>{shown}<p class="below">{_e(below)}</p></div>'


def _measured_card(measurement: Document, more: str = "") -> str:
    if measurement["value"] is None:
        return _card(measurement["name"], None, measurement["missing_because"])
    number, unit = value_text(measurement["value"], measurement["unit"])
    between = interval_text(measurement)
    value = f"{_e(number)}<small>{_e(unit)}</small>"
    below = (f"interval {between}" if between else "", more)
    return _card(measurement["name"], value, "; ".join(words for words in below if words))


def _missing(document: Document) -> list[Document]:
    """What the plan asks for and this scan does not say."""
    return [m for m in document.get("measurements", ()) if m["value"] is None and m["name"].endswith(_ASKED)]


def _implant_card(implant: Document, document: Document) -> str:
    """Where the tip went, and the grade of all."""
    tip = next(
        (m for m in implant["measurements"] if m["name"].endswith(": tip deviation")), implant["measurements"][0]
    )
    return _measured_card(checked(tip, document), f"{implant['band']}; {decision_words(implant)}")


def _words_of(parts: list[Document]) -> str:
    return "accepted" if parts[0].get("decision") == "accepted" else "found"


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><img alt="{_e(picture.caption)}" src="{data_uri(picture)}"><figcaption>{_e(picture.caption)}'
        "</figcaption></figure>"
        for picture in pictures
    )
    return f'<section class="views"><h2>Views</h2><div class="pictures">{figures}</div></section>'


def _heating(document: Document) -> str:
    """What was heated, when and where, how hot it became and what died of it."""
    parts = []
    for heat in document.get("heating", ()):
        spot = heat["spot_ras_mm"]
        where = "not marked" if spot is None else "RAS " + ", ".join(f"{value:.1f}" for value in spot) + " mm"
        until = f"{clock(heat['began_utc'])} to {clock(heat['newest_utc'])}"
        facts = (
            f"{heat['frames']} frames from {until} UTC{'' if heat['ended'] else ', not ended'}. Marked: {where}, "
            f"radius {heat['radius_mm']:g} mm. Temperature before: taken as {heat['baseline_c']:g} °C, in frame "
            f"{heat['reference_frame']}. Last line of a frame to its map: {1000 * heat['latency_s']:.0f} ms "
            f"(95 % of frames). Method: phase of water protons ({heat['source']})."
        )
        notes = "".join(f'<p class="note">{_e(note)}</p>' for note in heat["notes"])
        parts.append(
            f"<h3>{_e(heat['scan'])}</h3>{drawings.heat_course(heat['course'])}"
            # It rests on no registration: where a structure at risk is, its definition says.
            f'{table(heat["measurements"], {})}<p class="note">{_e(facts)}</p>{notes}'
        )
    return f"<section><h2>Ablation</h2>{''.join(parts)}</section>" if parts else ""


def _drawn(document: Document) -> str:
    """What a person outlined or placed, and what the procedure asks for and nobody has drawn."""
    parts = []
    for entry in document.get("drawn", ()):
        known = any(checked(m, document)["value"] is not None for m in entry["measurements"])
        by = by_whom(entry, clock(entry["utc"]))
        note = " ".join(words for words in (entry["note"] if known else "", by) if words)
        parts.append(
            f"<h3>{_e(entry['title'])}</h3>{table(entry['measurements'], document)}"
            + (f'<p class="note">{_e(note)}</p>' if note else "")
        )
    parts += [
        f'<h3>{_e(m["name"])}</h3><p class="none">No value: {_e(m["missing_because"])}</p>' for m in _open(document)
    ]
    return f"<section><h2>Measured on the intraoperative scan</h2>{''.join(parts)}</section>" if parts else ""


def _first_drawn(document: Document) -> list[Document]:
    """The first number of each measure, and those that are missing."""
    return [
        *(entry["measurements"][0] for entry in document.get("drawn", ()) if entry["measurements"]),
        *_open(document),
    ]


def _open(document: Document) -> list[Document]:
    """Measures that the procedure is about and that nobody has drawn."""
    there = {entry["kind"] for entry in document.get("drawn", ())}
    missing = "not measured in this session"
    return [
        {"name": title, "value": None, "missing_because": missing}
        for kind, title in document.get("planned_measures", {}).items()
        if kind not in there
    ]


def _carried(document: Document) -> str:
    """What was planned, how far the brain shift moved it, and where it was navigated to."""
    items, registration = document.get("carried", ()), document.get("registration")
    if items and registration is not None and level_of(registration["verdict"]) == "refused":
        return f'<section><h2>Plan carried over</h2><p class="none">{_e(WITHHELD)}</p></section>'
    rows = []
    for item in items:
        offered = level_of(item["verdict"]) != "refused"
        numbers = ("moved_mean_mm", "moved_max_mm", "uncertainty_mm") if offered else ("uncertainty_mm",)
        shown = "".join(f'<td class="number">{_e(joined(*value_text(item[key], "mm")))}</td>' for key in numbers)
        missing = "" if offered else '<td colspan="2" class="none">brain shift not known here</td>'
        decided = f"{item['decision']} by {item['decided_by']} at {clock(item['decided_utc'])}"
        if item["decision"] == "open":
            decided = "not decided" if offered else "not offered"
        place = "carried over" if item["decision"] == "accepted" else "rigid pose"
        against = "; ".join(
            f"{r['name']} {joined(value_text(r['value'], r['unit'])[0], r['unit'])}"
            for r in item["verdict"]["reasons"]
            if r["level"] != "good"
        )
        rows.append(
            f'<tr><th>{_e(item["name"])}<span class="source">{_e(_KINDS.get(item["kind"], item["kind"]))}</span></th>'
            f'{missing}{shown}<td>{_e(decided)}<span class="source">{_e(against)}</span></td><td>{_e(place)}</td></tr>'
        )
    if not rows:
        return ""
    return (
        "<section><h2>Plan carried over</h2><table><thead><tr><th>Planned</th>"
        '<th class="number">Moved, mean</th><th class="number">Moved, largest</th><th class="number">Uncertainty</th>'
        "<th>Decision, and what speaks against it</th><th>Position used</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        '<p class="note">Moved: displacement beyond the rigid pose, over the points of the thing. Uncertainty: '
        "radius that holds the true position in 95 of 100 cases, largest of its points. What a person has not accepted "
        "stays where the rigid pose puts it.</p></section>"
    )


def _more_measurements(document: Document) -> str:
    more = [m for m in document.get("measurements", ()) if not m["name"].endswith(DEVIATION)]
    return f"<section><h2>Further measurements</h2>{table(more, document)}</section>" if more else ""


def _registration(document: Document) -> str:
    registration = document.get("registration")
    if registration is None:
        return ""
    level = level_of(registration["verdict"])
    rows = "".join(
        f'<tr><th>{_e(r["name"])}</th><td class="number">{_e(joined(value_text(r["value"], "")[0], r["unit"]))}</td>'
        f"<td>{_e(r['expected'])}</td>"
        f'<td><span class="level {_e(r["level"])}">{_LEVEL_WORDS[r["level"]]}</span></td></tr>'
        for r in registration["verdict"]["reasons"]
    )
    empty = '<tr><td colspan="4" class="none">Nothing was verified, so the registration counts as refused.</td></tr>'
    return (
        f'<section><h2>Registration <span class="level {level}">{_LEVEL_WORDS[level]}</span></h2>'
        f'<p class="note">{_e(registration["method"])}</p><table><thead><tr><th>Sign of trust</th><th class="number">'
        f"Measured</th><th>Expected</th><th>Level</th></tr></thead><tbody>{rows or empty}</tbody></table>"
        f"{_parts(document)}</section>"
    )


def _parts(document: Document) -> str:
    """Bones that were registered each on its own, what speaks against each, and what a person decided."""
    rows, asked = "", any(part.get("decision", "open") != "open" for part in document.get("parts", ()))
    for part in document.get("parts", ()):
        level = level_of(part["verdict"])
        against = [r for r in part["verdict"]["reasons"] if r["level"] != "good"]
        words = "; ".join(
            f"{r['name']} {joined(value_text(r['value'], '')[0], r['unit'])} (expected {r['expected']})"
            for r in against
        )
        rows += (
            f'<tr><th>{_e(part["name"])}</th><td class="number">{part["error_mm"]:.2f} mm</td><td>{_e(words)}</td>'
            f'<td><span class="level {level}">{_LEVEL_WORDS[level]}</span></td>'
            + (f"<td>{_e(_decision_on(part, level))}</td></tr>" if asked else "</tr>")
        )
    head = '<tr><th>Bone on its own</th><th class="number">Error</th><th>Against it</th><th>Level</th>' + (
        "<th>Decision</th></tr>" if asked else "</tr>"
    )
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""


def _decision_on(part: Document, level: str) -> str:
    if part["decision"] != "open":
        return f"{part['decision']} by {part['decided_by']} at {clock(part['decided_utc'])}"
    return "not offered" if level == "refused" else "not decided"


def _course(document: Document) -> str:
    timings, events = document.get("timings", ()), document.get("events", ())
    parts = []
    if timings:
        parts.append(
            f"<div><h2>Time per stage</h2>{drawings.bars([(t['stage'], t['seconds']) for t in timings])}</div>"
        )
    if events:
        rows = "".join(
            f'<tr><td class="number">{_e(clock(e["utc"]))}</td><th>{_e(e["kind"])}</th><td>{_e(e["text"])}</td></tr>'
            for e in events
        )
        parts.append(f'<div><h2>Events (UTC)</h2><table class="events"><tbody>{rows}</tbody></table></div>')
    return f'<section class="course">{"".join(parts)}</section>' if parts else ""


def _provenance(document: Document) -> str:
    images = "".join(
        f"<tr><th>{_e(i['name'] or 'unnamed')}</th><td>{_e(i['role'])}</td>"
        f"<td>{_e((i['acquired_utc'] or '')[:10])} {_e(clock(i['acquired_utc'] or ''))}</td>"
        f"<td>{' x '.join(str(n) for n in i['size_ijk'])}</td>"
        f"<td>{' x '.join(f'{s:.2f}' for s in i['spacing_mm'])}</td>"
        f'<td class="uid">{_e(i["uid"])}</td></tr>'
        for i in document.get("images", ())
    )
    table = (
        "<table><thead><tr><th>Image</th><th>Role</th><th>Acquired (UTC)</th><th>Voxels</th><th>Spacing, mm</th>"
        f"<th>UID</th></tr></thead><tbody>{images}</tbody></table>"
        if images
        else ""
    )
    software = ", ".join(f"{_e(name)} {_e(version)}" for name, version in document.get("software", {}).items())
    schema = f"{_e(document.get('schema', ''))} version {_e(document.get('schema_version', ''))}"
    return (
        f'<section><h2>Provenance</h2>{table}<p class="note">Software: {software or "not stated"}. '
        f"Record: {schema}.</p></section>"
    )
