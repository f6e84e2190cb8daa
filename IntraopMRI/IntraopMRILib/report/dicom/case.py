"""What the DICOM objects of one session are made from, whose they are, and what all of them share.

A UID is derived from the session and from the content that it names: the same record gives the same UIDs, and other
content never comes under an old one. Nothing is written for a patient who is not known, and no identifier is invented.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydicom
from IntraopMRIReconstructionLib.data import ORTHONORMAL_TOLERANCE, Image, Matrix
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS

from .source import UNKNOWN, Source, source_of

Document = Mapping[str, Any]
Kind = Literal["residual", "resected", "cavity", "structure"]

MANUFACTURER, MODEL, RESEARCH = "IntraopMRI", "IntraopMRI for 3D Slicer", "Research use only, not for clinical use."
#: Of this extension, said here alone.
VERSION = "0.1.0"
#: UIDs of this extension are UUIDs (ITU-T X.667) of this name space.
NAMESPACE = uuid.UUID("6f1d3a52-0c0b-5a3e-9a57-3d1c8f6f2b10")
#: What stands where an identifier should, and names nobody.
NOBODY = ("unknown", "none", "n/a", "na", "anonymous", "anonymized", "anon", "null", "nil", "?", "-", "0", "patient")
#: An identifier (VR LO, PS3.5 6.2) has at most this many characters.
LONGEST_ID = 64
#: Facts that a patient's and a study's headers carry, by DICOM's own names.
STUDY_FACTS = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
FRAME, ZONE = "FrameOfReferenceUID", "TimezoneOffsetFromUTC"


@dataclass(frozen=True, eq=False)
class Structure:
    """A label (0 outside) in the frame of the registered scan. ``method``: the algorithm in words.

    ``by_person``: outlined or accepted by a person on the way, so not the work of an algorithm alone.
    """

    kind: Kind
    name: str
    label: Image
    method: str
    by_person: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One session. ``document``: its record as plain dictionaries; ``scans``: its intraoperative volumes, RAS.

    ``preoperative``: the registered preoperative volume; its voxels are written only when its metadata say that it is
    MR and it is no DICOM series as it stands. ``shift``: (k, j, i, 3) RAS mm on a grid of the registered scan, which
    shows at y what the rigid pose alone would put at y + shift(y); None when not followed. ``originals``: series that
    volumes came as and still are, by the uid of each; None: those that :meth:`.source.Source.difference` finds so.
    Raises DataError for a patient who is not known, or when something belongs to another one or another session.
    """

    document: Document
    scans: Sequence[Image]
    preoperative: Image | None = None
    structures: Sequence[Structure] = ()
    shift: Image | None = None
    originals: Mapping[str, Source] | None = None
    #: Why a volume that came as DICOM is no original any more, by its uid.
    changed: Mapping[str, str] = field(init=False)
    frames: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        patient = checked_patient_id(str(self.document.get("patient_id", "")))
        known = {entry["uid"] for entry in self.document["images"]}
        for image in self.scans:
            if image.uid not in known:
                raise DataError(f"the volume '{image.name}' is not of this session: its record does not name it")
            if image.metadata.get("Modality", "MR") != "MR":
                raise DataError(
                    f"'{image.name}' is of modality {image.metadata['Modality']}: only MR is written as DICOM"
                )
        volumes = (*self.scans, *(() if self.preoperative is None else (self.preoperative,)))
        for image in volumes:
            if image.patient_id and image.patient_id != patient:
                raise DataError(
                    f"'{image.name}' is of patient '{image.patient_id}', the session of '{patient}': no DICOM "
                    "object is written until that is clear"
                )
        if not self.scans:
            raise DataError("the session has no intraoperative volume: there is nothing to write as DICOM")
        changed = {image.uid: image.metadata[UNKNOWN] for image in volumes if UNKNOWN in image.metadata}
        if self.originals is None:
            came_as = {image.uid: source_of(image.metadata) for image in volumes}
            changed |= {i.uid: source.difference(i) for i in volumes if (source := came_as[i.uid]) is not None}
            kept = {uid: source for uid, source in came_as.items() if source is not None and not changed[uid]}
            object.__setattr__(self, "originals", kept)
        object.__setattr__(self, "changed", {uid: why for uid, why in changed.items() if why})
        object.__setattr__(self, "frames", _frames(self))

    @property
    def registration(self) -> Document | None:
        """The registration that counts; None without one or when it was refused."""
        found = self.document.get("registration")
        if found is None or any(r["level"] == "refused" for r in found["verdict"]["reasons"]):
            return None
        return found if found["verdict"]["reasons"] else None

    @property
    def scan(self) -> Image:
        """The scan that was registered, also when that was refused; the newest one without a registration."""
        fixed = (self.document.get("registration") or {}).get("fixed_uid", "")
        return next((image for image in self.scans if image.uid == fixed), self.scans[-1])

    @property
    def writes_preoperative(self) -> bool:
        """Whether the preoperative volume needs objects of its own."""
        image = self.preoperative
        return image is not None and image.metadata.get("Modality") == "MR" and self.original(image) is None

    @property
    def preop_frame(self) -> str:
        """Frame of reference of the preoperative volume, which has objects or a header that names it; else empty."""
        if self.preoperative is None:
            return ""
        named = self.named_frame(self.preoperative)
        return named or (self.uid("frame", self.preoperative.uid) if self.writes_preoperative else "")

    def original(self, image: Image) -> Source | None:
        """The series that the volume came as, when it is that still."""
        return (self.originals or {}).get(image.uid)

    def named_frame(self, image: Image) -> str:
        """Frame of reference by the header; empty when none is named, or the volume may have been moved since."""
        original, source = self.original(image), source_of(image.metadata)
        if original is not None:
            return original.frame_uid
        moved = UNKNOWN in image.metadata or (source is not None and not source.holds_frame(image))
        return "" if moved else image.metadata.get(FRAME, "")

    def uid(self, *parts: str | bytes) -> str:
        """A UID of this session for what ``parts`` say."""
        digest = sha256(f"{self.document['patient_id']}|{self.document['started_utc']}".encode())
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)
        return f"2.25.{uuid.uuid5(NAMESPACE, digest.hexdigest()).int}"

    def series_uid(self, image: Image) -> str:
        """Of the series of a volume."""
        return self.uid("series", image.uid)

    @property
    def study(self) -> dict[str, str]:
        """Of the study that the registered scan is in, or of one of this session's own; by DICOM's names."""
        named = {key: self.scan.metadata.get(key, "") for key in STUDY_FACTS}
        if named["StudyInstanceUID"]:
            return named
        started = datetime.fromisoformat(self.document["started_utc"])
        return {
            "StudyInstanceUID": self.uid("study"),
            "StudyDate": started.astimezone(self.zone).strftime("%Y%m%d"),
            "StudyTime": started.astimezone(self.zone).strftime("%H%M%S"),
            "StudyID": "",
            "AccessionNumber": "",
        }

    @property
    def zone(self) -> tzinfo | None:
        """By whose clock times are written: the study's where it has one, this computer's where that does not say."""
        metadata = self.scan.metadata
        if not metadata.get("StudyInstanceUID"):
            return UTC
        offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", metadata.get(ZONE, ""))
        if offset is None:
            return None
        minutes = 60 * int(offset[2]) + int(offset[3])
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))

    def moment(self, utc: str) -> tuple[str, str]:
        """DICOM date and time of an ISO 8601 text."""
        at = datetime.fromisoformat(utc).astimezone(self.zone)
        return at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")

    @property
    def made(self) -> tuple[str, str]:
        """Date and time of the content: when the session ended, or began."""
        return self.moment(self.document.get("finished_utc") or self.document["started_utc"])

    @property
    def software(self) -> list[str]:
        """Name and version of this extension and of what computed the numbers."""
        used = {"IntraopMRI": VERSION, **self.document.get("software", {})}
        return [f"{name} {version}"[:64] for name, version in used.items()]


def checked_patient_id(patient_id: str) -> str:
    """The identifier as it may be written. Raises DataError for one that names nobody, or that DICOM cannot hold."""
    found = patient_id.strip()
    if not found or found.lower() in NOBODY or not found.strip("xX?*-_. "):
        raise DataError(
            f"the patient identifier is '{patient_id}', which names nobody: no DICOM object is written for an unknown "
            "patient; enter the identifier and repeat"
        )
    if len(found) > LONGEST_ID or "\\" in found or not found.isprintable():
        raise DataError(
            f"the patient identifier '{found[:80]}' cannot stand in DICOM: at most {LONGEST_ID} printable characters "
            "without a backslash"
        )
    return found


def header(case: Case, sop_class: str, sop_uid: str, modality: str, series: tuple[str, int, str]) -> Dataset:
    """What every object of the session says: patient, study, series (uid, number, description), equipment, itself."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = sop_uid
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = sop_class, sop_uid
    made.Modality = modality
    made.SeriesInstanceUID, made.SeriesNumber, made.SeriesDescription = series[0], series[1], series[2][:64]
    made.InstanceNumber = 1
    made.ContentDate, made.ContentTime = made.SeriesDate, made.SeriesTime = case.made
    identify(case, made)
    return made


def identify(case: Case, made: Dataset) -> None:
    """Write patient, study and equipment into an object, over whatever it says of them."""
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientID = checked_patient_id(case.document["patient_id"])
    known = case.document.get("patient", {})
    made.PatientName = person_name(known.get("PatientName", ""))
    made.PatientBirthDate, made.PatientSex = known.get("PatientBirthDate", ""), known.get("PatientSex", "")
    if known.get("IssuerOfPatientID"):
        made.IssuerOfPatientID = known["IssuerOfPatientID"]
    for key, value in case.study.items():
        setattr(made, key, value)
    made.ReferringPhysicianName = ""
    if case.zone is UTC:
        made.TimezoneOffsetFromUTC = "+0000"
    made.Manufacturer, made.ManufacturerModelName = MANUFACTURER, MODEL
    made.DeviceSerialNumber = "none"
    made.SoftwareVersions = case.software
    if case.document.get("site"):
        made.InstitutionName = case.document["site"][:64]
    # The whole of it is research: an archive can filter by this code, also where the object does not require it.
    made.ContentQualification = "RESEARCH"
    now = datetime.now(case.zone)
    made.InstanceCreationDate, made.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S.%f")


def person_name(name: str) -> str:
    """A name (VR PN). One component ends in a caret: nobody said which of its words is the family name."""
    return f"{name}^" if name and "^" not in name else name


def decimals(values: npt.ArrayLike) -> list[DS]:
    """Numbers as decimal strings, as exact as 16 characters are."""
    return [pydicom.valuerep.DSfloat(float(v) + 0.0, auto_format=True) for v in np.ravel(np.asarray(values))]


def lps_grid(image: Image) -> tuple[Matrix, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """``lps_from_ijk`` (4, 4), unit directions of i, j, k as columns (3, 3) in LPS, spacing (3,) mm.

    Raises DataError for axes that are not at right angles: DICOM planes cannot say that.
    """
    lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
    axes = lps_from_ijk[:3, :3] / image.spacing_mm
    sheared = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if sheared > ORTHONORMAL_TOLERANCE:
        raise DataError(f"the axes of '{image.name}' are sheared by {sheared:.3g}: DICOM cannot hold that; resample it")
    return lps_from_ijk, axes, np.asarray(image.spacing_mm)


def _frames(case: Case) -> dict[str, str]:
    """Frame of reference of each scan by its uid: as its header names it, else one of its own.

    Two scans share one only when the session found the patient in the same position in both: when a residual rests on
    them. Equal coordinates of others need not be the same place.
    """
    residual = case.document.get("residual")
    given = residual is not None and residual["volume"]["value"] is not None
    together = tuple(residual["volume"]["based_on"]) if residual is not None and given else ()
    lead = next((image.uid for image in case.scans if image.uid in together), "")
    named = {image.uid: case.named_frame(image) for image in case.scans}
    pair = next((frame for uid, frame in named.items() if uid in together and frame), "")
    return {
        uid: frame or (pair if uid in together else "") or case.uid("frame", lead if uid in together else uid)
        for uid, frame in named.items()
    }
