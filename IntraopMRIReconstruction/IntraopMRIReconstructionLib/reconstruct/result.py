"""What a reconstruction returns, and how it reports and stops."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy

from ..data import GEOMETRY, READ_AS, READ_ONLY, Encoding, Image, Progress
from ..errors import Cancelled
from .metal import scan_facts
from .methods import Seen

#: Of what computes, for the provenance.
VERSIONS = f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"

#: Entry of the provenance: what no raw data can show.
SIDES, BY_HEADER = "sides", "by the header alone: data that were mirrored or conjugated as a whole cannot be told"
#: Entry of the provenance: readouts that are in no image, with their number and why.
LEFT_OUT = "lines_left_out"

Parameter = float | int | str
#: Called with (fraction 0..1, what is being done); raises Cancelled when a person stopped the work.
Step = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A volume and how it came about.

    ``image``: float32 magnitude (k, j, i) = (z, y, x) in RAS. ``method`` and ``reason``: what was done and why, in
    words. ``parameters``: what the method used. ``warnings``: what a person must know before trusting the picture.
    ``provenance``: method, parameters, versions and a hash of the input, all text, for the volume node and the report.
    ``maps``: further images on the same grid, such as the g-factor. ``seen``: what the lines of a single frame showed.
    """

    image: Image
    method: str
    reason: str
    parameters: Mapping[str, Parameter]
    warnings: tuple[str, ...]
    provenance: Mapping[str, str]
    maps: Mapping[str, Image] = field(default_factory=lambda: MappingProxyType({}))
    seen: Seen | None = None


@dataclass
class Work:
    """What is known so far of one reconstruction. ``noise``: standard deviation of its image over that of a fully
    sampled one, a number or (z, y, x), None when unknown. ``maps``: further images on the recon grid. ``seen``:
    what the lines showed."""

    method: str
    reason: str
    parameters: dict[str, Parameter]
    warnings: list[str]
    noise: npt.NDArray[np.float32] | float | None = None
    maps: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    seen: Seen | None = None


def stepping(progress: Progress) -> Step:
    """Turn a progress callback into one that raises Cancelled when the callback returns False."""

    def step(fraction: float, what: str) -> None:
        if not progress(min(1.0, fraction), what):
            raise Cancelled(f"reconstruction stopped during: {what}")

    return step


def part(step: Step, first: float, last: float) -> Step:
    """A step whose 0..1 covers ``first``..``last`` of another."""
    return lambda fraction, what: step(first + (last - first) * fraction, what)


class RawFrame(Protocol):
    """What every kind of raw frame says of itself."""

    @property
    def encoding(self) -> Encoding:
        """How the scan is encoded and where it lies."""

    @property
    def input_hash(self) -> str:
        """SHA-256 of what arrived, header and readouts, see :meth:`.scan_input.ScanInput.hexdigest`."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Readouts of the scan that are not in it, with their number and why."""


def provenance_of(frame: RawFrame, method: str, reason: str, parameters: Mapping[str, Parameter]) -> dict[str, str]:
    """Text that says how an image came from its raw data."""
    return {
        "method": method,
        "reason": reason,
        "parameters": ", ".join(f"{name}={value}" for name, value in parameters.items()),
        "scan": frame.encoding.scan_id,
        "protocol": frame.encoding.protocol,
        "trajectory": frame.encoding.trajectory,
        SIDES: BY_HEADER,
        "input_sha256": frame.input_hash,
        "versions": VERSIONS,
        **{key: text for key in (GEOMETRY, READ_AS, READ_ONLY) if (text := frame.encoding.metadata.get(key))},
        **({LEFT_OUT: "; ".join(frame.left_out)} if frame.left_out else {}),
        **scan_facts(frame.encoding),
    }
