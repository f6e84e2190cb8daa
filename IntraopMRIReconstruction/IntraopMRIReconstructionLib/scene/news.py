"""What a reception tells the panel, from its threads to the main one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..data import Encoding, Image
from ..errors import OpenChoice
from ..reconstruct.result import Reconstruction


@dataclass(frozen=True)
class Progressed:
    """Work goes on: ``fraction`` 0..1."""

    fraction: float
    what: str


@dataclass(frozen=True)
class Dropped:
    """The scan that was arriving is over: whatever was shown of its beginning no longer holds."""


@dataclass(frozen=True)
class Failed:
    """One sentence for a person."""

    text: str


@dataclass(frozen=True, eq=False)
class Asked:
    """The file ``path`` is not read before a person has settled what is ``open``.

    ``answers``: what was settled so far.
    """

    path: Path
    open: OpenChoice
    answers: Mapping[str, int | str]


@dataclass(frozen=True, eq=False)
class Received:
    """A finished image came from the scanner, without raw data."""

    image: Image


@dataclass(frozen=True, eq=False)
class Previewed:
    """A coarse picture of a scan of which ``fraction`` 0..1 has arrived."""

    result: Reconstruction
    fraction: float


@dataclass(frozen=True, eq=False)
class Streamed:
    """A picture of a scan that goes on; its last line came at ``received_monotonic_s``, None for a file."""

    result: Reconstruction
    received_monotonic_s: float | None


News = Encoding | Progressed | Dropped | Failed | Asked | Received | Previewed | Streamed | Reconstruction
