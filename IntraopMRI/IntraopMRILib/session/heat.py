"""Thermometry of a session: where a person has marked the heat, and what each frame says of it.

The mark may come before, during or after the scan: all frames since the reference are looked at again by it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from IntraopMRIReconstructionLib.data import Encoding, Image, Measurement
from IntraopMRIReconstructionLib.errors import IntraopError, ReconstructionError, SessionError
from IntraopMRIReconstructionLib.reconstruct.ablation import (
    PRF,
    RISK_ALARM_C,
    HeatNumbers,
    hottest_place,
    in_structure,
)
from IntraopMRIReconstructionLib.reconstruct.auto import Frame
from IntraopMRIReconstructionLib.reconstruct.frame_clock import interval_s
from IntraopMRIReconstructionLib.reconstruct.live import LiveScan
from IntraopMRIReconstructionLib.reconstruct.quantities import (
    SCAN_FOR,
    Heating,
    LiveThermometer,
    missing_for,
)
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction

from ..workflow.record import HeatEntry, utc_now
from .journal import Journal
from .products import map_of
from .updates import HeatMeasured, PlanCarried, Problem, RiskHeat, Update

#: A frame is stale when so many others should have come since, and not before some seconds.
STALE_FRAMES, LEAST_STALE_S = 2.5, 4.0
#: What is told in the place of numbers when a person has asked for a new reference.
RESET = "the reference was reset: the next frame is the new one"


class Thermometry:
    """The heat of one session. A person's choices come from any thread; all else is for the receiver thread."""

    def __init__(self, journal: Journal, tell: Callable[[Update], None]) -> None:
        self._journal, self._tell = journal, tell
        self._lock = threading.Lock()
        self._wanted = Heating()
        self._reset = False
        self._labels: Mapping[str, tuple[Image, ...]] = {}
        self._within_mm: Mapping[str, float] = {}
        self._changed = False
        self._scan: _HeatScan | None = None

    # Any thread

    def mark(self, heating: Heating) -> None:
        """A person says where it is heated, how far around, and how warm the tissue was before. Raises SessionError."""
        if not (heating.radius_mm > 0 and 0 < heating.baseline_c < RISK_ALARM_C):
            raise SessionError(
                f"a mark needs a radius above 0 mm and a baseline between 0 and {RISK_ALARM_C:g} °C, got "
                f"{heating.radius_mm:g} mm and {heating.baseline_c:g} °C"
            )
        where = heating.spot_ras_mm
        if where is not None and not all(map(math.isfinite, where)):
            raise SessionError(f"a mark needs a place in RAS mm, got {where}")
        with self._lock:
            self._wanted, self._changed = heating, True
        words = "none" if where is None else f"RAS {where[0]:.1f} {where[1]:.1f} {where[2]:.1f} mm"
        self._journal.event(
            "heat", f"marked: {words}, radius {heating.radius_mm:g} mm, baseline {heating.baseline_c:g} °C"
        )

    def new_reference(self) -> None:
        """The tissue has cooled, or lies elsewhere: the next frame is the reference. SessionError without a scan."""
        if self._scan is None or self._scan.ended:
            raise SessionError("no temperature scan is running: its first frame will be the reference")
        with self._lock:
            self._reset = self._changed = True
        self._journal.event("heat", "a new reference was asked for")

    def at_risk(self, carried: PlanCarried | None) -> None:
        """Structures at risk where the newest registration puts them; None when it was withdrawn."""
        with self._lock:
            self._labels, self._within_mm, self._changed = {}, {}, True
            if carried is not None:
                # Whether a person follows the brain shift or not: both places are watched.
                self._labels = {
                    name: tuple(label for label in labels if label is not None)
                    for name, labels in carried.labels.items()
                }
                self._within_mm = {i.name: i.uncertainty_mm for i in carried.items if i.kind == "risk"}

    # Receiver thread

    def begin(self, encoding: Encoding) -> bool:
        """A scan begins; whether it is one of temperature, whose header has what that needs. What it lacks is told."""
        wanted = encoding.metadata.get(SCAN_FOR) == "temperature"
        if wanted and (lacks := missing_for("temperature", encoding)):
            self._tell(Problem("heat", f"no temperature from this scan: {lacks}", fatal=False))
            wanted = False
        with self._lock:
            self._reset = False
            self._scan = _HeatScan(encoding, self._wanted) if wanted else None
        return wanted

    def take(self, live: LiveScan, last: bool, received_s: float) -> Reconstruction | None:
        """Tell what the frames say that became whole by the last block; returns the newest map, None before the first.

        That of the last frame is left to whom the scan is handed over to. Why a frame is no use is told, and it is left
        out.
        """
        scan, new, refused = self._scan, False, False
        assert scan is not None
        self._follow_choices()
        for frame in live.whole(last):
            if frame.contrast:
                continue
            with self._lock:
                again, self._reset = self._reset, False
            if again:
                if scan.newest is not None:
                    self._told(scan.numbers().without(RESET))
                self._scan = scan = _HeatScan(scan.encoding, self._wanted)
            try:
                scan.newest, scan.received_s = self._added(scan, frame), received_s
            except ReconstructionError as error:
                if str(error) not in scan.said:
                    scan.said.add(str(error))
                    self._tell(Problem("heat", f"frame {frame.repetition}: {error}", fatal=False))
                    refused = scan.newest is not None
                continue
            new = True
            scan.latencies_s.append(time.monotonic() - received_s)
        scan.ended = last
        if new and not last:
            self._show()
        if new or last or refused:
            self._measure()
        return scan.newest

    def _added(self, scan: _HeatScan, frame: Frame) -> Reconstruction:
        """The map of a frame; a mark that another scan has left, and that this one does not hold, does not stop it."""
        heating = scan.thermometer.heating
        try:
            return scan.thermometer.add(frame)
        except ReconstructionError as error:
            if scan.newest is not None or heating.spot_ras_mm is None:
                raise
            self._tell(Problem("heat", str(error), fatal=False))
            scan.thermometer = LiveThermometer(replace(heating, spot_ras_mm=None))
            return scan.thermometer.add(frame)

    def check(self) -> None:
        """Follow what a person chose meanwhile; to be called regularly."""
        if self._scan is not None and self._follow_choices() and self._scan.newest is not None:
            self._show()
            self._measure()

    def lost(self) -> None:
        """The scan has stopped before its end."""
        if self._scan is not None:
            self._scan.ended = True
            self._measure()

    def _show(self) -> None:
        assert self._scan is not None
        assert self._scan.newest is not None
        maps = map_of(self._scan.newest.image, self._scan.newest)
        assert maps is not None
        self._tell(maps)

    def _follow_choices(self) -> bool:
        scan = self._scan
        assert scan is not None
        with self._lock:
            wanted, changed, self._changed = self._wanted, self._changed, False
        if not changed:
            return False
        try:
            scan.newest = scan.thermometer.told(wanted) or scan.newest
            scan.risks.clear()
            if wanted != scan.good_by:
                scan.good, scan.good_by = None, wanted
        except IntraopError as error:
            with self._lock:
                self._wanted = scan.thermometer.heating
            self._tell(Problem("heat", str(error), fatal=False))
        return True

    def _measure(self) -> None:
        scan = self._scan
        assert scan is not None
        if scan.newest is None:
            return
        if self._reset:
            self._told(scan.numbers().without(RESET))
            return
        with self._lock:
            labels, within = dict(self._labels), dict(self._within_mm)
        numbers, heat = scan.numbers(), scan.thermometer.heat
        assert heat is not None
        for name, where in labels.items():
            temperature, dose, note = in_structure(heat, scan.newest.image, name, where, within.get(name, 0.0))
            if numbers.missing_because:
                temperature, dose = (
                    replace(m, value=None, interval=None, missing_because=numbers.missing_because)
                    for m in (temperature, dose)
                )
            elif numbers.volume.value is None and dose.value is not None:
                # The time is not known, or frames of it are missing.
                dose = replace(dose, value=None, interval=None, missing_because=numbers.volume.missing_because)
            before = scan.risks.get(name)
            scan.risks[name] = RiskHeat(name, temperature, dose, note, _higher(before, temperature))
        self._told(numbers)

    def _told(self, numbers: HeatNumbers) -> None:
        scan = self._scan
        assert scan is not None
        assert scan.newest is not None
        heat = scan.thermometer.heat
        assert heat is not None
        found = HeatMeasured(
            scan.encoding.protocol or scan.encoding.scan_id,
            int(scan.newest.parameters["frame"]),
            numbers,
            tuple(scan.risks.values()),
            scan.thermometer.heating,
            hottest_place(heat, scan.newest.image),
            scan.received_s,
            scan.latencies_s[-1],
            scan.stale_s,
            scan.ended,
        )
        self._journal.heat(scan.entry(found))
        self._tell(found)


class _HeatScan:
    """One temperature scan since its reference."""

    def __init__(self, encoding: Encoding, heating: Heating) -> None:
        self.encoding, self.thermometer = encoding, LiveThermometer(heating)
        self.newest: Reconstruction | None = None
        self.received_s, self.ended = 0.0, False
        self.began_utc = utc_now()
        #: From the last line of a frame to its map.
        self.latencies_s: list[float] = []
        self.risks: dict[str, RiskHeat] = {}
        #: Why frames were left out, each once.
        self.said: set[str] = set()
        #: The last numbers that there were, for the present mark.
        self.good: HeatNumbers | None = None
        self.good_by = heating
        self._interval_s = interval_s(encoding)
        self.stale_s = max(LEAST_STALE_S, STALE_FRAMES * self._interval_s)

    def numbers(self) -> HeatNumbers:
        assert self.newest is not None
        return self.thermometer.numbers(self.newest.image)

    def entry(self, found: HeatMeasured) -> HeatEntry:
        """What the record keeps: the highest peak of all frames, and the dose as long as it was known."""
        if not found.numbers.missing_because:
            self.good = found.numbers
        numbers, course = self.good or found.numbers, self.thermometer.course
        peak = numbers.peak
        if course:
            at = max(course, key=lambda frame: course[frame][0])
            value, low, high = course[at]
            definition = f"{peak.definition}; highest of all frames, in frame {at}"
            peak = replace(peak, value=value, interval=(low, high), missing_because="", definition=definition)
        first = min(course, default=0)
        spot = found.heating.spot_ras_mm
        return HeatEntry(
            scan=found.scan,
            began_utc=self.began_utc,
            newest_utc=utc_now(),
            ended=found.ended,
            frames=len(self.latencies_s),
            reference_frame=first,
            spot_ras_mm=spot,
            radius_mm=found.heating.radius_mm,
            baseline_c=found.heating.baseline_c,
            measurements=(peak, numbers.dose, numbers.volume, *(m for r in found.risks for m in (r.highest, r.dose))),
            course=tuple(((frame - first) * self._interval_s, *course[frame]) for frame in sorted(course)),
            notes=tuple(
                note for note in (found.numbers.missing_because, *numbers.notes, *(r.note for r in found.risks)) if note
            ),
            latency_s=float(np.percentile(self.latencies_s, 95)),
            source=PRF,
        )


def _higher(before: RiskHeat | None, now: Measurement) -> Measurement:
    """The higher one of the highest temperature so far and that of this frame."""
    if before is None or before.highest.value is None or (now.value is not None and now.value > before.highest.value):
        return now
    return before.highest
