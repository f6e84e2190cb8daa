"""Work that must not hold up the main thread and touches no node: a thread, polled by the panel's timer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ..errors import IntraopError


class BackgroundTask:
    """Runs ``work`` in a thread. On the main thread, :meth:`poll` hands its result to ``finished`` or its error's
    sentence to ``failed``, once. :meth:`abandon` lets it end unheard.
    """

    def __init__(
        self,
        what: str,
        work: Callable[[], Any],
        finished: Callable[[Any], None],
        failed: Callable[[str], None],
        discarded: Callable[[Any], None] = lambda _result: None,
    ) -> None:
        self.what = what
        #: 0..1, as the work tells; None while it does not.
        self.fraction: float | None = None
        self._finished, self._failed, self._discarded = finished, failed, discarded
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._abandoned = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"intraop {what}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except (IntraopError, OSError, MemoryError) as error:
            self._error = error
        except Exception as error:
            # A defect must be said on screen, not end a thread in silence.
            logging.getLogger(__name__).exception("defect while %s", self.what)
            self._error = RuntimeError(f"a defect in this software ({type(error).__name__}: {error})")
        with self._lock:
            unheard = self._abandoned and self._error is None
        if unheard:
            self._discarded(self._result)

    def poll(self) -> bool:
        """Whether the work has ended; then the outcome was told."""
        if self._thread.is_alive():
            return False
        if not self._abandoned:
            self._abandoned = True
            if self._error is not None:
                self._failed(str(self._error) or type(self._error).__name__)
            else:
                self._finished(self._result)
        return True

    def abandon(self) -> None:
        """Nobody waits for the outcome any more; a result that needs closing goes to ``discarded``."""
        with self._lock:
            heard, self._abandoned = self._abandoned, True
            unheard = not heard and not self._thread.is_alive() and self._error is None
        if unheard:
            self._discarded(self._result)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more: work that looks here may end early."""
        return self._abandoned

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)
