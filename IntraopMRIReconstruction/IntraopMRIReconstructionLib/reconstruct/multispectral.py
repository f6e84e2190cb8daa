"""Scans beside metal whose contrasts are parts of one image: spectral bins (MAVRIC) and slice-encoding steps (SEMAC).

What a header has to say of them is in :mod:`.metal`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Progress
from ..errors import ReconstructionError
from ..operators.fourier import image_from_kspace
from . import metal
from .auto import Options, Phased, phased, reconstruct, refuse_snr_units
from .quantity_image import Frames, quantity_result
from .result import Parameter, Reconstruction, stepping
from .unmixing import Calibrations

#: Slices and encoded planes lie at the same places within this part of their distance.
SAME_DISTANCE = 0.01


def bins_together(
    scan: Frames, method: str, options: Options | None, progress: Progress, threads: int
) -> Reconstruction:
    """One image of all spectral bins of the newest repetition, and the off-resonance as a map.

    Raises ReconstructionError as :func:`.auto.reconstruct`, and when the header's centres are no numbers.
    """
    refuse_snr_units(options)
    encoding = scan.encoding
    centres = metal.bin_centres_hz(encoding)
    repetition = max(r for _, r in scan.frames)
    bins: list[Reconstruction] = []
    for number in range(encoding.contrasts):

        def part(fraction: float, what: str, number: int = number) -> bool:
            return progress((number + fraction) / len(centres), f"bin {number + 1} of {len(centres)}, {what}")

        bins.append(reconstruct(scan.kspace(number, repetition), method, part, threads, options))
    order = np.argsort(centres)
    stack = np.stack([bins[number].image.array for number in order])
    # Voxels outside the object are those that no bin shows brighter than a tenth of the brightest.
    noise = float(np.percentile(stack.max(axis=0), 99)) * 0.1 / 3
    found = metal.mavric(stack, centres[order], noise)
    parameters: dict[str, Parameter] = {"bin_centres_hz": " ".join(f"{c:g}" for c in centres[order])}
    return quantity_result(
        scan.kspace(0, repetition), found.magnitude, "magnitude", "", f"multi-spectral ({bins[0].method})",
        f"the header names {len(bins)} spectral bins: root of the sum of their squares; each: {bins[0].reason}",
        parameters | dict(bins[0].parameters), _warnings(bins), {"off-resonance": (found.hz, "Hz", "off-resonance")},
    )  # fmt: skip


def slices_in_place(
    scan: Frames, method: str, options: Options | None, progress: Progress, threads: int
) -> Reconstruction:
    """The slices of a SEMAC scan, newest repetition, with the signal that metal moved across them back in its place.

    Its contrasts are the steps of the slice encoding, centre step N // 2. Raises ReconstructionError for a method that
    keeps no phase, and when slices and encoded planes are not equally far apart.
    """
    encoding = scan.encoding
    steps, spacing = encoding.contrasts, float(np.linalg.norm(encoding.ras_from_ijk[:3, 2]))
    fov_mm = metal.semac_fov_mm(encoding)
    if abs(fov_mm / steps - spacing) > SAME_DISTANCE * spacing:
        raise ReconstructionError(
            f"SEMAC needs encoded planes as far apart as the slices ({spacing:.3g} mm), got {steps} steps over "
            f"{fov_mm:g} mm, which are {fov_mm / steps:.3g} mm apart: check the header"
        )
    repetition = max(r for _, r in scan.frames)
    calibrations = Calibrations(refresh_after_s=float("inf"))
    images: dict[int, Phased] = {}
    # The centre first: it has the signal that the weights of all steps are made from.
    for order, number in enumerate(sorted(range(steps), key=lambda step: abs(step - steps // 2))):

        def part(fraction: float, what: str, order: int = order) -> bool:
            return progress((order + fraction) / (steps + 1), f"step {order + 1} of {steps}, {what}")

        images[number] = phased(scan.kspace(number, repetition), calibrations, method, part, threads, options)
    stepping(progress)(steps / (steps + 1), "slices")
    encoded = np.stack([images[number].array for number in range(steps)])
    # The mean, not the orthonormal sum: a slice is as bright as that of a plain scan.
    planes = image_from_kspace(encoded, (0,), threads) / np.float32(np.sqrt(steps))
    array = metal.semac(np.moveaxis(planes, 0, 1), 0, encoding.recon_matrix[0])
    centre = images[steps // 2]
    covered = (steps // 2 - 0.5) * spacing
    parameters: dict[str, Parameter] = {"slice_encoding_steps": steps, "covered_mm": round(covered, 1)}
    return quantity_result(
        scan.kspace(steps // 2, repetition), array, "magnitude", "", f"SEMAC ({centre.method})",
        f"the header names {steps} steps of slice encoding, which put signal that metal moved by up to "
        f"{covered:.1f} mm across slices back; each: {centre.reason}",
        parameters | dict(centre.parameters), _warnings([centre]), {}, {metal.COVERED: f"{covered:g}"},
    )  # fmt: skip


def _warnings(parts: Sequence[Reconstruction | Phased]) -> tuple[str, ...]:
    """Those of all parts, each once; that a part is no image of its own holds no longer."""
    said = dict.fromkeys(text for each in parts for text in each.warnings)
    return tuple(text for text in said if not text.endswith(metal.PART))
