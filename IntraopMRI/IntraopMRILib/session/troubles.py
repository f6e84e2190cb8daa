"""What comes again and again, as a link that flaps all night, in a few lines that lose neither count nor times."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..workflow.record import Event, utc_now

#: What comes again within so long (s) belongs to the same trouble; so many lines of it stand alone, one for the rest.
SAME_TROUBLE_S, LINES_OF_TROUBLE = 600.0, 3
#: Troubles that are counted at once; of more the one that was quiet for longest is forgotten.
MOST_TROUBLES = 100
_NUMBERS = re.compile(r"\d+")


@dataclass
class _Trouble:
    """``line``: the event that stands for all beyond the first ones."""

    since_utc: str
    count: int = 0
    last_s: float = 0.0
    line: Event | None = None


class Troubles:
    """Not for several threads at once. ``now``: monotonic clock, s."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._known: dict[tuple[str, str], _Trouble] = {}

    def note(self, events: tuple[Event, ...], kind: str, text: str) -> tuple[tuple[Event, ...], int]:
        """The events with one more, and how often it has come by now.

        The same, but for numbers in it, has a line of its own the first times. From then on one line says how often it
        came, since when, and when last; after a quiet time it begins anew.
        """
        key, now_s, utc = (kind, _NUMBERS.sub("#", text)), self._now(), utc_now()
        trouble = self._known.pop(key, None)
        if trouble is None or now_s - trouble.last_s > SAME_TROUBLE_S:
            trouble = _Trouble(utc)
        # In the order of their last times, so that the first one was quiet for longest.
        self._known[key] = trouble
        if len(self._known) > MOST_TROUBLES:
            del self._known[next(iter(self._known))]
        trouble.count, trouble.last_s = trouble.count + 1, now_s
        if trouble.count <= LINES_OF_TROUBLE:
            return (*events, Event(utc, kind, text)), trouble.count
        text = f"{text} ({trouble.count} times since {trouble.since_utc}, last {utc})"
        before = trouble.line
        trouble.line = line = Event(utc if before is None else before.utc, kind, text)
        if before is None:
            return (*events, line), trouble.count
        return tuple(line if event is before else event for event in events), trouble.count
