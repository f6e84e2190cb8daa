"""The session record: the single source of the report, the DICOM objects and the follow-up.

Typed and immutable; kept as JSON of a stated schema version, written whole or not at all, checked when read.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from IntraopMRIReconstructionLib.data import Image, Measurement, Verdict
from IntraopMRIReconstructionLib.errors import DataError, SessionError

SCHEMA = "intraopmri-session"
#: Raised when a field changes its meaning or goes; a reader refuses versions that it does not know.
SCHEMA_VERSION = 1
DISCLAIMER = "Research software. Not for clinical use."
#: A record is text about a session, not its images: anything larger is another file.
LARGEST_RECORD_BYTES = 64 * 1024 * 1024

Vector3 = tuple[float, float, float]
Matrix4 = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Event:
    """Something that happened: ``utc`` ISO 8601 with offset, ``kind`` in one word, ``text`` for a person."""

    utc: str
    kind: str
    text: str


@dataclass(frozen=True)
class ImageEntry:
    """An image of the session: its uid, name, role, when it was acquired and its geometry (mm, RAS)."""

    uid: str
    name: str
    role: str
    acquired_utc: str | None
    size_ijk: tuple[int, int, int]
    spacing_mm: Vector3
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RegistrationEntry:
    """How two images were brought together, and how far that may be trusted."""

    fixed_uid: str
    moving_uid: str
    method: str
    intraop_from_preop: Matrix4
    error_mm: float | None
    verdict: Verdict


@dataclass(frozen=True)
class PartEntry:
    """A bone that was registered on its own, beside the registration of the whole or without it.

    ``decision``: where the whole was refused, a person accepts or rejects each: open, accepted or rejected.
    """

    name: str
    intraop_from_preop: Matrix4
    error_mm: float
    verdict: Verdict
    decision: str = "open"
    decided_by: str = ""
    decided_utc: str = ""


@dataclass(frozen=True)
class CourseEntry:
    """How the enhancement of a piece changed over contrast scans after one injection: ``text`` in words; ``minutes``
    since the first of them and ``enhancement`` then, the newest last; ``change`` from the first to the newest.
    """

    text: str
    minutes: tuple[float, ...]
    enhancement: tuple[Measurement, ...]
    change: Measurement


@dataclass(frozen=True)
class PieceEntry:
    """One piece of the residual: ``number`` from 1, the largest first, ``place`` in words, a point inside (RAS, mm).

    ``sure``: whether it is residual, in words. ``near``: the nearest structure at risk; None where the plan names none.
    ``excluded_by``: who has judged it not to be tumour, at ``excluded_utc`` (ISO 8601); empty when it counts.
    ``course``: None without earlier contrast scans of this look.
    """

    number: int
    place: str
    sure: str
    volume: Measurement
    longest: Measurement
    at_ras_mm: Vector3
    near: Measurement | None = None
    excluded_by: str = ""
    excluded_utc: str = ""
    course: CourseEntry | None = None


@dataclass(frozen=True)
class ResidualEntry:
    """The decision: residual, extent of resection, RANO class, and the centre of the residual (RAS, mm).

    ``rano_best`` and ``rano_worst``: the classes that the interval of the volume allows. ``pieces``: those that are
    large enough to be listed.
    """

    volume: Measurement
    extent_of_resection: Measurement
    rano: str
    rano_best: str
    rano_worst: str
    rano_meaning: str
    rano_definition: str
    rano_source: str
    centroid_ras_mm: Vector3 | None = None
    other: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    pieces: tuple[PieceEntry, ...] = ()


@dataclass(frozen=True)
class MarginEntry:
    """The margin of the resection on the image ``image_uid``: how far the cavity reaches beyond the tumour's border.

    ``at_ras_mm``: where it is closest, in that image; None without a number. ``text``: all of it in one sentence.
    """

    image_uid: str
    closest: Measurement
    outside: Measurement
    text: str
    at_ras_mm: Vector3 | None = None


@dataclass(frozen=True)
class DrawnEntry:
    """What came of a person's outline or landmarks on the image ``image_uid``; ``kind``: of the measure.

    ``drawn_by``: who, empty when nobody was named; ``utc``: when (ISO 8601). ``proposed``: what that person has
    changed of the software's proposal, empty where there was none.
    """

    kind: str
    title: str
    image_uid: str
    measurements: tuple[Measurement, ...]
    note: str = ""
    drawn_by: str = ""
    utc: str = ""
    proposed: str = ""


@dataclass(frozen=True)
class ImplantEntry:
    """One implant, planned against actual; points in RAS of the intraoperative scan, mm.

    ``decision``: open, stays or revise, by whom and when (ISO 8601).
    """

    name: str
    diameter_mm: float
    planned_entry_ras_mm: Vector3
    planned_tip_ras_mm: Vector3
    actual_entry_ras_mm: Vector3
    actual_tip_ras_mm: Vector3
    uncertainty_mm: float
    band: str
    verdict: Verdict
    measurements: tuple[Measurement, ...]
    planned_basis: str = "rigid pose"
    decision: str = "open"
    decided_by: str = ""
    decided_utc: str = ""


@dataclass(frozen=True)
class CarriedEntry:
    """One planned thing (``kind``: target, plan, risk, landmark) that the brain shift moved, and what was decided.

    ``moved_mean_mm``, ``moved_max_mm``: beyond the rigid pose, over its points. ``uncertainty_mm``: largest 95 %
    radius of its points. ``verdict``: refused means that it was not offered. ``decision``: open, accepted or rejected,
    by whom and when (ISO 8601); only what was accepted left the place where the rigid pose puts it.
    """

    name: str
    kind: str
    moved_mean_mm: float
    moved_max_mm: float
    uncertainty_mm: float
    verdict: Verdict
    decision: str = "open"
    decided_by: str = ""
    decided_utc: str = ""


@dataclass(frozen=True)
class LookEntry:
    """What a scan said before a newer one of the same operation replaced it: how it was then, not how it is now.

    ``measurements``: of the residual, the margin and the implants, those with a value. ``rano``: the class in words,
    empty without one. ``confirmed``: whether a person had confirmed its registration; ``decisions``: what was decided.
    """

    image_uid: str
    image_name: str
    acquired_utc: str | None
    measurements: tuple[Measurement, ...]
    rano: str = ""
    confirmed: bool = False
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeatEntry:
    """A temperature scan since its reference: what was heated, when, and what came of it.

    ``spot_ras_mm``, ``radius_mm``: the mark in the scanner's frame, None without one. ``measurements``: highest peak
    with its frame, highest dose, volume above the lethal dose, then temperature and dose of structures at risk.
    ``course``: seconds since the reference, peak in the mark and its interval (C). ``latency_s``: from the last line of
    a frame to its map, 95 % of frames. ``source``: of the method.
    """

    scan: str
    began_utc: str
    newest_utc: str
    ended: bool
    frames: int
    reference_frame: int
    spot_ras_mm: Vector3 | None
    radius_mm: float
    baseline_c: float
    measurements: tuple[Measurement, ...]
    course: tuple[tuple[float, float, float, float], ...] = ()
    notes: tuple[str, ...] = ()
    latency_s: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Timing:
    """How long one stage took."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class SessionRecord:
    """All that the report, the DICOM objects and the follow-up say of one session. ``software``: name to version.

    ``looks``: what earlier scans of the operation said, oldest first.
    ``planned_measures``: titles of what the procedure is about and a person has to draw, by kind. ``patient``: what the
    header of the preoperative volume says of the patient beside the identifier, by DICOM's names; empty without one.
    """

    patient_id: str
    procedure: str
    started_utc: str
    finished_utc: str | None = None
    site: str = ""
    operator: str = ""
    events: tuple[Event, ...] = ()
    images: tuple[ImageEntry, ...] = ()
    registration: RegistrationEntry | None = None
    parts: tuple[PartEntry, ...] = ()
    residual: ResidualEntry | None = None
    margin: MarginEntry | None = None
    implants: tuple[ImplantEntry, ...] = ()
    carried: tuple[CarriedEntry, ...] = ()
    planned_measures: Mapping[str, str] = field(default_factory=dict)
    drawn: tuple[DrawnEntry, ...] = ()
    heating: tuple[HeatEntry, ...] = ()
    looks: tuple[LookEntry, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    timings: tuple[Timing, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    patient: Mapping[str, str] = field(default_factory=dict)
    disclaimer: str = DISCLAIMER

    def __post_init__(self) -> None:
        if not self.patient_id.strip():
            raise SessionError("a session record needs a patient id: enter it before the session starts")

    def with_event(self, kind: str, text: str, utc: str | None = None) -> SessionRecord:
        """A record with one more event, now unless said otherwise."""
        return replace(self, events=(*self.events, Event(utc or utc_now(), kind, text)))


def utc_now() -> str:
    """Now, ISO 8601 with offset, to the millisecond."""
    return utc_text(datetime.now(UTC).timestamp())


def utc_text(utc_s: float) -> str:
    """POSIX seconds as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="milliseconds")


def image_entry(image: Image, role: str) -> ImageEntry:
    """What the record keeps of an image; ``role``: what it was used for, such as 'intraoperative contrast'."""
    k, j, i = image.array.shape[:3]
    acquired = None if image.acquired_utc_s is None else utc_text(image.acquired_utc_s)
    x, y, z = (float(s) for s in image.spacing_mm)
    return ImageEntry(image.uid, image.name, role, acquired, (i, j, k), (x, y, z), dict(image.metadata))


def as_document(record: SessionRecord) -> dict[str, Any]:
    """The record as plain dictionaries, lists, text and numbers: what the JSON file holds and the report reads."""
    return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **_plain(record, "record")}


def to_json(record: SessionRecord) -> str:
    """The record as JSON text, keys in the order of the fields. Raises DataError for numbers that are not finite."""
    return json.dumps(as_document(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> SessionRecord:
    """Read and check a record. Raises DataError that names the place, what is there and what was expected."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(
            f"the session record is not valid JSON (line {error.lineno}: {error.msg}): it may be cut off"
        ) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise DataError(f"this is not a session record: schema is {found!r}, expected {SCHEMA!r}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"session record version {document.get('schema_version')!r} is not supported, expected {SCHEMA_VERSION}: "
            "open it with the version of the extension that wrote it"
        )
    body = {key: value for key, value in document.items() if key not in ("schema", "schema_version")}
    return cast(SessionRecord, _typed(body, SessionRecord, "record"))


def write_record(record: SessionRecord, path: Path) -> None:
    """Write the record whole or not at all: to a file beside it, flushed, then moved over the old one."""
    write_together({Path(path): to_json(record)})


def read_record(path: Path) -> SessionRecord:
    """Read a record from a file. Raises DataError when it is missing, too large or not a record."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_RECORD_BYTES:
            raise DataError(f"{path.name} has {path.stat().st_size} bytes, too many for a session record")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the session record {path} cannot be read ({error.strerror}): name the folder of a finished session"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"the session record {path.name} is not UTF-8 text: it is damaged or another file") from error
    return from_json(text)


def write_results(record: SessionRecord, report: str, folder: Path) -> None:
    """The record and its report (HTML) in a folder of results: both or neither. Raises SessionError."""
    write_together({folder / "session.json": to_json(record), folder / "report.html": report})


def write_together(texts: Mapping[Path, str]) -> None:
    """Write UTF-8 texts by their files: a reader sees an old or a new one, never half, and none changes before all are
    on the disk. Raises SessionError."""
    parts: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
            parts[part] = path
            # Names of files may hold what is no text: JSON reads the escape back as it was.
            with part.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        for part, path in parts.items():
            part.replace(path)
    except OSError as error:
        for part in parts:
            with suppress(OSError):
                part.unlink()
        raise SessionError(
            f"{path} cannot be written: {error.strerror}. Nothing was changed; choose a folder that exists and has room"
        ) from error


def _refuse_constant(name: str) -> float:
    raise DataError(f"the session record contains {name}, which is not a number that may be shown")


def _plain(value: Any, where: str) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item, f"{where}[{n}]") for n, item in enumerate(value)]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds a {type(value).__name__}, which a session record cannot keep") from error
    if not math.isfinite(number):
        raise DataError(f"{where} must be a finite number, got {number}")
    return number


def _typed(value: Any, kind: Any, where: str) -> Any:
    """``value`` from JSON as the type ``kind``, or a DataError that says where it does not fit."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in arguments:
            return None
        return _typed(value, next(a for a in arguments if a is not type(None)), where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _typed_fields(value, kind, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        allowed = [member.value for member in kind]
        if value not in allowed:
            raise DataError(f"{where} must be one of {allowed}, got {value!r}")
        return kind(value)
    if origin is tuple:
        _expect(value, list, "a list", where)
        if len(arguments) == 2 and arguments[1] is ...:
            return tuple(_typed(item, arguments[0], f"{where}[{n}]") for n, item in enumerate(value))
        if len(value) != len(arguments):
            raise DataError(f"{where} must have {len(arguments)} entries, got {len(value)}")
        return tuple(_typed(i, a, f"{where}[{n}]") for n, (i, a) in enumerate(zip(value, arguments, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        _expect(value, dict, "an object", where)
        return {key: _typed(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DataError(f"{where} must be a number, got {value!r}")
        return float(value)
    if kind is int and isinstance(value, bool):
        raise DataError(f"{where} must be a whole number, got {value!r}")
    _expect(value, kind, kind.__name__, where)
    return value


def _typed_fields(value: Any, kind: Any, where: str) -> Any:
    _expect(value, dict, "an object", where)
    # The names of the class's own module, also after a reload has put another module in its place.
    hints = get_type_hints(kind, vars(kind)["__init__"].__globals__)
    names = {f.name for f in fields(kind)}
    if unknown := sorted(set(value) - names):
        raise DataError(f"{where} holds unknown entries {unknown}, expected only {sorted(names)}")
    content = {name: _typed(item, hints[name], f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**content)
    except (TypeError, SessionError) as error:
        raise DataError(f"{where} is incomplete: {error}") from error


def _expect(value: Any, kind: type, words: str, where: str) -> None:
    if not isinstance(value, kind):
        raise DataError(f"{where} must be {words}, got {value!r}"[:300])
