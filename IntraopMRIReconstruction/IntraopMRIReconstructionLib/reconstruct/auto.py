"""One door to every reconstruction: chooses the method from the data, says why, and keeps the provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Image, KSpace, Progress, no_progress
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, resized
from ..operators.parallel import one_blas_thread
from ..operators.sampling import Sampling, describe
from . import echo_planar, metal, noncartesian
from .cartesian import root_sum_of_squares
from .echo_planar import EpiFrame
from .grid import on_recon_grid, with_recon_matrix
from .methods import COMPLETING, METHODS, Options, Seen, check
from .planes import Planes
from .result import Parameter, Reconstruction, Step, Work, part, provenance_of, stepping
from .shots import Shots
from .solvers import doubts, solver_for
from .unmixing import Ahead, Calibrations

__all__ = ["METHODS", "Frame", "Options", "Phased", "choose", "phased", "preview", "reconstruct"]

#: What an assembler makes of a scan, see :mod:`.collect`.
Frame = KSpace | EpiFrame | Shots
#: Largest matrix of a preview (z, y, x): it takes less than a tenth of a second.
PREVIEW_MATRIX = (48, 128, 128)
#: A preview of the fully sampled centre alone needs so many lines; blurred is better than aliased.
LEAST_CENTRE = 12
#: A header's acceleration and the one found in the lines must agree, or the header belongs to another scan.
ACCELERATION_WARNING = "the header announces an acceleration of {0}, the lines show {1}"
#: Methods whose images keep the phase of the object from frame to frame.
KEEPS_PHASE = ("fft", "grappa", "sense", "gridding", "iterative-sense")
#: Lines that are lost in this middle part of k-space spoil the phase; farther out they cost sharpness.
MIDDLE_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Phased:
    """A complex image (z, y, x) on the recon grid. Frames made with the same calibrations share the phase of the
    coils, so that phase differences between them are those of the object. Other fields as in a Reconstruction."""

    array: ComplexArray
    method: str
    reason: str
    parameters: Mapping[str, Parameter]
    warnings: tuple[str, ...]


def choose(kspace: KSpace, sampling: Sampling) -> tuple[str, str, Planes | None]:
    """(method, reason in words, how the frame splits where that was looked at) for a frame.

    Raises ReconstructionError for accelerated data without calibration lines and for more acceleration than coils.
    """
    coils = kspace.encoding.coils
    acceleration = sampling.acceleration[0] * sampling.acceleration[1]
    if sampling.kind == "full":
        short = kspace.readout != (0, kspace.encoding.encoded_matrix[2])
        missing = (sampling.partial[0] < 1) + (sampling.partial[1] < 1) + short
        if missing:
            words = f"every line of a partial-Fourier scan was acquired ({_percent(kspace, sampling)} of k-space)"
            if short and sampling.partial[0] < 1:
                return "fft", f"{words}; what its short readouts and its partitions lack is not completed", None
            if missing > 1:
                return "pocs", f"{words}; of two missing sides POCS completes both", None
            return "homodyne", words, None
        return "fft", "every line was acquired", None
    if acceleration > coils and sampling.kind == "regular":
        raise ReconstructionError(
            f"the lines show an acceleration of {acceleration} with {coils} live coils, which cannot be undone: scan "
            "again with less acceleration"
        )
    planes = Planes(kspace, sampling)
    lines = planes.calibration_shape
    if min(lines) < 2:
        everywhere = "" if kspace.encoding.is_3d or len(kspace.acquired) == 1 else " in every slice"
        what = planes.lost or f"no calibration lines were acquired{everywhere}"
        raise ReconstructionError(
            f"the sampling is {sampling.kind} but {what}: send a calibration scan or reconstruct with method fft, "
            "which shows the aliased image"
        )
    if sampling.kind == "regular":
        words = "x".join(str(step) for step in sampling.acceleration if step > 1)
        return "grappa", f"the lines show an acceleration of {words} with {lines[0]} calibration lines", planes
    if sampling.kind == "holes":
        words = f"{len(sampling.missing)} planned lines are missing, and the coils can stand in for them"
        return "cg-sense", words, planes
    return "l1-wavelet", "the lines are sampled at random", planes


def reconstruct(
    frame: Frame,
    method: str = "auto",
    progress: Progress = no_progress,
    threads: int = 2,
    options: Options | None = None,
    calibrations: Calibrations | Ahead | None = None,
) -> Reconstruction:
    """Reconstruct one frame into a magnitude volume on the recon grid.

    ``calibrations``: kept by the caller over the repetitions of a 2D scan, so that grappa and sense calibrate once
    and renew their weights beside the frames instead of within them; or those that were begun ahead, see :mod:`.live`.
    ``progress`` is called often with (fraction 0..1, what); as soon as it returns False the work stops with
    Cancelled. Raises ReconstructionError when the data do not allow the method.
    """
    check(method, frame.encoding.trajectory)
    step, options = stepping(progress), options or Options()
    if isinstance(frame, Shots):
        if options.snr_units:
            raise ReconstructionError("SNR units are not known for radial and spiral scans: leave them out")
        work = _begin(frame, method)
        step(0.0, method)
        maps = calibrations if isinstance(calibrations, Calibrations) else None
        image = noncartesian.image(frame, work, options, part(step, 0.0, 0.95), threads, maps, phased=False)
        work.seen = Seen(ball=frame.k.shape[-1] == 3, automatic=work.method if method == "auto" else "")
        magnitude = _magnitude(image, frame, threads)
    else:
        kspace, work, planes = _cartesian(frame, method, options, step)
        if work.method == "fft" and options.combination == "rss":
            work.parameters["combination"] = "rss"
            work.noise = 1.0
            magnitude = root_sum_of_squares(kspace.samples, kspace.encoding, step, threads)
        else:
            kept = None if isinstance(calibrations, Calibrations) and kspace.encoding.is_3d else calibrations
            image = _planes(kspace, planes, work, options, part(step, 0.0, 0.95), threads, kept)
            step(0.95, "recon grid")
            magnitude = _magnitude(image, kspace, threads)
        if options.snr_units:
            magnitude = _in_snr_units(kspace, magnitude, work)
    step(1.0, "done")
    return _wrapped(frame, magnitude, work)


def phased(
    frame: Frame,
    calibrations: Calibrations,
    method: str = "auto",
    progress: Progress = no_progress,
    threads: int = 2,
    options: Options | None = None,
) -> Phased:
    """One frame of a series with its phase, for :mod:`.quantities` and :mod:`.multispectral`.

    ``calibrations``: shared by all frames of the series and never renewed (``refresh_after_s`` infinite). Missing
    sides of k-space count as zero, since completing them uses up the phase; so do a few lost lines away from its
    middle. Raises as :func:`reconstruct`, also for
    a method that has no phase of its own.
    """
    check(method, frame.encoding.trajectory)
    refuse_snr_units(options)
    step, options = stepping(progress), replace(options or Options(), partial_fourier="none", combination="rss")
    if isinstance(frame, Shots):
        work = _begin(frame, method)
        image = noncartesian.image(frame, work, options, part(step, 0.0, 0.95), threads, calibrations, phased=True)
    else:
        kspace, work, planes = _cartesian(frame, method, options, step, phased=True)
        if work.method in ("homodyne", "pocs"):
            work.method = "fft"
            work.warnings.append("the side of k-space that was not acquired counts as zero, to keep the phase")
        if work.method not in KEEPS_PHASE:
            raise ReconstructionError(
                f"method '{work.method}' keeps no phase, which this quantity needs: choose one of "
                f"{', '.join(KEEPS_PHASE)}, or scan with every line or a regular acceleration"
            )
        image = _planes(kspace, planes, work, options, part(step, 0.0, 0.95), threads, calibrations)
    array = np.asarray(on_recon_grid(image, frame.encoding, threads), dtype=np.complex64)
    step(1.0, "done")
    return Phased(array, work.method, work.reason, MappingProxyType(work.parameters), tuple(work.warnings))


def preview(kspace: KSpace, threads: int = 2) -> Reconstruction | None:
    """A quick, coarse volume from the centre of k-space, on its own coarse grid in the right place.

    It sharpens up to ``PREVIEW_MATRIX`` as the fully sampled centre grows, calibration lines included; without such a
    centre it takes the middle lines with gaps as zeros (a warning says so). None while the centre line is missing. For
    the screen while lines arrive, never to measure on.
    """
    encoding = kspace.encoding
    z, y, x = (min(pair) for pair in zip(PREVIEW_MATRIX, encoding.encoded_matrix, strict=True))
    z = z if encoding.is_3d else encoding.encoded_matrix[0]
    acquired: npt.NDArray[np.bool_] = np.asarray(resized(kspace.acquired, (z, y)) > 0)
    gaps = np.zeros_like(acquired)
    if kspace.calibration is not None:
        gaps = ~acquired & resized(kspace.calibration, (z, y, min(3, x))).any(axis=(0, 3))
        acquired |= gaps
    if not (acquired[z // 2, y // 2] if encoding.is_3d else acquired[:, y // 2].any()):
        return None
    sizes = [z, y]
    for axis, (start, stop) in enumerate(describe(acquired, encoding.is_3d).calibration):
        even = 2 * min(sizes[axis] // 2 - start, stop - sizes[axis] // 2)
        if (axis == 1 or encoding.is_3d) and even >= min(LEAST_CENTRE, sizes[axis] // 4):
            sizes[axis] = max(1, even)
    matrix = (sizes[0], sizes[1], x)
    samples: ComplexArray = resized(kspace.samples, matrix).copy()
    if kspace.calibration is not None:
        gaps = resized(gaps, matrix[:2])
        samples[:, gaps] = resized(kspace.calibration, matrix)[:, gaps]
    shares = [size / whole for size, whole in zip(matrix, encoding.encoded_matrix, strict=True)]
    recon = [max(1, round(whole * share)) for whole, share in zip(encoding.recon_matrix, shares, strict=True)]
    coarse = with_recon_matrix(encoding, (recon[0], recon[1], recon[2]))
    small = replace(
        kspace,
        samples=samples,
        acquired=resized(acquired, matrix[:2]).astype(np.uint8),
        encoding=replace(coarse, encoded_matrix=matrix),
        readout=(0, matrix[2]),
        calibration=None,
    )
    gain = np.float32(np.sqrt(np.prod(shares)))
    magnitude = root_sum_of_squares(small.samples, small.encoding, stepping(no_progress), threads) * gain
    warnings = [*kspace.warnings, "preview: coarse, not for measurements"]
    missing = int((small.acquired == 0).sum())
    if missing:
        warnings.append(f"{missing} of {matrix[0] * matrix[1]} lines of the preview are not there yet")
    work = Work("preview", "lines are still arriving", {"combination": "rss"}, warnings)
    return _wrapped(small, magnitude, work)


def refuse_snr_units(options: Options | None) -> None:
    """Raise ReconstructionError when they are asked for what several images are made into."""
    if options is not None and options.snr_units:
        raise ReconstructionError("SNR units are for a single image, not for what is made of several: leave them out")


def _begin(frame: KSpace | Shots, method: str) -> Work:
    reason = "" if method == "auto" else "chosen by hand"
    return Work(method, reason, {"coils": frame.encoding.coils}, list(frame.warnings))


def _cartesian(
    frame: KSpace | EpiFrame, method: str, options: Options, step: Step, phased: bool = False
) -> tuple[KSpace, Work, Planes | None]:
    """Sorted lines whose forward and backward readouts agree, the method for them, and how they split if that was
    looked at."""
    notes = echo_planar.Notes()
    if isinstance(frame, EpiFrame):
        frame, notes = echo_planar.deghosted(frame, options.ghost, step)
    sampling = describe(frame.acquired, frame.encoding.is_3d)
    work = _begin(frame, method)
    frame = _seen_straight(frame, options, notes)
    automatic, planes = "", None
    if method == "auto":
        work.method, work.reason, planes = choose(frame, sampling)
        automatic = work.method
        if work.method in COMPLETING and not phased:
            work.method, work.reason = _completing(work.method, work.reason, options)
        if phased and work.method == "cg-sense" and _lost_outside(frame, sampling):
            work.method, work.reason = "fft", f"{len(sampling.missing)} lines were lost, none of the middle of k-space"
    short = frame.readout != (0, frame.encoding.encoded_matrix[2])
    work.seen = Seen(frame.whitened, one_sided=short or min(sampling.partial) < 1, automatic=automatic)
    if notes.reason:
        work.reason = f"{work.reason}; {notes.reason}"
    work.parameters.update(notes.parameters)
    work.warnings += [*notes.warnings, *_warnings(frame, sampling, work.method)]
    if options.snr_units and not frame.whitened:
        raise ReconstructionError("SNR units need the noise of the coils: send noise lines with the scan")
    step(0.0, work.method)
    return frame, work, planes


def _completing(method: str, reason: str, options: Options) -> tuple[str, str]:
    """(method, reason) where auto would complete by ``method``, and a person may have chosen otherwise."""
    if options.partial_fourier == "none":
        return "fft", f"{reason}; what is missing is left out, as chosen by hand"
    if options.partial_fourier == "pocs" and method != "pocs":
        return "pocs", f"{reason}; POCS was chosen by hand"
    return method, reason


def _seen_straight(kspace: KSpace, options: Options, notes: echo_planar.Notes) -> KSpace:
    """The k-space of a tilted view without its blur; what was done, or left, goes into ``notes``."""
    tilt = metal.view_angle_deg(kspace.encoding)
    if not tilt:
        return kspace
    if options.snr_units:
        raise ReconstructionError("SNR units are not known for a tilted view: leave them out")
    straight, width_mm = metal.deblurred_view(kspace, tilt)
    if not options.deblur_view:
        notes.warnings.append(f"the view is tilted: the image is blurred by {width_mm:.1f} mm along the readout")
        return kspace
    notes.reason = f"the header names a view tilted by {tilt:.0f}°, whose blur of {width_mm:.1f} mm was undone"
    notes.parameters["view_angle_deg"] = round(tilt, 1)
    return straight


def _planes(
    kspace: KSpace,
    planes: Planes | None,
    work: Work,
    options: Options,
    step: Step,
    threads: int,
    calibrations: Calibrations | Ahead | None,
) -> ComplexArray:
    """Complex image (z, y, x) on the encoded grid; notes the noise and the g-factor where they are known."""
    planes = planes or Planes(kspace, describe(kspace.acquired, kspace.encoding.is_3d))
    if work.method != "fft" or options.combination in ("rss", "espirit"):
        work.warnings += doubts(planes, work.method)
    solver = solver_for(planes, work.method, options, work.parameters, step, calibrations)
    try:
        with one_blas_thread():
            image, g_factor = planes.solve(solver, step, threads)
    except ReconstructionError as error:
        if not planes.lost:
            raise
        raise ReconstructionError(f"{error}; {planes.lost}") from error
    if g_factor is not None:
        g_factor = np.abs(on_recon_grid(g_factor, kspace.encoding, threads)).astype(np.float32)
        if planes.lattice.acceleration > 1:
            work.maps["g-factor"] = g_factor
        work.noise = g_factor * np.float32(np.sqrt(planes.lattice.acceleration))
    return image


def _magnitude(image: npt.NDArray[Any], frame: KSpace | Shots, threads: int) -> npt.NDArray[np.float32]:
    return np.asarray(np.abs(on_recon_grid(image, frame.encoding, threads)), dtype=np.float32)


def _in_snr_units(kspace: KSpace, magnitude: npt.NDArray[np.float32], work: Work) -> npt.NDArray[np.float32]:
    if work.noise is None:
        raise ReconstructionError(f"the noise of '{work.method}' is not known: use fft, sense or grappa for SNR units")
    work.parameters["units"] = "SNR"
    # Whitened samples carry a variance of 1 over both parts; a magnitude is judged against one part. What counts as
    # zero brings no noise: the corners of an elliptical shutter, sides that were not acquired.
    is_3d, acquired = kspace.encoding.is_3d, kspace.acquired
    sampling = describe(acquired, is_3d)
    acquired = acquired if is_3d else acquired[acquired.any(axis=1)]
    lattice = np.s_[sampling.offset[0] :: sampling.acceleration[0], sampling.offset[1] :: sampling.acceleration[1]]
    filled = float((acquired[lattice] > 0).mean()) * _readout_share(kspace)
    averages = float(acquired[acquired > 0].mean())
    noise = np.maximum(work.noise * np.sqrt(filled), np.finfo(np.float32).tiny)
    return np.asarray(magnitude * np.sqrt(2 * averages) / noise, dtype=np.float32)


def _warnings(kspace: KSpace, sampling: Sampling, method: str) -> list[str]:
    encoding = kspace.encoding
    part_of = metal.part_words(encoding)
    found = [part_of] if part_of else []
    if len(sampling.missing) and sampling.kind != "random":
        done = "filled from the coils" if method in ("cg-sense", "l1-wavelet", "tv") else "count as zero"
        found.append(f"{len(sampling.missing)} planned lines are missing and {done}")
    if method == "fft" and sampling.kind in ("regular", "random"):
        found.append("the sampling has gaps and method fft does not fill them: the image is aliased")
    if method == "fft" and min(sampling.partial) < 1:
        found.append("partial-Fourier lines are missing and count as zero: the image is blurred")
    if method == "fft" and (short := _readout_share(kspace)) < 1:
        found.append(f"{100 * short:.0f} % of each readout was acquired, the rest counts as zero: the image is blurred")
    if sampling.empty:
        found.append(f"slices without any line are black: {', '.join(map(str, sampling.empty))}")
    announced = encoding.acceleration if encoding.is_3d else (1, encoding.acceleration[1])
    if sampling.kind in ("full", "regular") and announced != sampling.acceleration:
        found.append(ACCELERATION_WARNING.format(announced, sampling.acceleration))
    return found


def _lost_outside(kspace: KSpace, sampling: Sampling) -> bool:
    """Whether all lines of an unaccelerated frame that were lost lie away from the middle of k-space."""
    sizes = np.array(kspace.acquired.shape)
    away = np.abs(sampling.missing - sizes // 2) > MIDDLE_SHARE / 2 * sizes
    far: npt.NDArray[np.bool_] = away.any(axis=1) if kspace.encoding.is_3d else away[:, 1]
    return sampling.acceleration == (1, 1) and bool(far.all())


def _percent(kspace: KSpace, sampling: Sampling) -> str:
    """Of the samples that a whole scan would have, along all axes."""
    return f"{100 * sampling.partial[0] * sampling.partial[1] * _readout_share(kspace):.0f} %"


def _readout_share(kspace: KSpace) -> float:
    first, stop = kspace.readout
    return (stop - first) / kspace.encoding.encoded_matrix[2]


def _wrapped(frame: Frame, magnitude: npt.NDArray[np.float32], work: Work) -> Reconstruction:
    # A magnitude is never negative, and its largest value is NaN if any is.
    if not math.isfinite(magnitude.max()):
        raise ReconstructionError(f"the image made by '{work.method}' is not finite: the raw data overflow")
    provenance = provenance_of(frame, work.method, work.reason, work.parameters)
    image = Image(
        array=magnitude,
        ras_from_ijk=frame.encoding.ras_from_ijk,
        name=frame.encoding.protocol or frame.encoding.scan_id,
        acquired_utc_s=frame.acquired_utc_s,
        patient_id=frame.encoding.patient_id,
        metadata=provenance,
    )
    extra = MappingProxyType({name: image.with_array(array, name) for name, array in work.maps.items()})
    return Reconstruction(
        image, work.method, work.reason, work.parameters, tuple(work.warnings), provenance, extra, work.seen
    )
