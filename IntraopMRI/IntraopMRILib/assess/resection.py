"""Extent of resection, the RANO class that rests on the absolute residual, and the resection cavity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.errors import AssessmentError
from scipy import ndimage

from .labels import checked_label, filled_because

RANO_SOURCE = "Karschnia et al., Neuro-Oncology 2023, doi 10.1093/neuonc/noac193"
RANO_DEFINITION = (
    "RANO resect class from the absolute residual in cm3 (CE contrast-enhancing, nCE non-enhancing): "
    "1 CE = 0 and nCE ≤ 5; 2A CE = 0 and nCE > 5; 2B 0 < CE ≤ 1; 3A 1 < CE ≤ 5; 3B CE > 5; 4 no reduction"
)
#: Supramaximal resection leaves no more than this of the non-enhancing tumour, cm3.
MOST_NCE_CM3 = 5.0
NOT_ASSESSED = "1 or 2A"
_NAMES = {
    "1": "supramaximal CE resection",
    "1 or 2A": "supramaximal or complete CE resection, non-enhancing residual not assessed",
    "2A": "complete CE resection",
    "2B": "near total CE resection",
    "3A": "subtotal CE resection",
    "3B": "partial CE resection",
    "4": "biopsy, no reduction",
}


@dataclass(frozen=True)
class RanoClass:
    """The class of the measured residual, and the best and worst class that its interval allows."""

    value: str
    best: str
    worst: str
    definition: str = RANO_DEFINITION
    source: str = RANO_SOURCE

    @property
    def meaning(self) -> str:
        """The class in words."""
        return _NAMES[self.value]

    @property
    def text(self) -> str:
        """The class, with the range over the interval when it is not certain."""
        if self.best == self.worst:
            return f"RANO class {self.value}"
        return f"RANO class {self.value} ({self.best} to {self.worst} over the interval)"


def rano_class(
    ce_cm3: float,
    preop_ce_cm3: float,
    ce_interval_cm3: tuple[float, float] | None = None,
    nce_cm3: float | None = None,
) -> RanoClass:
    """Classify a contrast-enhancing residual (cm3); ``nce_cm3`` None when the non-enhancing part was not assessed.

    Raises AssessmentError for volumes that cannot be. Source: Karschnia et al. 2023.
    """
    low, high = ce_interval_cm3 or (ce_cm3, ce_cm3)
    _require_volumes(
        {
            "CE residual": ce_cm3,
            "preoperative CE": preop_ce_cm3,
            "nCE residual": 0.0 if nce_cm3 is None else nce_cm3,
            "least CE residual": low,
            "largest CE residual": high,
        }
    )
    if not preop_ce_cm3 > 0:
        raise AssessmentError("the class needs enhancing tumour before surgery, its volume is 0 cm3: segment it")
    if not low <= ce_cm3 <= high:
        raise AssessmentError(f"the interval {low:g} to {high:g} cm3 does not hold the residual of {ce_cm3:g} cm3")
    return RanoClass(*(_class(v, preop_ce_cm3, nce_cm3) for v in (ce_cm3, low, high)))


def with_non_enhancing(rano: RanoClass, nce: Measurement) -> RanoClass:
    """The class when the non-enhancing residual, cm3 with interval, is assessed after the enhancing one.

    Raises AssessmentError for a measurement without a volume.
    """
    if nce.value is None or nce.unit != "cm3":
        raise AssessmentError(f"the class needs a volume in cm3, got '{nce.name}' {nce.value} {nce.unit}")
    low, high = nce.interval or (nce.value, nce.value)
    _require_volumes({"nCE residual": nce.value, "least nCE residual": low, "largest nCE residual": high})
    classes = ((rano.value, nce.value), (rano.best, low), (rano.worst, high))
    return RanoClass(*(_without_ce(volume) if name == NOT_ASSESSED else name for name, volume in classes))


def extent_of_resection(
    preop_cm3: float,
    residual_cm3: float,
    interval_cm3: tuple[float, float] | None,
    based_on: tuple[str, ...] = (),
    of: str = "enhancing tumour",
) -> Measurement:
    """EOR % = 100 (V_pre - V_residual) / V_pre, volumes in cm3; not below 0.

    ``of``: what both volumes are of, such as 'non-enhancing tumour (FLAIR)'; the name says it unless it is enhancing.
    Raises AssessmentError when there was no tumour to resect.
    """
    if not preop_cm3 > 0:
        raise AssessmentError(
            f"the preoperative tumour volume must be positive, got {preop_cm3} cm3: segment the tumour"
        )
    low, high = interval_cm3 or (residual_cm3, residual_cm3)
    _require_volumes(
        {"preoperative": preop_cm3, "residual": residual_cm3, "least residual": low, "largest residual": high}
    )

    def percent(residual: float) -> float:
        return max(0.0, 100.0 * (preop_cm3 - residual) / preop_cm3)

    return Measurement(
        name="Extent of resection" if of == "enhancing tumour" else f"Extent of resection, {of}",
        value=percent(residual_cm3),
        unit="%",
        definition=f"100 x (V_pre - V_residual) / V_pre of the {of}, V_pre = {preop_cm3:.2f} cm3",
        source=RANO_SOURCE,
        interval=None if interval_cm3 is None else (percent(interval_cm3[1]), percent(interval_cm3[0])),
        based_on=based_on,
    )


def cavity_volume(cavity: Image, based_on: tuple[str, ...] = ()) -> Measurement:
    """Volume of a segmented resection cavity (label, k j i) with +-1 voxel at its boundary.

    Without value when the label is empty, none was found, which is not the same as nothing resected; and where clot or
    packing fills a part of it (label 2). Raises AssessmentError for what is no label.
    """
    inside = checked_label(cavity, "resection cavity") != 0
    name, definition = (
        "Resection cavity",
        (
            "Dark now and tissue in the carried-over preoperative volume (fluid, air; none is given where clot or "
            "packing fills it); interval: 1 voxel at the boundary"
        ),
    )
    missing = filled_because(cavity) if inside.any() else "no cavity was found"
    if missing:
        return Measurement(name, None, "cm3", definition, missing_because=missing, based_on=based_on)
    counts = [ndimage.binary_erosion(inside).sum(), inside.sum(), ndimage.binary_dilation(inside).sum()]
    low, volume, high = (float(count) * cavity.voxel_volume_ml for count in counts)
    return Measurement(name, volume, "cm3", definition, interval=(low, high), based_on=based_on)


def _require_volumes(volumes_cm3: dict[str, float]) -> None:
    for name, value in volumes_cm3.items():
        if not (np.isfinite(value) and value >= 0):
            raise AssessmentError(f"the {name} volume must be finite and not negative, got {value} cm3")


def _class(ce: float, preop: float, nce: float | None) -> str:
    if ce >= preop > 0:
        return "4"
    if ce > 5.0:
        return "3B"
    if ce > 1.0:
        return "3A"
    if ce > 0.0:
        return "2B"
    return _without_ce(nce)


def _without_ce(nce: float | None) -> str:
    if nce is None:
        return NOT_ASSESSED
    return "2A" if nce > MOST_NCE_CM3 else "1"
