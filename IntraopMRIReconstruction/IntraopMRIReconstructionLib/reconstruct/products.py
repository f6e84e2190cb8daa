"""What a person asks of a scan, and how it is made: a quantity by a method, then corrections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..data import Encoding, KSpace, Progress, no_progress
from ..errors import ReconstructionError
from ..operators.sampling import describe
from .auto import Frame, Options, reconstruct
from .corrections import Corrections, corrected
from .quantities import COMBINED, Heating, Quantity, combined_by, measured, named_by
from .quantity_image import Frames
from .result import Reconstruction
from .unmixing import Ahead, Calibrations


@dataclass(frozen=True, eq=False)
class Wanted:
    """``contrast``: of an image; when None the first, or all together where the header says that they are parts of one
    image. ``repetition``: of an image, the newest when None."""

    quantity: Quantity = "image"
    method: str = "auto"
    options: Options = field(default_factory=Options)
    contrast: int | None = None
    repetition: int | None = None
    heating: Heating = field(default_factory=Heating)
    corrections: Corrections = field(default_factory=Corrections)


def quantity_of(wanted: Wanted, encoding: Encoding) -> Quantity:
    """What is made of a scan: of an image that was not chosen, what the header names the scan for, and the image of a
    scan beside metal is that of all its parts. Raises ReconstructionError for a name that is none."""
    if wanted.quantity != "image" or wanted.contrast is not None:
        return wanted.quantity
    return named_by(encoding) or combined_by(encoding)


def make(
    scan: Frames,
    wanted: Wanted,
    progress: Progress = no_progress,
    threads: int = 2,
    kept: Calibrations | Ahead | None = None,
) -> Reconstruction:
    """Make what is wanted of a scan. Raises ReconstructionError when the scan does not allow it, Cancelled when told.

    Corrections apply to images only, those of several parts as well: a field or a temperature is no brightness.
    ``kept``: of an image, as in :func:`.auto.reconstruct`.
    """
    if not scan.frames:
        raise ReconstructionError(f"the scan '{scan.encoding.scan_id}' has no line yet")
    quantity = quantity_of(wanted, scan.encoding)
    if quantity != "image":
        if wanted.corrections and quantity not in COMBINED:
            raise ReconstructionError(f"corrections are for images, not for a {quantity}: leave them out")
        result = measured(scan, quantity, wanted.method, wanted.options, wanted.heating, progress, threads)
        return corrected(result, wanted.corrections, scan.encoding, progress)
    contrast = scan.frames[0][0] if wanted.contrast is None else wanted.contrast
    repetition = wanted.repetition
    if repetition is None:
        repetition = max((known for number, known in scan.frames if number == contrast), default=0)
    return make_image(scan, wanted, scan.kspace(contrast, repetition), progress, threads, kept)


def make_image(
    scan: Frames,
    wanted: Wanted,
    frame: Frame,
    progress: Progress = no_progress,
    threads: int = 2,
    kept: Calibrations | Ahead | None = None,
) -> Reconstruction:
    """The image of one frame of a scan with its corrections; ``kept`` as in :func:`.auto.reconstruct`."""
    share = 0.8 if wanted.corrections else 1.0
    if lacks_calibration(scan, frame):
        frame = _calibrated_by_others(scan, frame)
    result = reconstruct(
        frame,
        wanted.method,
        lambda fraction, what: progress(share * fraction, what),
        threads,
        wanted.options,
        kept,
    )
    return corrected(
        result,
        wanted.corrections,
        frame.encoding,
        lambda fraction, what: progress(share + (1 - share) * fraction, what),
    )


def lacks_calibration(scan: Frames, frame: Frame) -> bool:
    """Whether a frame leaves lines out that only its neighbours in time bring (TGRAPPA)."""
    if not isinstance(frame, KSpace) or frame.encoding.is_3d or scan.encoding.repetitions < 2:
        return False
    if frame.calibration is not None:
        return False
    sampling = describe(frame.acquired, False)
    return sampling.kind == "regular" and sampling.calibration_lines[1] < 2


def neighbours_have_come(scan: Frames, frame: Frame) -> bool:
    """Whether the repetitions so far bring every line that calibrates a frame that lacks some."""
    assert isinstance(frame, KSpace)
    have = np.asarray(frame.acquired > 0)
    return bool(have.all()) or any(np.logical_or(have, other.acquired, out=have).all() for other in _near(scan, frame))


def _calibrated_by_others(scan: Frames, frame: Frame) -> Frame:
    """The frame, calibrated by the lines of the repetitions nearest to it; itself when those do not suffice."""
    assert isinstance(frame, KSpace)
    merged, have = frame.samples.copy(), (frame.acquired > 0).copy()
    for other in _near(scan, frame):
        if have.all():
            break
        if other.samples.shape == merged.shape:
            new = (other.acquired > 0) & ~have
            merged[:, new] = other.samples[:, new]
            have |= new
    if not have.all():
        return frame
    note = "calibrated by lines of neighbouring repetitions"
    return replace(frame, calibration=merged, warnings=(*frame.warnings, note))


def _near(scan: Frames, frame: KSpace) -> Iterator[KSpace]:
    """The other repetitions of a frame, the nearest in time first: a scan may have gone on for hundreds."""
    others = [number for contrast, number in scan.frames if contrast == frame.contrast]
    for number in sorted(others, key=lambda other: abs(other - frame.repetition)):
        if number != frame.repetition and isinstance(other := scan.kspace(frame.contrast, number), KSpace):
            yield other
