"""A small session with known truth, for what is written of it as DICOM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRILib.report.dicom.case import Case, Structure
from IntraopMRILib.workflow.record import (
    CarriedEntry,
    Event,
    ImplantEntry,
    RegistrationEntry,
    ResidualEntry,
    SessionRecord,
    as_document,
    image_entry,
)
from IntraopMRIReconstructionLib.data import Image, Level, Matrix, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.geometry import apply, rotation_about

PATIENT = "P-17"
#: k, j, i; different, so that an exchange of axes shows.
SHAPE, SPACING = (9, 12, 15), np.array([1.0, 1.25, 2.0])
START_UTC_S = 1_767_225_600.0


def pose() -> Matrix:
    """Intraoperative from preoperative, RAS."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((0.2, 0.9, -0.3), 11.0)
    matrix[:3, 3] = (4.0, -7.0, 2.5)
    return matrix


def grid(directions: npt.NDArray[np.float64], spacing: npt.ArrayLike = SPACING) -> Matrix:
    """``ras_from_ijk`` with these columns."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.asarray(spacing)
    matrix[:3, 3] = (-11.0, 23.0, 5.0)
    return matrix


def places(image: Image) -> npt.NDArray[np.float64]:
    """RAS (k, j, i, 3) of every voxel."""
    k, j, i = np.indices(image.array.shape[:3])
    return apply(image.ras_from_ijk, np.stack([i, j, k], axis=-1).astype(float))


def moved(ras_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The shift at places (..., 3), RAS mm: another one along each axis, linear, so that interpolation is exact."""
    return np.asarray(ras_mm @ np.array([[0.02, 0.0, 0.01], [0.0, -0.03, 0.0], [0.01, 0.02, 0.05]]) + (1.0, -2.0, 3.0))


def scan(directions: npt.NDArray[np.float64], role: str, **changes: Any) -> Image:
    """A volume whose values differ from voxel to voxel."""
    values = np.random.default_rng(len(role)).random(SHAPE).astype(np.float32) * 3.0
    metadata = {"input_sha256": "abc", "method": "fft", "reason": "every line", "parameters": "coils=8", "field_t": "3"}
    image = Image(values, grid(directions), f"T1 {role}", START_UTC_S, PATIENT, f"uid-{role}", metadata)
    return replace(image, **changes)


def verdict(level: Level) -> Verdict:
    return Verdict((Reason("overlap", 95.0, "%", "above 60", level),))


def number(name: str, value: float | None, unit: str = "mm", why: str = "", **more: Any) -> Measurement:
    interval = None if value is None else (value - 0.25, value + 0.75)
    return Measurement(name, value, unit, f"definition of {name}", "a paper", interval, why, **more)


def record_of(*scans: Image, level: Level = Level.GOOD, **changes: Any) -> SessionRecord:
    """A finished session with every kind of result."""
    fixed = scans[-1]
    on = tuple(image.uid for image in scans)
    residual = ResidualEntry(
        number("Residual enhancing tumour", 1.25, "cm3", based_on=on),
        number("Extent of resection", 92.5, "%", based_on=on),
        "3A", "2B", "3A", "subtotal", "RANO classes", "Karschnia",
        other=(number("Not assessed", None, "cm3", "nobody looked"),),
    )  # fmt: skip
    entries = {"accepted": "Dr. A", "rejected": "Dr. B", "open": ""}
    at = "2026-01-01T00:30:00+00:00"
    carried = tuple(
        CarriedEntry(f"{decision} thing", "risk", 3.5, 4.5, 1.5, verdict(Level.GOOD), decision, by, at)
        for decision, by in entries.items()
    )
    screw = ImplantEntry(
        "Screw", 5.5, (1.0, 2.0, 3.0), (1.0, 32.0, 3.0), (2.0, 2.0, 3.0), (3.0, 32.0, 3.0), 0.5,
        "inaccurate", verdict(Level.CHECK),
        (number("Screw: tip deviation", 2.0), number("Screw: angular deviation", 3.0, "deg")),
    )  # fmt: skip
    record = SessionRecord(
        PATIENT,
        "Tumour resection",
        "2026-01-01T00:00:00.000+00:00",
        "2026-01-01T01:00:00.000+00:00",
        operator="Dr. Example",
        events=(Event("2026-01-01T00:20:00+00:00", "confirmed", "good"),),
        images=tuple(image_entry(image, image.uid.removeprefix("uid-")) for image in scans),
        registration=RegistrationEntry(
            fixed.uid, "uid-preop", "rigid", tuple(map(tuple, pose().tolist())), 0.4, verdict(level)
        ),
        residual=residual,
        implants=(screw,),
        carried=carried,
        measurements=(number("Resection cavity", 24.0, "cm3"), number("Last byte to overlay", 9.0, "s")),
        software={"numpy": "2"},
    )
    return replace(record, **changes)


def ball(image: Image, centre_ijk: npt.ArrayLike, radius_mm: float) -> npt.NDArray[np.uint8]:
    away = places(image) - apply(image.ras_from_ijk, np.asarray(centre_ijk, dtype=float))
    return (np.linalg.norm(away, axis=-1) <= radius_mm).astype(np.uint8)


def case(directions: npt.NDArray[np.float64], record: SessionRecord | None = None, **changes: Any) -> Case:
    """Two scans, a preoperative volume, a shift, and two structures, one on a finer grid that reaches beyond."""
    scans = scan(directions, "native"), scan(directions, "contrast")
    record = record or record_of(*scans)
    residual = scans[1].with_array(ball(scans[1], (9, 4, 3), 3.5))
    fine = Image(np.zeros((24, 30, 40), np.uint8), grid(directions, (0.5, 0.5, 0.5)), "tract")
    fine = fine.with_array(ball(fine, (10, 12, 14), 4.0))
    coarse = Image(np.zeros((5, 6, 7)), grid(directions, (3.0, 3.0, 4.0)))
    fields: dict[str, Any] = {
        "document": as_document(record),
        "scans": scans,
        "preoperative": Image(
            scans[0].array, grid(directions), "T1 before", None, PATIENT, "uid-preop", {"Modality": "MR"}
        ),
        "structures": (
            Structure("residual", "Residual enhancing tumour", residual, "contrast minus native"),
            Structure("structure", "Motor tract", fine, "carried over, accepted by Dr. A", by_person=True),
        ),
        "shift": coarse.with_array(moved(places(coarse))),
    }
    return Case(**{**fields, **changes})
