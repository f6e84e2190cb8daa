"""What collects the lines of a scan, whatever their way through k-space."""

from __future__ import annotations

from typing import Protocol

from ..data import Acquisition, Encoding
from .assemble import Assembler
from .auto import Frame
from .echo_planar import EpiAssembler
from .shots import ShotAssembler


class Collector(Protocol):
    """Takes in blocks of a scan and gives its frames; see :class:`.assemble.Assembler`."""

    encoding: Encoding

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs that have begun, sorted."""

    @property
    def fraction_acquired(self) -> float:
        """Share 0..1 of the planned lines that are in."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the data so far, in words."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Readouts that are in no image, with their number and why."""

    def add(self, acquisition: Acquisition) -> None:
        """Take in a block of readouts."""

    def lines(self, contrast: int, repetition: int) -> int:
        """Readouts of a frame that has begun."""

    def is_whole(self, contrast: int, repetition: int) -> bool:
        """Whether everything that the header announces for a frame that has begun is in."""

    def kspace(self, contrast: int = 0, repetition: int = 0) -> Frame:
        """One frame."""


def collector(encoding: Encoding) -> Collector:
    """Collector for a scan's trajectory. Raises ReconstructionError for encodings that cannot be collected."""
    if encoding.trajectory in ("radial", "spiral"):
        return ShotAssembler(encoding)
    return EpiAssembler(encoding) if encoding.trajectory == "epi" else Assembler(encoding)
