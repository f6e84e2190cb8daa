"""One door to every Cartesian reconstruction: chooses the method from the data, says why, and keeps the provenance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..data import Image, KSpace, Progress, no_progress
from ..errors import ReconstructionError
from ..operators.fourier import resized
from ..operators.sampling import Sampling, describe
from .cartesian import root_sum_of_squares
from .grid import with_recon_matrix
from .result import Parameter, Reconstruction, provenance_of, stepping

#: Methods that :func:`reconstruct` accepts besides "auto".
METHODS = ("fft",)
#: Longest side of a preview along (z, y, x): enough to see what is being imaged.
PREVIEW_MATRIX = (32, 64, 64)


def choose(sampling: Sampling) -> tuple[str, str]:
    """(method, reason in words) for a sampling pattern."""
    if sampling.kind == "full":
        return "fft", "every line was acquired"
    return "fft", f"the sampling is {sampling.kind}"


def reconstruct(
    kspace: KSpace, method: str = "auto", progress: Progress = no_progress, threads: int = 2
) -> Reconstruction:
    """Reconstruct one frame into a magnitude volume on the recon grid.

    Raises ReconstructionError when the data do not allow the method, and Cancelled as soon as ``progress`` returns
    False.
    """
    if method != "auto" and method not in METHODS:
        raise ReconstructionError(f"method must be auto or one of {', '.join(METHODS)}, got '{method}'")
    step = stepping(progress)
    sampling = describe(kspace.acquired, kspace.encoding.is_3d)
    chosen, reason = choose(sampling)
    if method != "auto":
        chosen, reason = method, "chosen by hand"
    warnings = list(kspace.warnings)
    if len(sampling.missing):
        warnings.append(f"{len(sampling.missing)} planned lines are missing and count as zero")
    step(0.0, chosen)
    magnitude = root_sum_of_squares(kspace.samples, kspace.encoding, step, threads)
    step(1.0, "done")
    return _wrapped(kspace, magnitude, chosen, reason, {"combination": "rss"}, warnings)


def preview(kspace: KSpace, threads: int = 2) -> Reconstruction:
    """A quick, coarse volume from the centre of k-space, on its own coarse grid in the right place.

    Uses the fully sampled centre block when there is one, else the middle lines with gaps as zeros (a warning says
    so). For the screen while lines arrive, never to measure on.
    """
    encoding = kspace.encoding
    sampling = describe(kspace.acquired, encoding.is_3d)
    sizes = []
    for axis, limit in enumerate(PREVIEW_MATRIX):
        size = min(limit, encoding.encoded_matrix[axis]) if axis or encoding.is_3d else encoding.encoded_matrix[0]
        block = sampling.calibration_lines[axis] if axis < 2 and (axis or encoding.is_3d) else 0
        sizes.append(min(size, block) if block >= limit // 4 else size)
    matrix = (sizes[0], sizes[1], sizes[2])
    cut = resized(kspace.samples, matrix)
    recon = tuple(
        max(1, round(encoding.recon_matrix[axis] * matrix[axis] / encoding.encoded_matrix[axis])) for axis in range(3)
    )
    coarse = with_recon_matrix(encoding, (recon[0], recon[1], recon[2]))
    gain = np.float32(np.sqrt(np.prod(matrix) / np.prod(encoding.encoded_matrix)))
    magnitude = root_sum_of_squares(cut, replace(coarse, encoded_matrix=matrix), lambda _f, _w: None, threads) * gain
    gaps = int((resized(kspace.acquired, matrix[:2]) == 0).sum())
    warnings = [*kspace.warnings, "preview: coarse, not for measurements"]
    if gaps:
        warnings.append(f"{gaps} of {matrix[0] * matrix[1]} lines of the preview are not there yet")
    small = replace(
        kspace,
        samples=cut,
        acquired=resized(kspace.acquired, matrix[:2]),
        calibration=None,
        encoding=replace(coarse, encoded_matrix=matrix),
        readout=(0, matrix[2]),
    )
    return _wrapped(small, magnitude, "preview", "lines are still arriving", {"combination": "rss"}, warnings)


def _wrapped(
    kspace: KSpace,
    magnitude: npt.NDArray[np.float32],
    method: str,
    reason: str,
    parameters: dict[str, Parameter],
    warnings: list[str],
) -> Reconstruction:
    if not np.isfinite(magnitude).all():
        raise ReconstructionError(f"the image made by '{method}' is not finite: the raw data overflow")
    provenance = provenance_of(kspace, method, reason, parameters)
    image = Image(
        array=magnitude,
        ras_from_ijk=kspace.encoding.ras_from_ijk,
        name=kspace.encoding.protocol or kspace.encoding.scan_id,
        acquired_utc_s=kspace.acquired_utc_s,
        patient_id=kspace.encoding.patient_id,
        metadata=provenance,
    )
    return Reconstruction(image, method, reason, parameters, tuple(warnings), provenance)
