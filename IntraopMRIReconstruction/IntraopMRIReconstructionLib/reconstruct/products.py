"""What a person asks of a scan, and how it is made: a quantity by a method, then corrections."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import Progress, no_progress
from ..errors import ReconstructionError
from .auto import Options, reconstruct
from .corrections import Corrections, corrected
from .quantities import Frames, Heating, Quantity, measured
from .result import Reconstruction


@dataclass(frozen=True, eq=False)
class Wanted:
    """``frame``: (contrast, repetition) of an image; the first contrast of the newest repetition when None."""

    quantity: Quantity = "image"
    method: str = "auto"
    options: Options = field(default_factory=Options)
    frame: tuple[int, int] | None = None
    heating: Heating = field(default_factory=Heating)
    corrections: Corrections = field(default_factory=Corrections)


def make(scan: Frames, wanted: Wanted, progress: Progress = no_progress, threads: int = 2) -> Reconstruction:
    """Make what is wanted of a scan. Raises ReconstructionError when the scan does not allow it, Cancelled when told.

    Corrections apply to images only: a field or a temperature is no brightness.
    """
    if wanted.quantity != "image":
        if wanted.corrections:
            raise ReconstructionError(f"corrections are for images, not for a {wanted.quantity}: leave them out")
        return measured(scan, wanted.quantity, wanted.method, wanted.options, wanted.heating, progress, threads)
    if not scan.frames:
        raise ReconstructionError(f"the scan '{scan.encoding.scan_id}' has no line yet")
    contrast, repetition = wanted.frame or (0, max(r for c, r in scan.frames if c == scan.frames[0][0]))
    frame = scan.kspace(contrast, repetition)
    whole = bool(wanted.corrections)
    result = reconstruct(
        frame,
        wanted.method,
        lambda fraction, what: progress(fraction * (0.8 if whole else 1.0), what),
        threads,
        wanted.options,
    )
    later = corrected(
        result, wanted.corrections, frame.encoding, lambda fraction, what: progress(0.8 + 0.2 * fraction, what)
    )
    progress(1.0, "done")
    return later
