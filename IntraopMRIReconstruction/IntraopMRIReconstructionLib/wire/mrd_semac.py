"""SEMAC as scanners write it: slices, each encoded along its normal by kspace_encode_step_2.

The rooms know it as slices whose contrasts are the steps of that encoding, see :mod:`.raw_data`; a scan that is written
so passes unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..data import ASSUMED, AnyArray
from ..errors import WireError
from .mrd_header import OWN_PARAMETERS, Limit, MrdHeader, Space

#: Entry of the encoding's metadata and the user parameter that names a scan SEMAC.
SEMAC_FOV_MM = "semac_fov_mm"
SEMAC_PARAMETER = OWN_PARAMETERS[SEMAC_FOV_MM]

#: Fewer steps put no signal back, and two slabs of two partitions that lie so overlap by half, as slabs may.
LEAST_STEPS = 3

#: Slices lie as far apart as the planes of their encoding to this part: positions and fields of view are rounded.
APART_TOLERANCE = 0.02


@dataclass(frozen=True)
class SliceSteps:
    """``count`` steps over ``fov_mm``; a readout's step_2 plus ``shift`` is its contrast, N // 2 the central one.

    ``known_by``: why the scan is taken for SEMAC, in words, beginning with ``ASSUMED`` where its header leaves it open.
    ``mirrored``: the phase of the data turns the other way, so that the steps count backwards.
    """

    count: int
    fov_mm: float
    known_by: str
    shift: int = 0
    mirrored: bool = False

    def as_contrasts(self, heads: AnyArray, rows: npt.NDArray[np.bool_]) -> AnyArray:
        """Heads (a copy) of which the ``rows``, those of the image, have their step as their contrast.

        Raises WireError for a step that the header does not have.
        """
        result = heads.copy()
        steps = heads["idx"]["kspace_encode_step_2"][rows].astype(np.int64) + self.shift
        wrong = steps[(steps < 0) | (steps >= self.count)]
        if len(wrong):
            raise WireError(
                f"kspace_encode_step_2 {wrong[0] - self.shift} lies outside the {self.count} steps of slice encoding "
                "in the header: wrong header or damaged data"
            )
        if self.mirrored:
            steps = (2 * (self.count // 2) - steps) % self.count
        result["idx"]["contrast"][rows] = steps
        return result


def flattened(
    header: MrdHeader, space: Space, kspace_sign: int, apart_mm: float = 0.0
) -> tuple[Space, SliceSteps | None]:
    """The space of the slices alone and their steps of encoding; the space itself and None when it is not SEMAC.

    It is when there are several slices and several encoded partitions, and the reconstructed matrix has one partition,
    which no volume has, or slices lie as far apart as encoded partitions (``apart_mm``, 0 when not known), where
    slabs would lie in one another, or the user parameter ``IntraopMRISemacFov_mm`` says so. Where nothing but the
    distance speaks for it, that is said as an assumption. Raises WireError for what cannot be put in place.
    """
    count, fov_mm = space.encoded_matrix[0], space.encoded_fov_mm[0]
    said = header.user_parameters.get(SEMAC_PARAMETER, "")
    if count == 1 and said and kspace_sign > 0:
        raise WireError("steps of slice encoding (SEMAC) that are written as contrasts are read with kspace_sign -1")
    interleaved = abs(apart_mm - fov_mm / count) <= APART_TOLERANCE * fov_mm / count
    if count < 2 or space.count("slice") < 2:
        return space, None
    if said:
        known_by = f"slices with {count} steps of slice encoding (SEMAC): the header says so"
    elif space.recon_matrix[0] == 1:
        known_by = f"slices with {count} steps of slice encoding (SEMAC): one partition of each is reconstructed"
    elif is_open(header, space) and interleaved:
        known_by = (
            f"{ASSUMED} to be SEMAC: slices lie as far apart as the {count} partitions of each ({apart_mm:.3g} mm), "
            f"where slabs would lie in one another; the header does not say ({SEMAC_PARAMETER})"
        )
    else:
        return space, None
    if space.trajectory != "cartesian":
        raise WireError(
            f"slice encoding (SEMAC) of a {space.trajectory} scan cannot be read: it is for Cartesian lines"
        )
    if space.count("contrast") > 1 or space.acceleration[0] > 1:
        raise WireError(
            f"slice encoding (SEMAC) is read with one contrast and every step, got {space.count('contrast')} contrasts "
            f"and an acceleration of {space.acceleration[0]} along the slices"
        )
    limit = space.limits.get("kspace_encoding_step_2") or Limit(0, count - 1, count // 2)
    shift = count // 2 - limit.centre
    if limit.minimum + shift < 0 or limit.maximum + shift >= count:
        raise WireError(f"MRD header: limits of kspace_encoding_step_2 do not fit into {count} steps: {limit}")
    limits = {name: value for name, value in space.limits.items() if name != "kspace_encoding_step_2"}
    slices = replace(
        space,
        encoded_matrix=(1, *space.encoded_matrix[1:]),
        recon_matrix=(1, *space.recon_matrix[1:]),
        encoded_fov_mm=(fov_mm / count, *space.encoded_fov_mm[1:]),
        recon_fov_mm=(fov_mm / count, *space.recon_fov_mm[1:]),
        limits=limits | {"contrast": Limit(0, count - 1, count // 2)},
    )
    return slices, SliceSteps(count, fov_mm, known_by, shift, kspace_sign > 0)


def is_open(header: MrdHeader, space: Space) -> bool:
    """Whether nothing but the places of all slices tells SEMAC from slabs."""
    said = header.user_parameters.get(SEMAC_PARAMETER, "")
    several = space.encoded_matrix[0] >= LEAST_STEPS and space.count("slice") > 1
    return several and space.recon_matrix[0] > 1 and not said and space.trajectory == "cartesian"


def slices_apart_mm(images: AnyArray) -> float:
    """Distance of the readouts' slices along their normal, 0 when there is one slice or no even stack."""
    _, first = np.unique(images["idx"]["slice"], return_index=True)
    with np.errstate(invalid="ignore", over="ignore"):
        heights = np.sort((images["position"] * images["slice_dir"])[first].astype(np.float64).sum(axis=1))
        steps = np.diff(heights)
        even = len(steps) and np.ptp(steps) <= APART_TOLERANCE * steps.mean()
    return float(steps.mean()) if even else 0.0


def refuse_hidden_steps(images: AnyArray) -> None:
    """Raise WireError when lines of a 2D scan differ in nothing but kspace_encode_step_2: they would overwrite one
    another."""
    idx = images["idx"]
    if not np.ptp(idx["kspace_encode_step_2"]):
        return
    names = ("slice", "kspace_encode_step_1", "contrast", "repetition", "average", "kspace_encode_step_2")
    counters = np.column_stack([idx[name] for name in names])
    lines, partitions = (len(np.unique(counters[:, :width], axis=0)) for width in (5, 6))
    if lines != partitions:
        last = int(idx["kspace_encode_step_2"].max())
        raise WireError(
            f"slices are encoded along their normal (kspace_encode_step_2 up to {last}), but the encoded matrix has "
            "one partition: a scan with slice encoding (SEMAC) has as many partitions in its encoded matrix as steps"
        )
