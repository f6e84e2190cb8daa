"""A registration as the scene keeps it: in the attributes of its transform node, so that a loaded scene still knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level, Matrix, Reason, Verdict, checked_affine
from IntraopMRIReconstructionLib.errors import DataError


@dataclass(frozen=True, eq=False)
class Registration:
    """An accepted registration: the transform, its verdict, and the uid of the intraoperative image it belongs to."""

    intraop_from_preop: Matrix
    verdict: Verdict
    image_uid: str
    uid: str


def described(registration: Registration) -> dict[str, str]:
    """Attributes of the transform node."""
    reasons = [{**vars(reason), "level": reason.level.value} for reason in registration.verdict.reasons]
    return {
        "Uid": registration.uid,
        "ImageUid": registration.image_uid,
        "Verdict": registration.verdict.level.value,
        "Reasons": json.dumps(reasons),
    }


def readRegistration(matrix: npt.ArrayLike, attributes: Mapping[str, str]) -> Registration | None:
    """What :func:`described` wrote; None when it is not all there, since then nobody can tell what is confirmed."""
    try:
        reasons = tuple(
            Reason(**{**entry, "level": Level(entry["level"])}) for entry in json.loads(attributes["Reasons"])
        )
        rigid = checked_affine(matrix, "loaded intraop_from_preop")
        return Registration(rigid, Verdict(reasons), attributes["ImageUid"], attributes["Uid"])
    except (KeyError, TypeError, ValueError, DataError):
        return None
