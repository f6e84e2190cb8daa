"""The measurement report: DICOM SR by template TID 1500, from what the session record may show.

A number is a number here only when it is one in the record and what it rests on was not refused; otherwise the words
why stand in its place. Its interval is told by the range of its uncertainty below and above (TID 310).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, apply
from pydicom.dataset import Dataset

from ..implants import decision_words
from ..text import by_whom, interval_text, joined, level_of, look_words, value_text
from ..trust import WITHHELD, checked, found_parts
from .case import MANUFACTURER, MODEL, Case, Document, person_name
from .codes import COMMENT, MRI, NEOPLASM, REPORT, VOLUME, Coded, item, own, own_scheme, unit
from .packages import highdicom
from .segmentation import finish, segment_of

NUMBER = 904
#: Events of the record that say who confirmed and decided what.
CONFIRMING = ("confirmed", "decision", "carried over", "implant", "withdrawn")
#: Measurements that are about volume, whatever their name: the segment that each belongs to.
CAVITY = "Resection cavity"
#: Written by this machine about its own work, not about the patient.
OWN_TIMES = "s"
#: Events that come from writing and sending these objects: a report must not change by having been written.
OWN_EVENTS = ("dicom", "sent", "committed")


@dataclass(frozen=True)
class Group:
    """Measurements that belong together. ``segment``: number in the segmentation; ``points``: places (n, 3) RAS mm.

    ``classes``: name and value of what is said by a code; ``words``: what is said in words.
    """

    title: str
    measurements: Sequence[Document] = ()
    segment: int | None = None
    finding: Coded | None = None
    classes: Sequence[tuple[str, str]] = ()
    words: Sequence[str] = ()
    points: Any = None


def report(case: Case, evidence: list[Dataset], scan: list[Dataset], segments: Dataset | None) -> Dataset:
    """The report of a session. ``evidence``: slices of all its scans; ``scan``: of the registered one; ``segments``:
    the segmentation that measurements refer to, if there is one.
    """
    hd = highdicom()
    document = case.document
    operator = str(document.get("operator", "")).strip()
    groups = [_measured(case, group, scan, segments) for group in groups_of(document, segments)]
    content = hd.sr.MeasurementReport(
        observation_context=_observers(case, operator),
        procedure_reported=hd.sr.CodedConcept(*MRI),
        imaging_measurements=groups,
        title=hd.sr.CodedConcept(*REPORT),
    )
    for words in general_words(document):
        content[0].ContentSequence.append(_text(words))
    about = [*evidence, *([] if segments is None else [segments])]
    refers = "".join(sorted(str(each.SOPInstanceUID) for each in about))
    made = hd.sr.Comprehensive3DSR(
        evidence=about,
        content=content[0],
        series_instance_uid=case.uid("series", "report", case.scan.uid),
        series_number=NUMBER,
        sop_instance_uid=case.uid("report", _said(document), refers),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=bool(document.get("finished_utc")),
        is_final=bool(operator) and confirmed(document),
        is_verified=False,
    )
    finish(case, made, "Intraoperative measurements (research)")
    made.CodingSchemeIdentificationSequence = [own_scheme()]
    return made


def evidence_of(made: Dataset) -> Iterator[str]:
    """Series that a report refers to; none for any other object."""
    for key in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in made.get(key, ()):
            yield from (str(series.SeriesInstanceUID) for series in study.ReferencedSeriesSequence)


def confirmed(document: Document) -> bool:
    """Whether a person has confirmed the registration of the newest scan, or has decided on each bone by itself."""
    decisions = {
        part.get("decision", "open") for part in document.get("parts", ()) if level_of(part["verdict"]) != "refused"
    }
    if "accepted" in decisions and "open" not in decisions:
        return True
    newest = max((e["utc"] for e in document["events"] if e["kind"] == "registration"), default="")
    return any(e["kind"] == "confirmed" and e["utc"] >= newest for e in document["events"])


def general_words(document: Document) -> Iterator[str]:
    """What holds for the whole report."""
    yield str(document["disclaimer"])
    yield f"Procedure: {document.get('procedure') or 'not stated'}"
    if not confirmed(document):
        yield "No person has confirmed the registration: every number is preliminary."
    for look in document.get("looks", ()):
        taken = look["acquired_utc"] or "time unknown"
        confirmed_words = "" if look["confirmed"] else "; registration not confirmed by a person"
        yield f"Earlier scan '{look['image_name']}', {taken}: {'; '.join(look_words(look))}{confirmed_words}"
    for event in document["events"]:
        if event["kind"] in CONFIRMING:
            yield f"{event['utc']} {event['kind']}: {event['text']}"


def groups_of(document: Document, segments: Dataset | None) -> list[Group]:
    """What the record says, sorted into groups; numbers as :func:`..trust.checked` leaves them."""
    groups = [*_registration(document), *_residual(document, segments), *_margin(document)]
    for entry in document.get("drawn", ()):
        words = (entry["note"], by_whom(entry, entry["utc"]))
        groups.append(Group(entry["title"], entry["measurements"], words=words))
    groups += [_implant(entry) for entry in document.get("implants", ())]
    groups += _carried(document)
    cavity = segment_of(segments, "cavity")
    for measurement in (m for m in document.get("measurements", ()) if m["unit"] != OWN_TIMES):
        segment = cavity if measurement["name"] == CAVITY else None
        groups.append(Group(measurement["name"], [measurement], segment))
    return [_trusted(group, document) for group in groups]


def _registration(document: Document) -> Iterator[Group]:
    for name, found in [
        ("Registration", document.get("registration")),
        *((f"Registration of {part['name']}", part) for part in document.get("parts", ())),
    ]:
        if found is None:
            continue
        level = level_of(found["verdict"])
        error, decided = found["error_mm"], ""
        if found.get("decided_by"):
            decided = f"{found['decision']} by {found['decided_by']} at {found['decided_utc']}"
        numbers = []
        if error is not None and level != "refused":
            definition = "Error of the rigid pose, estimated from blocks that agree"
            numbers = [_number("Registration error", error, "mm", definition)]
        reasons = [
            f"{r['name']}: {joined(value_text(r['value'], '')[0], r['unit'])} (expected {r['expected']}), {r['level']}"
            for r in found["verdict"]["reasons"]
        ]
        words = (str(found.get("method", "")), "; ".join(reasons), decided)
        yield Group(name, numbers, classes=(("Verdict on the registration", level),), words=words)


def _residual(document: Document, segments: Dataset | None) -> Iterator[Group]:
    residual = document.get("residual")
    if residual is None:
        return
    numbers = [residual["volume"], residual["extent_of_resection"], *residual["other"]]
    classes: tuple[tuple[str, str], ...] = ()
    if checked(residual["volume"], document)["value"] is not None:
        best, worst = residual["rano_best"], residual["rano_worst"]
        classes = (("RANO resect class", residual["rano"]),)
        if best != worst:
            classes += (("RANO resect class, best of interval", best), ("RANO resect class, worst of interval", worst))
    words = (*residual["notes"], f"{residual['rano_definition']}. {residual['rano_source']}" if classes else "")
    segment = segment_of(segments, "residual")
    yield Group("Residual enhancing tumour", numbers, segment, NEOPLASM, classes, words)
    for piece in residual.get("pieces", ()):
        judged, near, course = piece["excluded_by"], piece["near"], piece["course"]
        words = (
            f"{piece['place']}; {piece['sure']}",
            f"Judged not tumour by {judged} at {piece['excluded_utc']} for this scan: not counted" if judged else "",
            "" if course is None else course["text"],
        )
        numbers = [piece["volume"], piece["longest"], *([] if near is None else [near])]
        numbers += [] if course is None else [*course["enhancement"], course["change"]]
        finding, at = None if judged else NEOPLASM, np.array([piece["at_ras_mm"]], dtype=np.float64)
        yield Group(f"Piece {piece['number']}", numbers, finding=finding, words=words, points=at)


def _margin(document: Document) -> Iterator[Group]:
    margin = document.get("margin")
    if margin:
        words = margin["text"] if checked(margin["closest"], document)["value"] is not None else ""
        yield Group("Resection margin", [margin["closest"], margin["outside"]], words=(words,))


def _implant(entry: Document) -> Group:
    places = {key: _lps_words(entry[f"{key}_ras_mm"]) for key in ("planned_entry", "planned_tip")}
    words = (
        f"Diameter {entry['diameter_mm']:.1f} mm; uncertainty of the ends {entry['uncertainty_mm']:.2f} mm; planned "
        f"position: {entry['planned_basis']}; planned entry {places['planned_entry']}, tip {places['planned_tip']}",
        f"Accuracy: {entry['band']}",
        f"Placement: {decision_words(entry)}",
    )
    classes = (("Verdict on the detection", level_of(entry["verdict"])), ("Accuracy band", entry["band"]))
    ends = np.array([entry["actual_entry_ras_mm"], entry["actual_tip_ras_mm"]], dtype=np.float64)
    return Group(entry["name"], entry["measurements"], classes=classes, words=words, points=ends)


def _carried(document: Document) -> Iterator[Group]:
    """Planned things on which a person has decided; of others nothing is measured."""
    for entry in document.get("carried", ()):
        if entry["decision"] == "open" or level_of(entry["verdict"]) == "refused":
            continue
        moved = "Displacement beyond the rigid pose, mean over the points of the thing"
        radius = "Radius that holds the true position in 95 of 100 cases, largest of its points"
        numbers = [
            _number("Moved by brain shift", entry["moved_mean_mm"], "mm", moved),
            _number("Uncertainty of the place", entry["uncertainty_mm"], "mm", radius),
        ]
        words = (f"{entry['decision']} by {entry['decided_by']} at {entry['decided_utc']}",)
        classes = (("Carried over", entry["decision"]),)
        yield Group(f"{entry['name']} ({entry['kind']})", numbers, classes=classes, words=words)


def _trusted(group: Group, document: Document) -> Group:
    """Withhold what rests on a refused registration: numbers, and what a code or a place says of them."""
    numbers = [checked(m, document) for m in group.measurements]
    registration = document.get("registration")
    refused = registration is not None and level_of(registration["verdict"]) == "refused" and not found_parts(document)
    known = any(m["value"] is not None for m in numbers)
    if not refused and (known or not numbers):
        return Group(group.title, numbers, group.segment, group.finding, group.classes, group.words, group.points)
    kept = tuple(c for c in group.classes if c[0].startswith("Verdict"))
    words = group.words if group.title.startswith("Registration") else (WITHHELD,) if refused else ()
    return Group(group.title, numbers, None, group.finding, kept, words)


def _measured(case: Case, group: Group, scan: list[Dataset], segments: Dataset | None) -> Any:
    hd = highdicom()
    segmented = segments.SegmentSequence[group.segment - 1] if group.segment and segments is not None else None
    # The same thing as the segment, so the same identity.
    identity = case.uid("group", group.title) if segmented is None else segmented.TrackingUID
    tracking = hd.sr.TrackingIdentifier(uid=identity, identifier=group.title)
    common = {
        "tracking_identifier": tracking,
        "finding_type": None if group.finding is None else hd.sr.CodedConcept(*group.finding),
        "measurements": [_measurement(case, m, group) for m in group.measurements if m["value"] is not None],
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(hd.sr.CodedConcept(*own(name)), hd.sr.CodedConcept(*own(value)))
            for name, value in group.classes
        ],
    }
    if segments is not None and segmented is not None:
        segment = hd.sr.ReferencedSegment(
            segments.SOPClassUID,
            segments.SOPInstanceUID,
            segmented.SegmentNumber,
            source_series=hd.sr.SourceSeriesForSegmentation(scan[0].SeriesInstanceUID),
        )
        made = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
    else:
        made = hd.sr.MeasurementsAndQualitativeEvaluations(**common)
    words = [w for w in group.words if w]
    words += [_definition(m, group) for m in group.measurements]
    made[0].ContentSequence.extend(_text(w) for w in words)
    return made


def _measurement(case: Case, measurement: Document, group: Group) -> Any:
    hd = highdicom()
    name = _short(measurement, group)
    about = group.segment is not None or group.finding is not None
    volume = measurement["unit"] == "cm3" and about and measurement is group.measurements[0]
    properties = None
    if measurement["interval"] is not None:
        low, high = measurement["interval"]
        properties = hd.sr.MeasurementProperties(
            lower_measurement_uncertainty=float(measurement["value"] - low),
            upper_measurement_uncertainty=float(high - measurement["value"]),
        )
        # The library writes them without a unit; they are in that of the number (TID 310).
        for bound in properties:
            bound.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [item(unit(measurement["unit"]))]
    places = None
    if group.points is not None and measurement is group.measurements[0]:
        kind = "POINT" if len(group.points) == 1 else "POLYLINE"
        places = [
            hd.sr.CoordinatesForMeasurement3D(kind, apply(RAS_FROM_LPS, group.points), case.frames[case.scan.uid])
        ]
    return hd.sr.Measurement(
        name=hd.sr.CodedConcept(*(VOLUME if volume else own(name))),
        value=float(measurement["value"]),
        unit=hd.sr.CodedConcept(*unit(measurement["unit"])),
        tracking_identifier=hd.sr.TrackingIdentifier(uid=case.uid("number", group.title, name), identifier=name),
        properties=properties,
        referenced_coordinates=places,
    )


def _definition(measurement: Document, group: Group) -> str:
    name = _short(measurement, group)
    if measurement["value"] is None:
        return f"{name}: no value, {measurement['missing_because']}"
    between = interval_text(measurement)
    source = f" Source: {measurement['source']}." if measurement["source"] else ""
    interval = f" Interval {between}." if between else ""
    return f"{name}: {measurement['definition']}.{interval}{source}"


def _short(measurement: Document, group: Group) -> str:
    """Name of a number without that of the thing that it is a number of."""
    name = str(measurement["name"]).removeprefix(f"{group.title}: ")
    return name[:1].upper() + name[1:]


def _number(name: str, value: float, unit_: str, definition: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit_,
        "definition": definition,
        "source": "",
        "interval": None,
        "missing_because": "",
    }


def _lps_words(ras_mm: Sequence[float]) -> str:
    x, y, z = apply(RAS_FROM_LPS, ras_mm)
    return f"({x:.1f}, {y:.1f}, {z:.1f}) mm LPS"


def _text(words: str) -> Any:
    hd = highdicom()
    return hd.sr.TextContentItem(hd.sr.CodedConcept(*COMMENT), words, "CONTAINS")


def _observers(case: Case, operator: str) -> Any:
    hd = highdicom()
    device = hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=case.uid("device"), name=MODEL, manufacturer_name=MANUFACTURER, model_name=" ".join(case.software)[:64]
        ),
    )
    person = None
    if operator:
        person = hd.sr.ObserverContext(
            observer_type=hd.sr.CodedConcept("121006", "DCM", "Person"),
            observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(name=person_name(operator)),
        )
    return hd.sr.ObservationContext(observer_person_context=person, observer_device_context=device)


def _said(document: Mapping[str, Any]) -> str:
    """The record as text, without what is in it because these objects were written."""
    events = [event for event in document["events"] if event["kind"] not in OWN_EVENTS]
    return json.dumps({**document, "events": events, "timings": []}, sort_keys=True)
