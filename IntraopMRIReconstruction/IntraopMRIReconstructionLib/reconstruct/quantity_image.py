"""Images whose voxels are a quantity: what they are, in which unit, and what that means, in their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..data import Encoding, Image
from .auto import Frame
from .result import Parameter, Reconstruction, provenance_of
from .thermometry import LETHAL_CEM43_MIN, PPM_PER_C

#: Entries of an image's metadata: what its voxels are, their unit, and what that means.
QUANTITY, UNIT, DEFINITION = "quantity", "unit", "definition"
#: Entry of a map of temperature in which tissue has cooled: the change from which that is certain.
COOLED_FROM = "cooled_from_c"
#: Entry of a map of temperature: what it counts from, as a person has said it, with its unit.
BASELINE = "baseline"
DEFINITIONS = {
    "temperature change": "temperature minus that of the reference frame, by the phase of water protons at "
    f"{PPM_PER_C:g} ppm/°C (Ishihara 1995; Rieke and Butts Pauly 2008)",
    "thermal dose (CEM43)": "equivalent minutes at 43 °C since the reference frame: a degree halves the time above, "
    f"and takes it down to a quarter below; {LETHAL_CEM43_MIN:g} min kill most tissues (Sapareto and Dewey 1984)",
    "off-resonance": "frequency of water minus that of the scanner",
}


class Frames(Protocol):
    """A scan whose frames can be had; see :mod:`.collect`."""

    encoding: Encoding

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs that have begun, sorted."""

    def kspace(self, contrast: int = 0, repetition: int = 0) -> Frame:
        """One frame."""


def quantity_result(
    frame: Frame,
    array: npt.NDArray[Any],
    quantity: str,
    unit: str,
    method: str,
    reason: str,
    parameters: dict[str, Parameter],
    warnings: tuple[str, ...],
    maps: dict[str, tuple[npt.NDArray[Any], str, str]],
    said: Mapping[str, str] = MappingProxyType({}),
) -> Reconstruction:
    """A quantity (z, y, x) on the recon grid of ``frame`` with how it came about.

    ``maps``: further ones by name, each (voxels, unit, what they are). ``said``: more metadata of the image itself.
    """
    provenance = provenance_of(frame, method, reason, parameters)
    name = frame.encoding.protocol or frame.encoding.scan_id
    image = Image(
        np.asarray(array, dtype=np.float32),
        frame.encoding.ras_from_ijk,
        f"{name} {quantity}",
        frame.acquired_utc_s,
        frame.encoding.patient_id,
        metadata=provenance | _meaning(quantity, unit) | dict(said),
    )
    extra = {
        key: replace(
            image.with_array(np.asarray(values, dtype=np.float32), f"{name} {what}"),
            metadata=provenance | _meaning(what, of),
        )
        for key, (values, of, what) in maps.items()
    }
    return Reconstruction(image, method, reason, parameters, warnings, provenance, MappingProxyType(extra))


def _meaning(quantity: str, unit: str) -> dict[str, str]:
    defined = {DEFINITION: DEFINITIONS[quantity]} if quantity in DEFINITIONS else {}
    return {QUANTITY: quantity, UNIT: unit} | defined
