"""How the stages of a session speak: updates for the main thread, progress that may be answered by a stop, troubles."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from IntraopMRIReconstructionLib.errors import Cancelled, IntraopError

from .journal import Journal
from .updates import Problem, StageProgress, Update


class Teller:
    """Collects updates from any thread, oldest first; ``cancelled`` makes the next progress a stop."""

    def __init__(self, journal: Journal, cancelled: threading.Event) -> None:
        self._journal, self._cancelled = journal, cancelled
        self._updates: queue.SimpleQueue[Update] = queue.SimpleQueue()

    def drain(self) -> list[Update]:
        """Everything that was told since the last call, oldest first. Never waits."""
        result = []
        while True:
            try:
                result.append(self._updates.get_nowait())
            except queue.Empty:
                return result

    def tell(self, update: Update) -> None:
        """Hand an update to the main thread; problems are written down as well."""
        if isinstance(update, Problem):
            self._journal.event("problem" if update.fatal else "warning", f"{update.stage}: {update.text}")
            if update.about:
                self._journal.missing(update.about, update.text)
        self._updates.put(update)

    def progress(self, stage: str) -> Callable[[float, str], bool]:
        """What a stage calls with its fraction 0..1 and a word; False means stop."""

        def tell(fraction: float, what: str) -> bool:
            self._updates.put(StageProgress(stage, fraction, what))
            return not self._cancelled.is_set()

        return tell

    @contextmanager
    def reporting(self, stage: str, fatal: bool, working_on: str = "", about: str = "") -> Iterator[list[str]]:
        """What goes wrong inside becomes a problem that is shown; the list stays empty unless the block fills it.

        ``about``: see :class:`.updates.Problem`.
        """
        try:
            yield []
        except Cancelled:
            what = f" while working on '{working_on}'" if working_on else ""
            self.tell(Problem(stage, f"stopped{what}", fatal=False))
        except IntraopError as error:
            self.tell(Problem(stage, str(error), fatal, about))
        except Exception as error:
            # A defect must be said on screen, not end a thread in silence.
            logging.getLogger(__name__).exception("defect in stage '%s'", stage)
            text = f"a defect in this software stopped the stage ({type(error).__name__}: {error}); scan again"
            self.tell(Problem(stage, text, about=about))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Writes down how long the block took, when it ends well."""
        started = time.perf_counter()
        yield
        self._journal.timing(stage, time.perf_counter() - started)
