"""How a command ends early: a request to end and the end of the terminal stop it as Ctrl+C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A request to end and the end of the terminal stop a command as Ctrl+C does: nothing half-written stays."""
    # What is ignored, as under nohup, stays so.
    with _handled({"SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}, _end):
        yield


def load_scene() -> None:
    """Slicer's libraries, before anything is begun: an exception in the middle of their import is a crash.

    A signal ends the command there and then.
    """
    with _handled({"SIGINT": signal.default_int_handler, "SIGTERM": _end, "SIGHUP": _end}, signal.SIG_DFL):
        from ..scene import headless, offscreen, scene_io, session_view  # noqa: F401


def _end(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


@contextmanager
def _handled(expected: Mapping[str, Handler], handler: Handler) -> Iterator[None]:
    """Signals that are handled as expected are handled by another one."""
    before: dict[signal.Signals, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.Signals[name] for name in expected if hasattr(signal, name)):
            if signal.getsignal(number) is expected[number.name]:
                before[number] = expected[number.name]
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
