"""The section of the report about implants: all in one table, then each with its numbers and their definitions."""

from __future__ import annotations

from collections.abc import Sequence

from . import drawings
from .parts import Document, table
from .parts import escaped as _e
from .text import clock, interval_text, joined, level_of, value_text
from .trust import checked

#: How the names of numbers end that are missing with an implant: the reason belongs where it would stand.
DEVIATION = ": deviation from its plan"
#: Numbers of one implant in its row of a table of all, by the ends of their names, and the titles of their columns.
IN_ROW = (": entry deviation", ": tip deviation", ": angular deviation")
_TITLES = ("Entry", "Tip", "Angle")
_DECISIONS = {"stays": "stays", "revise": "to be revised"}


def implants_section(document: Document, missing: Sequence[Document]) -> str:
    """``missing``: numbers that the plan asks for and that are not there."""
    implants = document.get("implants", ())
    lost = [m for m in missing if m["name"].endswith(DEVIATION)]
    parts = [_all_of_them(implants, lost, document)] if len(implants) + len(lost) > 1 else []
    parts += [_one(implant, document) for implant in implants]
    parts += [
        f'<div class="implant"><h3>{_e(m["name"].removesuffix(DEVIATION))}</h3>'
        f'<p class="none">No value: {_e(m["missing_because"])}</p></div>'
        for m in lost
    ]
    return f"<section><h2>Implants, planned against actual</h2>{''.join(parts)}</section>" if parts else ""


def decision_words(implant: Document) -> str:
    """What a person has decided on an implant, by whom and when."""
    decision = implant.get("decision", "open")
    if decision == "open":
        return "not decided"
    return f"{_DECISIONS[decision]}, decided by {implant['decided_by']} at {clock(implant['decided_utc'])} UTC"


def _all_of_them(implants: Sequence[Document], lost: Sequence[Document], document: Document) -> str:
    rows = []
    for implant in implants:
        numbers = [checked(m, document) for m in implant["measurements"]]
        cells = ""
        for end in IN_ROW:
            one = next((m for m in numbers if m["name"].endswith(end)), None)
            if one is None or one["value"] is None:
                cells += '<td class="number">–</td>'
            else:
                value = joined(*value_text(one["value"], one["unit"]))
                cells += f'<td class="number">{_e(value)}<span class="source">{_e(interval_text(one))}</span></td>'
        known = any(m["value"] is not None for m in numbers)
        rows.append(
            f"<tr><th>{_e(implant['name'])}</th>{cells}<td>{_e(implant['band']) if known else '–'}</td>"
            f"<td>{_e(decision_words(implant))}</td></tr>"
        )
    rows += [
        f"<tr><th>{_e(m['name'].removesuffix(DEVIATION))}</th>"
        f'<td colspan="5" class="none">No value: {_e(m["missing_because"])}</td></tr>'
        for m in lost
    ]
    titles = "".join(f'<th class="number">{title}</th>' for title in _TITLES)
    return (
        f"<table><thead><tr><th>Implant</th>{titles}<th>Grade</th><th>Decision</th></tr></thead>"
        f'<tbody>{"".join(rows)}</tbody></table><p class="note">Distance from the planned entry and tip, and angle to '
        "the planned axis; definitions and all other numbers below.</p>"
    )


def _one(implant: Document, document: Document) -> str:
    level, name = level_of(implant["verdict"]), implant["name"]
    shown = [checked(m, document) for m in implant["measurements"]]
    known = any(m["value"] is not None for m in shown)
    target = drawings.target(implant) if known else ""
    short = [{**m, "name": m["name"].removeprefix(f"{name}: ").capitalize()} for m in shown]
    band = f'<span class="band">{_e(implant["band"])}</span>' if known else ""
    return (
        f'<div class="implant"><h3>{_e(name)} {band}<span class="level {level}">detection {level}</span></h3>'
        f'<div class="beside"><div>{target}</div><div>{table(short, document)}<p class="note">Diameter '
        f"{implant['diameter_mm']:.1f} mm, uncertainty of the actual ends {implant['uncertainty_mm']:.2f} mm. "
        f"Planned position: {_e(implant.get('planned_basis', 'rigid pose'))}. Placement: "
        f"{_e(decision_words(implant))}.</p></div></div></div>"
    )
