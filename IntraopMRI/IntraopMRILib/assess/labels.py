"""What a label must be before a number is taken from it: outlines are drawn by people and come from many tools."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import FILLED, Image
from IntraopMRIReconstructionLib.errors import AssessmentError


def checked_label(label: Image, name: str, may_fill: bool = False) -> npt.NDArray[Any]:
    """Values (k, j, i) of ``label``: whole numbers, zero outside and positive inside.

    ``may_fill``: whether every voxel may be inside, as of a brain; an outline that is everywhere is inverted or none.
    Raises AssessmentError that names what it is instead: NaN, negative values and probabilities would each be counted
    as something else.
    """
    array = np.asarray(label.array)
    if array.ndim != 3:
        raise AssessmentError(f"the {name} must be one label (k, j, i), got shape {array.shape}: choose one segment")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise AssessmentError(f"the {name} contains values that are not finite: segment it again")
        if (array != np.rint(array)).any():
            raise AssessmentError(
                f"the {name} has values between whole numbers, such as probabilities: choose a threshold first"
            )
    elif array.dtype.kind not in "biu":
        raise AssessmentError(f"the {name} must hold whole numbers, got {array.dtype}: choose one segment")
    if array.dtype.kind in "fi" and (array < 0).any():
        raise AssessmentError(f"the {name} has negative values (to {array.min():g}): a label is 0 outside, 1 inside")
    if not may_fill and array.all():
        raise AssessmentError(f"the {name} fills its whole volume: it is inverted or no outline, segment it again")
    return array


def filled_because(cavity: Image) -> str:
    """Why nothing that rests on the border of the ``cavity`` is given, in words; empty where all of it is fluid."""
    filled_cm3 = float(np.count_nonzero(cavity.array == FILLED)) * cavity.voxel_volume_ml
    if not filled_cm3:
        return ""
    return f"at least {filled_cm3:.1f} cm3 of the cavity hold clot or packing, whose border is not seen"
