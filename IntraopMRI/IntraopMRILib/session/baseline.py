"""A later scan beside the results of the operation: what was left then, what is there now, and how far they differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import SessionError

from ..report.resection import excluded_words
from ..report.trust import checked
from ..workflow.record import SessionRecord, as_document, read_record

#: What a change may come from beside tumour; nothing in two volumes tells them apart.
BESIDE = "what enhances after surgery or radiation is not told from tumour"


@dataclass(frozen=True)
class Baseline:
    """The residual of an earlier session: ``volume`` in cm3, on scans of ``taken_utc`` (ISO 8601), and ``less``: what a
    person has excluded from it, in words.
    """

    patient_id: str
    volume: Measurement
    taken_utc: str
    less: str


def read_baseline(results: Path) -> Baseline:
    """Of a folder of results. Raises SessionError when it holds no residual that may be shown, or no time of it."""
    record = read_record(results / "session.json")
    document = as_document(record)
    if record.residual is None:
        raise SessionError(f"'{results}' holds no residual to compare with: name the results of a tumour's resection")
    shown = checked(document["residual"]["volume"], document)
    if shown["value"] is None:
        raise SessionError(f"'{results}' holds no residual to compare with: {shown['missing_because']}")
    taken = max((image.acquired_utc for image in record.images if image.acquired_utc), default="")
    if not taken:
        raise SessionError(f"'{results}' does not say when its scans were taken: nothing shows which are later")
    return Baseline(record.patient_id, record.residual.volume, taken, excluded_words(document["residual"]))


def not_after(baseline: Baseline, name: str, taken_utc: str | None) -> str:
    """Why a scan cannot be compared with the baseline, in words; empty for one that was taken after it (ISO 8601)."""
    if taken_utc is not None and taken_utc > baseline.taken_utc:
        return ""
    when = "at an unknown time" if taken_utc is None else f"{taken_utc[:19]} UTC"
    return (
        f"'{name}' was taken {when}, which is not after the baseline ({baseline.taken_utc[:19]} UTC): name the earlier "
        "results as the baseline"
    )


def compared(baseline: Baseline, record: SessionRecord) -> tuple[Measurement, Measurement]:
    """The residual of then, and what is there now less that; its interval is the widest that both allow."""
    day, then = baseline.taken_utc[:10], baseline.volume
    assert then.value is not None, "a baseline has one"
    less = f", {baseline.less}" if baseline.less else ""
    before = Measurement(
        f"Residual at the baseline of {day}",
        then.value,
        then.unit,
        f"As the report of that session says{less}. {then.definition}",
        then.source,
        then.interval,
    )
    name, definition = f"Residual: change of volume since {day}", f"Residual of this scan less that of {day}{less}"
    document = as_document(record)
    shown = None if record.residual is None else checked(document["residual"]["volume"], document)
    if record.residual is None or shown is None or shown["value"] is None:
        why = "this scan says no residual" if shown is None else shown["missing_because"]
        return before, Measurement(name, None, then.unit, definition, missing_because=why)
    now = record.residual.volume
    assert now.value is not None
    reasons = (not_after(baseline, i.name, i.acquired_utc) for i in record.images if i.uid in now.based_on)
    if why := next(filter(None, reasons), ""):
        return before, Measurement(name, None, then.unit, definition, missing_because=why)
    interval = None
    if now.interval is not None and then.interval is not None:
        interval = now.interval[0] - then.interval[1], now.interval[1] - then.interval[0]
    within = interval is not None and interval[0] <= 0.0 <= interval[1]
    says = "it may be none" if within else "it is more than both intervals"
    said = f"interval: the widest that both allow, so {says}" if interval else "no interval of it is known"
    definition += f"; {said}; {BESIDE}"
    return before, Measurement(
        name, now.value - then.value, now.unit, definition, interval=interval, based_on=now.based_on
    )
