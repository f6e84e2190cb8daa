"""What is worked out between two scans: begun from where it holds for the next scan, dropped in every other case."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess.margin import Margin
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.session import Session, resection
from IntraopMRILib.session.updates import (
    ImageReady,
    PlanCarried,
    Problem,
    ResidualFound,
    Role,
    ShiftFound,
    StageProgress,
    Update,
)
from IntraopMRIReconstructionLib.data import Image, Level, Progress, no_progress
from session.small_world import BEGUN_S, SmallWorld, Truth

PATIENCE_S = 30.0


class Theatre:
    """A session without a scanner. ``begun``: name of each scan whose shift was followed, and that of its start."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.world = SmallWorld()
        self.world.stand_in(patch)
        self.begun: list[tuple[str, str | None]] = []
        #: Names of both images of each, and of the scans that the outlines came from that were given with them.
        self.outlined: list[tuple[str, str, str, str]] = []
        self.made: list[str] = []
        patch.setattr("IntraopMRILib.session.ahead.preoperative_brain", self._brain)
        #: What is done before a shift is followed; returns what its progress is told to.
        self.hold: Callable[[Image, Progress], Progress] = lambda _image, progress: progress
        for place in ("session", "ahead"):
            patch.setattr(f"IntraopMRILib.session.{place}.register_deformable", self._follow)
        self.session = Session(self.world.brain())
        self.session.connect(None)
        self.taken_s, self.told = BEGUN_S, list[Update]()

    def _brain(self, image: Image) -> Image:
        self.made.append(image.name)
        return image.with_array(np.ones(image.array.shape, np.uint8), image.name)

    def _follow(
        self, fixed: Image, *args: Any, start: DeformableRegistration | None = None, progress: Progress, **more: Any
    ) -> DeformableRegistration:
        self.outlined.append((fixed.name, more["fixed_mask"].name, args[0].name, more["moving_mask"].name))
        found = self.world._deformable(fixed, *args, progress=self.hold(fixed, progress), **more)
        self.begun.append((fixed.name, None if start is None else start.fixed_uid))
        return found if start is None else replace(found, begun_from=start.fixed_uid)

    def scan(self, role: Role, truth: Truth | None = None, after_s: float = 300.0) -> Image:
        """Chosen by a person; done when the worker is."""
        image = self.offer(role, truth, after_s)
        self.until(lambda: not self.session.working)
        return image

    def offer(self, role: Role, truth: Truth | None = None, after_s: float = 300.0) -> Image:
        """The same without waiting."""
        self.taken_s += after_s
        image = self.world.scan(role, truth or Truth(), self.taken_s)
        self.session.offer_scan(image, role)
        return image

    def ahead(self) -> None:
        """Until nothing is worked out any more."""
        self.until(lambda: self.session._ahead._thread is None or not self.session._ahead._thread.is_alive())

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline
            self.told += self.session.drain()
            time.sleep(0.005)
        self.told += self.session.drain()

    def start_of(self, contrast: Image) -> str | None:
        """Uid of the scan that the contrast scan's shift was begun from; it was followed once."""
        starts = [start for name, start in self.begun if name == contrast.name]
        assert len(starts) == 1
        return starts[0]


@pytest.fixture
def theatre(monkeypatch: pytest.MonkeyPatch) -> Iterator[Theatre]:
    here = Theatre(monkeypatch)
    with here.session:
        yield here


def test_the_contrast_scan_begins_from_the_native_one_and_all_is_its_own(theatre: Theatre) -> None:
    native = theatre.scan("native")
    theatre.ahead()
    assert theatre.begun == [(native.name, None)]
    assert not any(isinstance(update, ShiftFound) for update in theatre.told)
    record = theatre.session.journal.record
    assert record.registration is not None
    assert record.registration.fixed_uid == native.uid
    assert record.registration.method.startswith("rigid:")
    contrast = theatre.scan("contrast")
    assert theatre.start_of(contrast) == native.uid
    shift = next(update for update in theatre.told if isinstance(update, ShiftFound))
    assert shift.image is contrast
    assert shift.deformable.fixed_uid == contrast.uid
    assert [update.image for update in theatre.told if isinstance(update, PlanCarried)][-1] is contrast
    assert any(isinstance(update, ResidualFound) for update in theatre.told)
    record = theatre.session.journal.record
    assert record.registration is not None
    assert record.registration.fixed_uid == contrast.uid
    assert record.registration.method.endswith("begun from what was found ahead in the native scan")
    again = theatre.scan("contrast")
    assert theatre.start_of(again) == native.uid


@pytest.mark.parametrize(
    ("native", "contrast", "after_s"),
    [
        pytest.param(Truth(), Truth(moved_mm=5.0), 300.0, id="the patient moved"),
        pytest.param(Truth(), Truth(), 3700.0, id="operated on for an hour"),
        pytest.param(Truth(whole=Level.REFUSED), Truth(), 300.0, id="native pose refused"),
        pytest.param(Truth(shift=Level.REFUSED), Truth(), 300.0, id="native shift refused"),
        pytest.param(Truth(shift=None), Truth(), 300.0, id="no brain in the native scan"),
        pytest.param(Truth(defect="follow"), Truth(), 300.0, id="a defect"),
    ],
)
def test_what_does_not_hold_for_the_contrast_scan_is_dropped(
    theatre: Theatre, native: Truth, contrast: Truth, after_s: float
) -> None:
    theatre.scan("native", native)
    theatre.ahead()
    image = theatre.scan("contrast", contrast, after_s)
    assert theatre.start_of(image) is None
    assert [update.image for update in theatre.told if isinstance(update, ShiftFound)] == [image]


def test_a_defect_in_the_work_ahead_is_said_and_is_not_fatal(theatre: Theatre) -> None:
    theatre.scan("native", Truth(defect="follow"))
    theatre.ahead()
    theatre.until(lambda: True)
    problem = next(update for update in theatre.told if isinstance(update, Problem))
    assert problem.stage == "work ahead"
    assert not problem.fatal


def test_an_exchanged_native_scan_takes_its_work_with_it(theatre: Theatre) -> None:
    first = theatre.scan("native")
    theatre.ahead()
    begun = threading.Event()

    def endless(image: Image, progress: Progress) -> Progress:
        if image.name == first.name:
            return progress
        begun.set()
        return _wait(progress)

    theatre.hold = endless
    theatre.scan("native")
    theatre.until(begun.is_set)
    theatre.hold = lambda _image, progress: progress
    contrast = theatre.scan("contrast")
    # That of the second one was not done, that of the first one is nobody's.
    assert theatre.start_of(contrast) is None
    third = theatre.scan("native")
    theatre.ahead()
    assert theatre.start_of(theatre.scan("contrast")) == third.uid


def test_an_exchanged_native_scan_with_the_contrast_scan_on_its_heels(theatre: Theatre) -> None:
    theatre.scan("native")
    theatre.ahead()
    both_came = threading.Event()
    theatre.world.during = lambda _stage: _until(both_came)
    theatre.offer("native")
    contrast = theatre.offer("contrast")
    both_came.set()
    theatre.until(lambda: not theatre.session.working)
    assert theatre.start_of(contrast) is None


def test_a_native_scan_of_another_patient_changes_nothing(theatre: Theatre) -> None:
    native = theatre.scan("native")
    theatre.ahead()
    with pytest.raises(Exception, match="SOMEBODY-ELSE"):
        theatre.session.offer_scan(theatre.world.scan("native", Truth(), None, "SOMEBODY-ELSE"), "native")
    assert theatre.start_of(theatre.scan("contrast")) == native.uid


def test_who_rejects_what_was_carried_over_gets_the_next_scan_from_the_beginning(theatre: Theatre) -> None:
    theatre.scan("native")
    theatre.ahead()
    theatre.scan("contrast")
    carried = [update for update in theatre.told if isinstance(update, PlanCarried)][-1]
    first, second = [item for item in carried.items if item.offered][:2]
    theatre.session.decide(first, True, "Dr. Example")
    again = theatre.scan("contrast")
    assert theatre.start_of(again) is not None
    carried = [update for update in theatre.told if isinstance(update, PlanCarried)][-1]
    assert all(item.accepted is None for item in carried.items)
    theatre.session.decide(next(item for item in carried.items if item.key == second.key), False, "Dr. Example")
    assert theatre.start_of(theatre.scan("contrast")) is None


def test_a_scan_that_comes_stops_the_work_and_does_not_wait_for_it(theatre: Theatre) -> None:
    stopped, go_on = threading.Event(), threading.Event()

    def deaf(image: Image, progress: Progress) -> Progress:
        if "contrast" in image.name:
            return progress
        _wait(progress)
        stopped.set()
        _until(go_on)
        return no_progress

    theatre.hold = deaf
    theatre.scan("native")
    contrast = theatre.scan("contrast")
    assert stopped.wait(PATIENCE_S)
    assert theatre.start_of(contrast) is None
    assert any(isinstance(update, ResidualFound) for update in theatre.told)
    go_on.set()
    theatre.ahead()
    assert all(isinstance(update, Problem) is False for update in theatre.told)
    # What came to its end too late is nobody's.
    assert theatre.start_of(theatre.scan("contrast")) is None


def test_a_session_that_ends_leaves_nothing_running(theatre: Theatre) -> None:
    theatre.hold = lambda _image, progress: _wait(progress)
    theatre.scan("native")
    theatre.session.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("intraop ahead", "intraop outline"))]


def test_the_work_ahead_is_not_told_as_work(theatre: Theatre) -> None:
    theatre.hold = lambda _image, progress: _wait(progress)
    theatre.scan("native")
    assert not theatre.session.working
    ready = [update for update in theatre.told if isinstance(update, ImageReady)]
    assert len(ready) == 1
    theatre.session.cancel()
    assert theatre.session._ahead._thread is not None


def test_each_brain_is_outlined_once_and_belongs_to_its_own_scan(theatre: Theatre) -> None:
    native = theatre.scan("native")
    theatre.ahead()
    contrast, again = theatre.scan("contrast"), theatre.scan("contrast")
    assert theatre.made == ["before", native.name, contrast.name, again.name]
    assert theatre.outlined == [(scan.name, scan.name, "before", "before") for scan in (native, contrast, again)]


def test_the_residual_comes_first_and_meanwhile_the_margin_says_that_it_is_to_come(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = threading.Event()

    def later(*args: Any) -> Margin:
        _until(shown)
        return resection.margin_found(*args)

    monkeypatch.setattr("IntraopMRILib.session.behind.margin_found", later)
    theatre.scan("native")
    contrast = theatre.offer("contrast")
    theatre.until(lambda: any(isinstance(update, ResidualFound) for update in theatre.told))
    journal = theatre.session.journal
    entry = journal.record.margin
    assert entry is not None
    assert entry.image_uid == contrast.uid
    assert entry.closest.value is None
    assert entry.closest.missing_because == resection.TO_COME
    assert theatre.session.measuring
    shown.set()
    theatre.until(lambda: not theatre.session.working)
    entry = journal.record.margin
    assert entry is not None
    assert entry.closest.value is not None
    assert not theatre.session.measuring
    last = [update for update in theatre.told if isinstance(update, StageProgress)][-1]
    assert (last.stage, last.fraction) == ("measure the margin", 1.0)


def test_a_margin_that_fails_takes_nothing_along_and_is_not_waited_for(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_args: Any) -> Margin:
        raise ZeroDivisionError("in the margin")

    monkeypatch.setattr("IntraopMRILib.session.behind.margin_found", defect)
    theatre.scan("native")
    theatre.scan("contrast")
    record = theatre.session.journal.record
    assert record.residual is not None
    assert record.margin is not None
    assert "could not be measured" in record.margin.closest.missing_because
    assert [update.stage for update in theatre.told if isinstance(update, Problem)] == ["measure the margin"]


def test_who_stops_at_the_residual_gets_no_margin_and_nothing_waits_for_one(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any) -> ResidualFound:
        theatre.session.cancel()
        return resection.residual_found(*args)

    monkeypatch.setattr("IntraopMRILib.session.session.residual_found", stopped)
    theatre.scan("native")
    theatre.scan("contrast")
    record = theatre.session.journal.record
    assert record.residual is None
    assert record.margin is not None
    assert record.margin.closest.value is None
    assert not theatre.session.measuring


def _until(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


def _wait(progress: Progress) -> Progress:
    """Works on until told to stop."""
    deadline = time.monotonic() + PATIENCE_S
    while progress(0.5, "waiting"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return progress
