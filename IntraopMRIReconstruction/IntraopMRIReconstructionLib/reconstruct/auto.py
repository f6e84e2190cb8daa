"""One door to every Cartesian reconstruction: chooses the method from the data, says why, and keeps the provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..data import Image, KSpace, Progress, no_progress
from ..errors import ReconstructionError
from ..operators import sensitivity
from ..operators.fourier import ComplexArray, image_from_kspace, resized
from ..operators.parallel import one_blas_thread
from ..operators.sampling import Sampling, describe
from . import compressed_sensing, grappa, sense
from .cartesian import root_sum_of_squares
from .grid import on_recon_grid, with_recon_matrix
from .partial_fourier import completed
from .planes import Plane, Planes, Solver
from .result import Parameter, Reconstruction, Step, part, provenance_of, stepping
from .unmixing import Calibrations, Lattice, Unmixing, combination

#: What :func:`reconstruct` accepts besides "auto".
METHODS = ("fft", "homodyne", "pocs", "grappa", "sense", "cg-sense", "l1-wavelet", "tv")
Combination = Literal["rss", "walsh", "inati", "espirit"]
#: Longest side of a preview along (z, y, x): enough to see what is being imaged.
PREVIEW_MATRIX = (32, 64, 64)
#: A header's acceleration and the one found in the lines must agree, or the header belongs to another scan.
ACCELERATION_WARNING = "the header announces an acceleration of {0}, the lines show {1}"


@dataclass(frozen=True)
class Options:
    """What a person may override. None takes the method's own value.

    ``combination``: how coils are combined by method fft. ``iterations``, ``weight``: of iterative methods, see
    :mod:`.compressed_sensing` and :mod:`.sense`. ``partial_fourier``: how a missing side is completed, after any
    method. ``snr_units``: scale to units of noise (needs noise lines) and add the g-factor where it is known.
    """

    combination: Combination = "rss"
    iterations: int | None = None
    weight: float | None = None
    partial_fourier: Literal["homodyne", "pocs", "none"] = "homodyne"
    snr_units: bool = False


def choose(kspace: KSpace, sampling: Sampling) -> tuple[str, str]:
    """(method, reason in words) for a frame.

    Raises ReconstructionError for accelerated data without calibration lines and for more acceleration than coils.
    """
    coils = kspace.encoding.coils
    acceleration = sampling.acceleration[0] * sampling.acceleration[1]
    size = Planes(kspace, sampling).calibration_shape if sampling.kind != "full" else (0, 0)
    words = "x".join(str(step) for step in sampling.acceleration if step > 1)
    if sampling.kind == "full":
        if min(sampling.partial) < 1 or kspace.readout != (0, kspace.encoding.encoded_matrix[2]):
            return "homodyne", f"every line of a partial-Fourier scan was acquired ({_percent(sampling)} of k-space)"
        return "fft", "every line was acquired"
    if acceleration > coils and sampling.kind == "regular":
        raise ReconstructionError(
            f"the lines show an acceleration of {acceleration} with {coils} live coils, which cannot be undone: scan "
            "again with less acceleration"
        )
    if min(size) < 2:
        raise ReconstructionError(
            f"the sampling is {sampling.kind} but no calibration lines were acquired: send a calibration scan or "
            "reconstruct with method fft, which shows the aliased image"
        )
    if sampling.kind == "regular":
        return "grappa", f"the lines show an acceleration of {words} with {size[0]} calibration lines"
    if sampling.kind == "holes":
        return "cg-sense", f"{len(sampling.missing)} planned lines are missing, and the coils can stand in for them"
    return "l1-wavelet", "the lines are sampled at random"


def reconstruct(
    kspace: KSpace,
    method: str = "auto",
    progress: Progress = no_progress,
    threads: int = 2,
    options: Options | None = None,
    calibrations: Calibrations | None = None,
) -> Reconstruction:
    """Reconstruct one frame into a magnitude volume on the recon grid.

    ``calibrations``: kept by the caller over the repetitions of a 2D scan, so that grappa and sense calibrate once
    and renew their weights beside the frames instead of within them.
    ``progress`` is called often with (fraction 0..1, what); as soon as it returns False the work stops with
    Cancelled. Raises ReconstructionError when the data do not allow the method.
    """
    if method != "auto" and method not in METHODS:
        raise ReconstructionError(f"method must be auto or one of {', '.join(METHODS)}, got '{method}'")
    step, options = stepping(progress), options or Options()
    encoding = kspace.encoding
    sampling = describe(kspace.acquired, encoding.is_3d)
    chosen, reason = (method, "chosen by hand") if method != "auto" else choose(kspace, sampling)
    if options.snr_units and not kspace.whitened:
        raise ReconstructionError("SNR units need the noise of the coils: send noise lines with the scan")
    warnings = [*kspace.warnings, *_warnings(kspace, sampling, chosen)]
    parameters: dict[str, Parameter] = {"coils": encoding.coils}
    maps: dict[str, npt.NDArray[np.float32]] = {}
    step(0.0, chosen)
    noise: npt.NDArray[np.float32] | float = 1.0
    if chosen == "fft" and options.combination == "rss":
        parameters["combination"] = "rss"
        magnitude = root_sum_of_squares(kspace.samples, encoding, step, threads)
    else:
        planes = Planes(kspace, sampling)
        solver = _solver(planes, chosen, options, parameters, step, None if encoding.is_3d else calibrations)
        with one_blas_thread():
            image, g_factor = planes.solve(solver, part(step, 0.0, 0.95), threads)
        step(0.95, "recon grid")
        magnitude = np.abs(on_recon_grid(image, encoding, threads)).astype(np.float32)
        if g_factor is not None:
            g_factor = np.abs(on_recon_grid(g_factor, encoding, threads)).astype(np.float32)
            if planes.lattice.acceleration > 1:
                maps["g-factor"] = g_factor
            noise = g_factor * np.float32(np.sqrt(planes.lattice.acceleration))
        elif options.snr_units:
            raise ReconstructionError(f"the noise of '{chosen}' is not known: use fft, sense or grappa for SNR units")
    if options.snr_units:
        # Whitened samples carry a variance of 1 over both parts; a magnitude is judged against one part.
        averages = float(kspace.acquired[kspace.acquired > 0].mean())
        floor = np.finfo(np.float32).tiny
        magnitude = (magnitude * np.sqrt(2 * averages) / np.maximum(noise, floor)).astype(np.float32)
        parameters["units"] = "SNR"
    step(1.0, "done")
    return _wrapped(kspace, magnitude, chosen, reason, parameters, warnings, maps)


def preview(kspace: KSpace, threads: int = 2) -> Reconstruction:
    """A quick, coarse volume from the centre of k-space, on its own coarse grid in the right place.

    Uses the fully sampled centre block when there is one, else the middle lines with gaps as zeros (a warning says
    so). For the screen while lines arrive, never to measure on.
    """
    encoding = kspace.encoding
    sampling = describe(kspace.acquired, encoding.is_3d)
    sizes = list(encoding.encoded_matrix)
    for axis in range(3):
        if axis == 0 and not encoding.is_3d:
            continue
        limit = PREVIEW_MATRIX[axis]
        sizes[axis] = min(limit, sizes[axis])
        block = sampling.calibration_lines[axis] if axis < 2 else 0
        if block >= limit // 4:
            sizes[axis] = min(sizes[axis], block)
    matrix = (sizes[0], sizes[1], sizes[2])
    shares = [size / whole for size, whole in zip(matrix, encoding.encoded_matrix, strict=True)]
    recon = [max(1, round(whole * share)) for whole, share in zip(encoding.recon_matrix, shares, strict=True)]
    coarse = with_recon_matrix(encoding, (recon[0], recon[1], recon[2]))
    small = replace(
        kspace,
        samples=resized(kspace.samples, matrix),
        acquired=resized(kspace.acquired, matrix[:2]),
        encoding=replace(coarse, encoded_matrix=matrix),
        readout=(0, matrix[2]),
        calibration=None,
    )
    gain = np.float32(np.sqrt(np.prod(shares)))
    magnitude = root_sum_of_squares(small.samples, small.encoding, stepping(no_progress), threads) * gain
    warnings = [*kspace.warnings, "preview: coarse, not for measurements"]
    gaps = int((small.acquired == 0).sum())
    if gaps:
        warnings.append(f"{gaps} of {matrix[0] * matrix[1]} lines of the preview are not there yet")
    return _wrapped(small, magnitude, "preview", "lines are still arriving", {"combination": "rss"}, warnings, {})


def _solver(
    planes: Planes,
    method: str,
    options: Options,
    parameters: dict[str, Parameter],
    step: Step,
    calibrations: Calibrations | None,
) -> Solver:
    """What makes an image of one plane by ``method``; notes in ``parameters`` what it will use."""
    lattice = planes.lattice
    if method in ("fft", "homodyne", "pocs"):
        solver = _combining(options.combination if method == "fft" else "low-resolution", parameters)
    elif method in ("grappa", "sense"):
        parameters["acceleration"] = "x".join(map(str, lattice.step))
        parameters["calibration"] = "x".join(map(str, planes.calibration_shape))
        solver = _unmixing(method, lattice, parameters, calibrations)
    else:
        solver = _iterating(planes, method, options, parameters, step)
    if not planes.one_sided or options.partial_fourier == "none":
        return solver
    completing = "pocs" if method == "pocs" else "homodyne" if method == "homodyne" else options.partial_fourier
    parameters["partial_fourier"] = completing

    def both(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        image, _ = solver(plane, threads)
        for axis, acquired in planes.one_sided:
            image = completed(image, axis, acquired, "pocs" if completing == "pocs" else "homodyne")
        return image, None

    return both


def _combining(name: str, parameters: dict[str, Parameter]) -> Solver:
    parameters["combination"] = name

    def solver(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        if name in ("walsh", "inati"):
            images = image_from_kspace(plane.kspace, (-2, -1), threads)
            maps = sensitivity.walsh(images) if name == "walsh" else sensitivity.inati(images)
            return sensitivity.combined(images, maps), np.ones(images.shape[1:], np.float32)
        maps = _maps(plane, espirit=name == "espirit")
        weights = combination(maps)
        return weights.image(plane.kspace, threads), weights.g_factor

    return solver


def _unmixing(
    method: str, lattice: Lattice, parameters: dict[str, Parameter], calibrations: Calibrations | None
) -> Solver:
    parameters["combination"] = "low-resolution maps"

    def calibrated(plane: Plane) -> Unmixing:
        maps = _maps(plane, espirit=False)
        if method == "sense":
            return sense.unmixing(maps, lattice)
        return grappa.calibrate(plane.calibration, lattice, maps)

    def solver(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        if calibrations is None:
            weights = calibrated(plane)
        else:
            # The next lines may overwrite a live frame while a renewal still reads it: the block is copied.
            kept = replace(plane, calibration=plane.calibration.copy())
            weights = calibrations.weights((method, lattice, len(plane.kspace), plane.index), lambda: calibrated(kept))
        return weights.image(plane.kspace, threads), weights.g_factor

    return solver


def _iterating(planes: Planes, method: str, options: Options, parameters: dict[str, Parameter], step: Step) -> Solver:
    iterations = options.iterations or sense.ITERATIONS
    if method != "cg-sense" and options.iterations is None:
        iterations = compressed_sensing.enough_iterations(planes.sampled_share)
    weight = options.weight
    if weight is None:
        weights = {"l1-wavelet": compressed_sensing.WAVELET_WEIGHT, "tv": compressed_sensing.VARIATION_WEIGHT}
        weight = weights.get(method, 0.0)
    parameters.update(iterations=iterations, weight=weight, maps="espirit")

    def solver(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        encoding = sense.Encoding(plane.kspace, planes.sampled(plane.index), _maps(plane, espirit=True), threads)

        def tick(fraction: float) -> None:
            # From every plane, so that a person's stop is seen within one iteration.
            step(0.2 + 0.75 * (plane.index + fraction) / planes.count, f"{method} iterations")

        if method == "cg-sense":
            return sense.conjugate_gradients(encoding, iterations, weight, tick), None
        if method == "tv":
            return compressed_sensing.total_variation(encoding, weight, iterations, tick), None
        return compressed_sensing.l1_wavelet(encoding, weight, iterations, tick), None

    return solver


def _maps(plane: Plane, espirit: bool) -> ComplexArray:
    """Maps of a plane; low-resolution ones where the block is too small for ESPIRiT."""
    shape = (plane.kspace.shape[1], plane.kspace.shape[2])
    if min(plane.calibration.shape) == 0:
        raise ReconstructionError(
            "coil maps need a fully sampled centre of k-space, and none was acquired: send calibration lines"
        )
    if espirit and min(plane.calibration.shape[1:]) >= 2 * sensitivity.ESPIRIT_KERNEL - 1:
        return sensitivity.espirit(plane.calibration, shape)
    return sensitivity.low_resolution(plane.calibration, shape)


def _warnings(kspace: KSpace, sampling: Sampling, method: str) -> list[str]:
    found = []
    encoding = kspace.encoding
    if len(sampling.missing) and sampling.kind != "random":
        done = "filled from the coils" if method in ("cg-sense", "l1-wavelet", "tv") else "count as zero"
        found.append(f"{len(sampling.missing)} planned lines are missing and {done}")
    if method == "fft" and sampling.kind in ("regular", "random"):
        found.append("the sampling has gaps and method fft does not fill them: the image is aliased")
    if method == "fft" and min(sampling.partial) < 1:
        found.append("partial-Fourier lines are missing and count as zero: the image is blurred")
    if not encoding.is_3d:
        empty = np.flatnonzero(~(kspace.acquired > 0).any(axis=1))
        if len(empty):
            found.append(f"slices without any line are black: {', '.join(map(str, empty))}")
    announced = encoding.acceleration if encoding.is_3d else (1, encoding.acceleration[1])
    if sampling.kind in ("full", "regular") and announced != sampling.acceleration:
        found.append(ACCELERATION_WARNING.format(announced, sampling.acceleration))
    return found


def _percent(sampling: Sampling) -> str:
    return f"{100 * sampling.partial[0] * sampling.partial[1]:.0f} %"


def _wrapped(
    kspace: KSpace,
    magnitude: npt.NDArray[np.float32],
    method: str,
    reason: str,
    parameters: dict[str, Parameter],
    warnings: list[str],
    maps: Mapping[str, npt.NDArray[np.float32]],
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
    extra = {name: image.with_array(array, name) for name, array in maps.items()}
    return Reconstruction(image, method, reason, parameters, tuple(warnings), provenance, MappingProxyType(extra))
