from __future__ import annotations

import base64
import copy
from html.parser import HTMLParser
from typing import Any

import pytest
from IntraopMRILib.report import drawings
from IntraopMRILib.report.html import Picture, render
from IntraopMRILib.report.text import interval_text, joined, value_text
from IntraopMRIReconstructionLib.errors import DataError

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def number(name: str, value: float | None, unit: str = "mm", why: str = "") -> dict[str, Any]:
    interval = None if value is None else [value - 0.11, value + 0.11]
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "definition": f"definition of {name}",
        "source": f"source of {name}",
        "interval": interval,
        "missing_because": why,
        "based_on": [],
    }


def carried(name: str, kind: str, decision: str, level: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "moved_mean_mm": 4.321,
        "moved_max_mm": 5.678,
        "uncertainty_mm": 1.357,
        "verdict": verdict(level),
        "decision": decision,
        "decided_by": "" if decision == "open" else "Dr. <Example>",
        "decided_utc": "" if decision == "open" else "2026-03-01T10:07:08.000+00:00",
    }


def verdict(*levels: str) -> dict[str, Any]:
    return {"reasons": [{"name": "metric", "value": 1.5, "unit": "mm", "expected": "x", "level": e} for e in levels]}


DOCUMENT: dict[str, Any] = {
    "schema": "intraopmri-session",
    "schema_version": 1,
    "patient_id": 'P <1> & "Ü"',
    "procedure": "resection",
    "started_utc": "2026-03-01T10:00:00+00:00",
    "finished_utc": None,
    "site": "",
    "operator": "",
    "disclaimer": "Research software. Not for clinical use.",
    "events": [{"utc": "2026-03-01T10:01:02+00:00", "kind": "scan", "text": "<script>alert(1)</script>"}],
    "images": [
        {
            "uid": "u1",
            "name": "T1c",
            "role": "contrast",
            "acquired_utc": None,
            "size_ijk": [4, 5, 6],
            "spacing_mm": [1.0, 1.0, 2.0],
            "metadata": {},
        }
    ],
    "registration": {"method": "rigid", "error_mm": 0.4, "verdict": verdict("good")},
    "residual": {
        "volume": number("Residual enhancing tumour", 0.84, "cm3"),
        "extent_of_resection": number("Extent of resection", 91.37, "%"),
        "rano": "2B",
        "rano_best": "1 or 2A",
        "rano_worst": "3A",
        "rano_meaning": "near total CE resection",
        "rano_definition": "RANO classes",
        "rano_source": "Karschnia",
        "other": [number("Other", None, "cm3", "it was not measured")],
        "notes": ["A note."],
    },
    "implants": [
        {
            "name": "L4 left",
            "diameter_mm": 5.5,
            "planned_entry_ras_mm": [0, 0, 0],
            "planned_tip_ras_mm": [0, 40, 0],
            "actual_tip_ras_mm": [1, 40, 0],
            "uncertainty_mm": 0.4,
            "band": "inaccurate",
            "verdict": verdict("check"),
            "measurements": [number("L4 left: tip deviation", 1.234)],
        }
    ],
    "carried": [
        carried("Biopsy", "target", "accepted", "good"),
        carried("Tract", "risk", "rejected", "check"),
        carried("Entry", "landmark", "open", "good"),
        carried("Skull", "landmark", "open", "refused"),
    ],
    "measurements": [number("Tip to tract", None, "mm", "the pose is 1.8 s old")],
    "timings": [{"stage": "reconstruct", "seconds": 3.3}, {"stage": "register", "seconds": 1.0}],
    "software": {"numpy": "2"},
}


class Checker(HTMLParser):
    """Every element closed in order, no script, nothing fetched from elsewhere."""

    VOID = ("meta", "img", "line", "circle", "rect", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag not in ("script", "link", "iframe")
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("href", "src") or value.startswith("data:image/")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def text_of(html: str) -> str:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert not checker.open
    return " ".join(" ".join(checker.text).replace("\u00a0", " ").split())


def test_what_was_scanned_before_has_its_own_date() -> None:
    """Volumes from files are read whenever somebody reads them."""
    old = {**DOCUMENT["images"][0], "acquired_utc": "2025-11-30T23:59:00+00:00"}
    html = render({**DOCUMENT, "images": [old]})
    assert "<dt>Date</dt><dd>30 November 2025</dd>" in html
    assert "<dt>Evaluated (UTC)</dt><dd>01 March 2026, 10:00:00 to –</dd>" in html
    assert "Intraoperative MRI, 30 November 2025." in html
    assert "<td>2025-11-30 23:59:00</td>" in html
    assert "<dt>Time (UTC)</dt><dd>10:00:00 to –</dd>" in render(DOCUMENT)


def test_each_printed_page_says_whose_it_is() -> None:
    """Pages part from one another; and no name ends the style that holds it."""
    html = render({**DOCUMENT, "patient_id": 'P-1</style>"}\\Ü'})
    style = html[html.index("<style>") : html.index("</style>")]
    assert 'counter(page) " of " counter(pages)' in style
    assert r'@top-left{content:"Patient P-1\3c /style\3e \22 \7d \5c Ü"}' in style
    assert r'@top-right{content:"Intraoperative MRI, 01 March 2026. Research software. Not for clinical use."}' in style


def test_it_says_what_the_record_says() -> None:
    text = text_of(render(DOCUMENT, [Picture(PNG, "Axial")]))
    for expected in (
        "Research software. Not for clinical use.",
        'P <1> & "Ü"',
        "0.84 cm³",
        "interval 0.73 to 0.95 cm³",
        "91.4 %",
        "2B",
        "1 or 2A to 3A over the interval",
        "definition of Residual enhancing tumour",
        "source of Extent of resection",
        "1.23 mm",
        "inaccurate",
        "detection check",
        "No value: the pose is 1.8 s old",
        "10:01:02",
        "<script>alert(1)</script>",
        "4.3 s",
        "4 x 5 x 6",
    ):
        assert expected in text, expected


def test_the_disclaimer_comes_first() -> None:
    text = render(DOCUMENT).partition("<body>")[2]
    assert text.index("Not for clinical use") < text.index("P &lt;1&gt;")


@pytest.mark.parametrize("reasons", [("good", "refused"), ()])
def test_a_refused_registration_takes_every_number_with_it(reasons: Any) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["registration"]["verdict"] = verdict(*reasons)
    text = text_of(render(document))
    assert "the registration was refused" in text
    for number_shown in ("0.84", "91.4", "1.23 mm", "inaccurate", "near total", "0.4 mm", "4.32", "5.68", "1.36"):
        assert number_shown not in text, number_shown


def test_every_planned_thing_is_listed_with_its_decision() -> None:
    text = text_of(render(DOCUMENT))
    assert "Biopsy target 4.32 mm 5.68 mm 1.36 mm accepted by Dr. <Example> at 10:07:08" in text
    assert "rejected by Dr. <Example>" in text
    assert "not decided" in text
    assert "brain shift not known here 1.36 mm not offered" in text
    assert text.partition("Plan carried over")[2].count("carried over") == 1, (
        "only what was accepted left the rigid pose"
    )


def test_a_withdrawn_residual_has_no_class_and_no_scale() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["residual"]["volume"] = number("Residual enhancing tumour", None, "cm3", "the scan has no contrast")
    html = render(document)
    assert "the scan has no contrast" in text_of(html)
    assert "near total" not in html
    assert "against the RANO limits" not in html


def test_an_early_session_is_a_report_too() -> None:
    document = {key: DOCUMENT[key] for key in ("patient_id", "started_utc", "disclaimer")}
    text = text_of(render(document))
    assert "not assessed in this session" in text
    assert "no registration in this session" in text


def test_a_session_about_implants_or_the_spine_begins_with_what_it_found() -> None:
    """A residual that nobody asked for is no part of its decision."""
    document = copy.deepcopy({**DOCUMENT, "residual": None})
    summary = text_of(render(document)).partition("Implants, planned against actual")[0]
    for words in ("L4 left: tip deviation", "1.23", "inaccurate"):
        assert words in summary
    assert "not assessed" not in summary
    lordosis = number("L1 to L4: change of lordosis, sagittal", 12.5, "deg")
    bent = {
        **document,
        "implants": [],
        "parts": [{"name": "L1", "error_mm": 0.3, "verdict": verdict("good")}],
        "measurements": [lordosis],
    }
    summary = text_of(render(bent)).partition("Further measurements")[0]
    assert "12.5" in summary
    assert "not assessed" not in summary
    refused = copy.deepcopy({**document, "registration": {**DOCUMENT["registration"], "verdict": verdict("refused")}})
    summary = text_of(render(refused)).partition("Implants, planned against actual")[0]
    assert "L4 left: tip deviation" in summary
    assert "1.23" not in summary
    assert "inaccurate" not in summary


@pytest.mark.parametrize("key", ["patient_id", "started_utc", "disclaimer"])
def test_without_patient_or_disclaimer_there_is_no_report(key: Any) -> None:
    with pytest.raises(DataError, match=key):
        render({**DOCUMENT, key: ""})


def test_only_pictures_are_pictures() -> None:
    with pytest.raises(DataError, match="neither PNG nor JPEG"):
        render(DOCUMENT, [Picture(b"GIF89a", "Axial")])


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.8449, "cm3", "0.84 cm³"),
        (1.26, "mm", "1.26 mm"),
        (12.26, "mm", "12.3 mm"),
        (-0.001, "mm", "0.00 mm"),
        (-3.21, "deg", "−3.2°"),
        (99.96, "%", "100.0 %"),
        (0.012345, "", "0.0123"),
    ],
)
def test_numbers_as_people_write_them(value: Any, unit: Any, expected: Any) -> None:
    assert joined(*value_text(value, unit)).replace("\u00a0", " ") == expected


def test_an_interval_in_words() -> None:
    assert interval_text(number("x", 1.0, "deg")) == "0.9 to 1.1°"
    assert interval_text(number("x", None, "deg", "gone")) == ""


def test_the_target_is_seen_from_behind_with_right_on_the_right() -> None:
    implant = {
        "name": "L4",
        "planned_entry_ras_mm": [0, 0, 0],
        "planned_tip_ras_mm": [0, 40, 0],
        "actual_tip_ras_mm": [1.0, 42, 2.0],
        "uncertainty_mm": 0.3,
    }
    svg = drawings.target(implant)
    assert ">R</text>" in svg
    assert ">S</text>" in svg
    # 3 mm reach 80 units: 1 mm to the right and 2 mm up of the middle.
    assert 'cx="126.7" cy="46.7"' in svg
    assert "2.24 mm beside" in svg


def test_the_scale_reaches_beyond_any_interval() -> None:
    svg = drawings.residual_scale(300.0, (250.0, 400.0))
    assert ">460<" in svg
