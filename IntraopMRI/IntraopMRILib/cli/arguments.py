"""What is written on the command line, as values. Each raises ArgumentTypeError, which says what was expected."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from IntraopMRIReconstructionLib.errors import WireError

if TYPE_CHECKING:
    from IntraopMRIReconstructionLib.wire.trust import PeerProfile

    from ..session import Link


def finite(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is no number")
    return value


def zero_or_more(text: str) -> float:
    """A number from zero on."""
    if (value := finite(text)) < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is less than zero")
    return value


def positive(text: str) -> float:
    """A number above zero."""
    if (value := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not above zero")
    return value


def spot(text: str) -> tuple[float, float, float]:
    """A place, RAS mm."""
    try:
        x, y, z = (finite(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"'{text}' is no place R,A,S in mm, for example 12,-8,20.5") from None
    return x, y, z


def address(text: str) -> Link:
    """Where a peer listens."""
    from ..session import Link

    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is no HOST:PORT, for example 127.0.0.1:18944")
    return Link(host or "127.0.0.1", int(port))


def profile(text: str) -> tuple[str, PeerProfile]:
    """Part of a session, and what its peer is taken for."""
    from IntraopMRIReconstructionLib.wire.trust import profile_named

    from ..session.links import PARTS

    part, _, name = text.rpartition("=")
    if part not in ("", *PARTS):
        raise argparse.ArgumentTypeError(f"'{part}' is no part of a session: {', '.join(PARTS)}")
    try:
        return part or PARTS[0], profile_named(name)
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def choice(text: str) -> tuple[str, int | str]:
    """A name with its value, which is a number where it looks like one."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"'{text}' is no NAME=VALUE, for example group=dataset")
    return name, int(value) if value.lstrip("-").isdecimal() else value
