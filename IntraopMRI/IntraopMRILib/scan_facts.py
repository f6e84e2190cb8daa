"""What is known of a finished scan, from a DICOM header or from a person: whose it is, when it was taken, with what.

Only the time of acquisition shows the order in which two scans were taken. The time at which a picture was made
(content, series, instance) is later when it was computed anew, so it is not taken in its place.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from operator import attrgetter
from typing import Any

from IntraopMRIReconstructionLib.errors import DataError, SessionError

from .report.dicom.source import SOURCE, UNKNOWN

#: DA and TM, or both in DT, with at least minutes (PS3.5, 6.2); hours alone order no two scans.
MOMENT = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)(\d\d):?(\d\d)(?::?(\d\d)(\.\d{1,6})?)?([+-]\d{4})?")
OFFSET = re.compile(r"([+-])(\d\d)(\d\d)")
#: Keys of an image's metadata: DICOM's own names, and where the time of its acquisition comes from.
AGENT, FRAME, TAKEN_FROM = "ContrastBolusAgent", "FrameOfReferenceUID", "TakenFrom"
#: What scanners write into 'contrast agent' when none was given, instead of leaving it empty.
NO_AGENT = ("", "none", "no", "n", "0", "no contrast", "without", "without contrast")
#: Times of acquisition in the order in which they are believed: tag of both, or of date and time.
ACQUIRED = (("AcquisitionDateTime",), ("AcquisitionDate", "AcquisitionTime"))
FRAME_TAKEN = ("FrameAcquisitionDateTime",)
#: Who the patient is beside the identifier, and which study the scan is of: what is written goes into that.
PATIENT = ("PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID")
ZONE = "TimezoneOffsetFromUTC"
#: Says "01" of a picture that was compressed with loss, now or ever before (PS3.3, C.7.6.1.1.5).
LOSSY = "LossyImageCompression"
STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", ZONE)
TAGS = [
    "PatientID", "SeriesDescription", AGENT, FRAME, "Modality", LOSSY, *PATIENT, *STUDY,
    "SeriesInstanceUID", "SOPInstanceUID", *(tag for tags in ACQUIRED for tag in tags),
]  # fmt: skip


@dataclass(frozen=True)
class DicomFacts:
    """``taken_utc_s``: POSIX seconds of the acquisition, None when the header does not say; ``taken_from``: the tags
    it comes from, with what was assumed. ``agent``: empty when the header names none, which proves nothing.
    ``lossy``: "01" of what was compressed with loss. ``patient``, ``study``: what it says of both, by DICOM's own
    names, without what is empty. ``source``: text of a :class:`.report.dicom.source.Source`, or ``source_unknown`` why
    there is none.
    """

    patient_id: str = ""
    series: str = ""
    agent: str = ""
    frame_uid: str = ""
    series_uid: str = ""
    taken_utc_s: float | None = None
    taken_from: str = ""
    modality: str = ""
    lossy: str = ""
    patient: Mapping[str, str] = field(default_factory=dict)
    study: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    source_unknown: str = ""

    @property
    def metadata(self) -> Mapping[str, str]:
        """For the image: DICOM's own names, without what is empty; the patient is a field of the image."""
        named = {
            "SeriesDescription": self.series,
            "SeriesInstanceUID": self.series_uid,
            AGENT: self.agent,
            FRAME: self.frame_uid,
            TAKEN_FROM: self.taken_from,
            "Modality": self.modality,
            LOSSY: self.lossy,
            SOURCE: self.source,
            UNKNOWN: self.source_unknown,
            **self.study,
        }
        return {key: value for key, value in named.items() if value}

    def contradicts(self, other: Mapping[str, str]) -> str:
        """What two headers say differently of one patient, in words; empty when they agree or do not say.

        ``other``: :attr:`patient` of the other one. Names are left out: they are written in many ways.
        """
        for tag in ("PatientBirthDate", "PatientSex"):
            both = self.patient.get(tag, ""), other.get(tag, "")
            if all(both) and both[0] != both[1]:
                return f"{tag} {both[0]} and {both[1]}"
        return ""


def facts_of(header: Any, frames: Sequence[int] = ()) -> DicomFacts:
    """Facts of one object from its header, with its sequences where it has several frames.

    ``frames``: numbers, from 1, of those that are meant; none for all. Of some, only their own time is believed: that
    of the object is of its first ones.
    """
    return _facts(header, *_enhanced(header, frames), (FRAME_TAKEN,) if frames else (*ACQUIRED, FRAME_TAKEN))


def combined(all_of: Sequence[DicomFacts], name: str) -> DicomFacts:
    """Facts of a series from those of its objects: the earliest time, and agent and loss if any object names them.

    Raises SessionError, with both values, when they contradict one another in what a series can have only once.
    """
    first = all_of[0]
    for other in all_of[1:]:
        different = first.contradicts(other.patient)
        for what in ("patient_id", "series_uid", "frame_uid", "modality"):
            one, two = getattr(first, what), getattr(other, what)
            if one != two:
                different = different or f"{what} '{one}' and '{two}'"
        one, two = (facts.study.get("StudyInstanceUID", "") for facts in (first, other))
        if different or one != two:
            raise SessionError(
                f"{name} is no single series: its headers say {different or f'StudyInstanceUID {one} and {two}'}; "
                "export the series again"
            )
    timed = min((facts for facts in all_of if facts.taken_utc_s is not None), key=_taken_utc_s, default=first)
    agent, lossy = (next((said for said in map(attrgetter(what), all_of) if said), "") for what in ("agent", "lossy"))
    return replace(first, taken_utc_s=timed.taken_utc_s, taken_from=timed.taken_from, agent=agent, lossy=lossy)


def utc_of(text: str, offset: str = "") -> float | None:
    """POSIX seconds of a DICOM date and time ``YYYYMMDDHHMM[SS[.F]][+-ZZZZ]``; None when it is none, or cut off.

    ``offset``: of the file from UTC, as +-HHMM; without any, the clock of this computer is taken.
    """
    found = MOMENT.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    try:
        zone = _zone(found[8] or offset)
        moment = datetime(year, month, day, hour, minute, min(int(found[6] or 0), 59), tzinfo=zone)
        return moment.timestamp() + float(found[7] or 0.0)
    except (ValueError, OverflowError, OSError):
        return None


def local_text(utc_s: float) -> str:
    """A moment as a person reads and enters it: by the clock of this computer, to the second."""
    return datetime.fromtimestamp(utc_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def local_utc_s(text: str, now_s: float | None = None) -> float | None:
    """POSIX seconds of a time that a person entered by the clock of this computer; None for no text: unknown.

    ``YYYY-MM-DD HH:MM[:SS]``, or ``HH:MM[:SS]`` for today. Raises DataError for anything else.
    """
    words = " ".join(text.replace("T", " ").split())
    if not words:
        return None
    if " " not in words:
        words = f"{local_text(time.time() if now_s is None else now_s).split()[0]} {words}"
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            return datetime.strptime(words, form).astimezone().timestamp()
    raise DataError(f"'{text}' is no time: enter it as 2025-01-31 14:05, or as 14:05 for today")


def _facts(header: Any, moment: str, agent: str | None, times: Sequence[tuple[str, ...]]) -> DicomFacts:
    def text(tag: str) -> str:
        value = header.get(tag)
        return "" if value is None else str(value).strip()

    offset = text(ZONE)
    taken, source = None, ""
    for tags in times:
        written = moment if tags == FRAME_TAKEN else "".join(text(tag) for tag in tags)
        taken = utc_of(written, offset)
        if taken is not None:
            zoned = bool(OFFSET.search(written[8:]) or OFFSET.fullmatch(offset))
            source = f"DICOM {' and '.join(tags)}" + ("" if zoned else ", clock of this computer assumed")
            break
    named = "" if agent is None else text(AGENT) or agent
    return DicomFacts(
        patient_id=text("PatientID"),
        series=text("SeriesDescription"),
        agent="" if named.lower() in NO_AGENT else named,
        frame_uid=text(FRAME),
        series_uid=text("SeriesInstanceUID"),
        taken_utc_s=taken,
        taken_from=source,
        modality=text("Modality"),
        lossy=text(LOSSY) if text(LOSSY) == "01" else "",
        patient={tag: text(tag) for tag in PATIENT if text(tag)},
        study={tag: text(tag) for tag in STUDY if text(tag)},
    )


def _taken_utc_s(facts: DicomFacts) -> float:
    return facts.taken_utc_s or 0.0


def _enhanced(header: Any, numbers: Sequence[int]) -> tuple[str, str | None]:
    """Earliest acquisition of these frames of an enhanced object, and its agent; None when they had none yet (PS3.3,
    C.7.6.16.2.2, C.7.6.4b and C.7.6.16.2.12).
    """
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    frames = [frames[number - 1] for number in numbers] if numbers else frames

    def told(sequence: str, tag: str) -> list[str]:
        return [str(item.get(tag) or "") for frame in frames for item in frame.get(sequence) or []]

    given = told("ContrastBolusUsageSequence", "ContrastBolusAgentAdministered")
    if given and set(given) == {"NO"}:
        agent = None
    else:
        agents = header.get("ContrastBolusAgentSequence") or []
        agent = " and ".join(str(agent.get("CodeMeaning") or agent.get("CodeValue") or "") for agent in agents)
    return min((moment for moment in told("FrameContentSequence", FRAME_TAKEN[0]) if moment), default=""), agent


def _zone(offset: str) -> timezone | None:
    """Time zone of +-HHMM; None, which is this computer's, for anything else."""
    found = OFFSET.fullmatch(offset)
    if found is None:
        return None
    minutes = 60 * int(found[2]) + int(found[3])
    return timezone(timedelta(minutes=minutes if found[1] == "+" else -minutes))
