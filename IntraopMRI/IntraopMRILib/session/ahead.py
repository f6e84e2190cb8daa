"""What is worked out between two scans of one look, while the injection is given and the next scan is taken.

The brain shift in the native scan is followed at once, though nothing shows it: the contrast scan of the same position
begins from it, and is registered for itself in a fraction of the time. The outline of the brain before the operation is
made once for all scans; that in a scan beside its rigid registration, which does not need it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import Cancelled, IntraopError

from ..register.deformable import DeformableRegistration, register_deformable
from ..register.deformable_work import preoperative_brain
from ..register.rigid import RigidRegistration
from .journal import Journal
from .plan import Plan
from .updates import Problem, Update

#: Beside anything else this work waits (Linux: 19 is the last to be served). On other systems one thread has to do.
NICE = 10


class Ahead:
    """Of one session. One scan at a time, on one thread of low priority; every method from any thread."""

    def __init__(self, plan: Plan, journal: Journal, tell: Callable[[Update], None]) -> None:
        self._plan, self._journal, self._tell = plan, journal, tell
        self._lock, self._beside = threading.Lock(), ThreadPoolExecutor(1, "intraop outline")
        #: Of the brain, in the preoperative volume and the newest scan.
        self._outlines: dict[Image, Future[Image | None]] = {}
        self._native: Image | None = None
        self._found: DeformableRegistration | None = None
        #: Of the run that goes on: what it finds after that is set is nobody's.
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, native: Image, rigid: RigidRegistration) -> None:
        """Follow the brain shift in this registered scan, from now on the only one; it is not begun twice."""
        with self._lock:
            if self._native is native and not self._stopped.is_set():
                return
            self._forget()
            self._native, self._stopped = native, threading.Event()
            work = (native, rigid, self._stopped, self._thread)
            self._thread = threading.Thread(target=self._run, args=work, name="intraop ahead", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """A scan has come: what is not finished by now is given up."""
        with self._lock:
            if self._found is None:
                self._stopped.set()

    def drop(self) -> None:
        """What was found counts no longer."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        """Give up, and wait until nothing runs any more."""
        self.drop()
        if self._thread is not None:
            self._thread.join()
        self._beside.shutdown()

    def found_in(self, native: Image) -> DeformableRegistration | None:
        """What was found in that very scan; None when it is not finished, or could not be trusted."""
        with self._lock:
            return self._found if self._native is native else None

    def outline(self, scan: Image) -> None:
        """Begin to outline the brain in this scan, from now on the only one, and once in the preoperative volume."""
        with self._lock:
            known = self._outlines
            self._outlines = {
                image: known.get(image) or self._beside.submit(_outline, image)
                for image in (self._plan.preoperative, scan)
            }

    def brain_in(self, image: Image) -> Image | None:
        """Outline of the brain, waited for; None when none comes loose from the head, or for another scan."""
        with self._lock:
            outline = self._outlines.get(image)
        return None if outline is None else outline.result()

    def _forget(self) -> None:
        self._stopped.set()
        self._native = self._found = None

    def _run(
        self, native: Image, rigid: RigidRegistration, stopped: threading.Event, before: threading.Thread | None
    ) -> None:
        if before is not None:
            before.join()
        _give_way()
        started = time.perf_counter()
        try:
            found = register_deformable(
                native,
                self._plan.preoperative,
                rigid,
                fixed_mask=self.brain_in(native),
                moving_mask=self.brain_in(self._plan.preoperative),
                tumour=self._plan.tumour,
                progress=lambda _fraction, _what: not stopped.is_set(),
                threads=1,
            )
        except Cancelled:
            return
        except IntraopError as error:
            # The contrast scan is tried from the beginning, and says for itself what is wrong.
            self._journal.event("ahead", f"the brain shift in '{native.name}' cannot be followed: {error}")
            return
        except Exception as error:
            logging.getLogger(__name__).exception("defect in the work ahead")
            text = f"a defect in this software stopped the work ahead ({type(error).__name__}: {error})"
            self._tell(Problem("work ahead", f"{text}; the next scan is registered without it", fatal=False))
            return
        with self._lock:
            if stopped.is_set() or found.verdict.level is Level.REFUSED:
                return
            self._found = found
        self._journal.timing(f"follow the brain shift ahead: {native.name}", time.perf_counter() - started)


def _outline(image: Image) -> Image | None:
    try:
        return preoperative_brain(image)
    except IntraopError:
        # The registration that needs it finds the same, and says so.
        return None


def _give_way() -> None:
    """Let every other thread of this computer go first, this thread's own threads as well."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
