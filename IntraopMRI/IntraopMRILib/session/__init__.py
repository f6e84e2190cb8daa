"""One intraoperative session: what comes in, which stage works on it, what a person decides, what the record keeps."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .links import Link
    from .plan import Plan
    from .receive import role_of
    from .session import Session

__all__ = ["Link", "Plan", "Session", "role_of"]
_ROOMS = {"Link": "links", "Plan": "plan", "Session": "session", "role_of": "receive"}


def __getattr__(name: str) -> Any:
    """What is asked for, from its own file: a command line that only helps needs none of them."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
