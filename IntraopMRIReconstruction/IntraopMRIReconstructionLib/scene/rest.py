"""Time for the threads of Python: Slicer's main thread holds the interpreter's lock while it waits for events.

Nothing in Slicer lets go of that lock: PythonQt can (PythonQt::setEnableThreadSupport) and is not asked to. Sockets and
workers would only run during Python code of the main thread, for one short turn in each tick of a panel.
"""

from __future__ import annotations

import threading
import time

import qt

#: How long one rest takes, s: a click waits for no more than that, and it costs a hundredth of it.
REST_S = 0.002
#: How often to look whether there is another thread, ms.
LOOK_MS = 20


class Rest:
    """Lets go of the interpreter's lock whenever no event waits, as long as Python has another thread."""

    def __init__(self) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(LOOK_MS)
        self._timer.connect("timeout()", self._rest)
        self._timer.start()

    def close(self) -> None:
        """Rest no more."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._rest)

    def _rest(self) -> None:
        interval_ms = LOOK_MS
        if threading.active_count() > 1:
            time.sleep(REST_S)
            interval_ms = 0  # comes when all other events are done
        if self._timer.interval != interval_ms:
            self._timer.setInterval(interval_ms)
