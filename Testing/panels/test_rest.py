"""Threads work on while the main thread, as in Slicer, waits for events with the interpreter's lock in its hand."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from extension.cmake_lists import MODULES
from host.fixtures import app, wait_until

__all__ = ["app"]
pytestmark = pytest.mark.usefixtures("app")

#: How often a thread of the test needs the lock again, as one that reads a socket does.
TURNS = 200


def ticks_meanwhile() -> int:
    """How often a panel's 20 ms timer fires before a thread has had its turns."""
    import qt

    fired: list[int] = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: fired.append(1))

    def work() -> None:
        for _ in range(TURNS):
            time.sleep(0.0001)  # any call that lets go of the lock

    thread = threading.Thread(target=work)
    timer.start(20)
    wait_until(lambda: len(fired) > 10, 10, "the first pictures of the views, which take long")
    fired.clear()
    thread.start()
    wait_until(lambda: not thread.is_alive(), 60, "the thread")
    timer.stop()
    return len(fired)


def rests() -> list[Any]:
    """Of both panels, as they are now: the tests beside this one reload them."""
    return [slicer.util.getModuleWidget(name).panel.rest for name in MODULES]


def test_while_a_panel_exists_threads_have_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    panels = rests()
    resting = ticks_meanwhile()
    for rest in panels:
        monkeypatch.setitem(rest._rest.__globals__, "threading", SimpleNamespace(active_count=lambda: 1))
    assert 2 * resting < ticks_meanwhile(), "without rest a thread has one turn in each tick of a panel"


def test_a_rest_comes_only_while_there_are_threads_and_ends_with_its_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, threads = type(rests()[0]), [2]
    monkeypatch.setitem(kind._rest.__globals__, "threading", SimpleNamespace(active_count=lambda: threads[0]))
    made = kind()
    wait_until(lambda: made._timer.interval == 0, 10, "the thread to be seen")
    threads[0] = 1
    wait_until(lambda: made._timer.interval > 0, 10, "its end to be seen")
    made.close()
    assert not made._timer.isActive()
