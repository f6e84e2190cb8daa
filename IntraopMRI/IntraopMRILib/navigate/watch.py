"""What may be shown of a pose: fresh and seen, or withdrawn with the reason; alarms that do not flutter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from IntraopMRIReconstructionLib.data import POSE_STALE_S, Heartbeat, Measurement, Pose
from IntraopMRIReconstructionLib.errors import DataError

#: A single late packet does not blank the view for good; this many fresh poses in a row end a withdrawal.
FRESH_POSES = 3
#: A tool that the tracker has not seen for so long (s) was laid aside: nobody waits for it, and an alarm that nobody
#: needs is overseen when it matters.
ASIDE_S = 30.0
#: It is taken up again when it is seen for so long (s): one that lies at the edge of the camera's view only glimpses.
TAKEN_UP_S = 2.0


class Trust(Enum):
    """Whether what rests on a pose may be shown."""

    LIVE = "live"
    STALE = "stale"
    RETURNING = "returning"
    NOT_SEEN = "not seen"
    ASIDE = "out of sight"
    NEVER = "never received"


@dataclass(frozen=True)
class PoseState:
    """Trust in the last pose, its age in s (None when there is none), and the reason in words when it is withdrawn."""

    trust: Trust
    age_s: float | None
    reason: str

    @property
    def live(self) -> bool:
        """Whether what rests on the pose may be shown."""
        return self.trust is Trust.LIVE


class PoseWatch:
    """Follows the poses of one tool. ``clock`` gives monotonic seconds, as in :meth:`Pose.age_s`.

    The age counts from the last pose whose stamp advanced: one that is repeated on a live link is not fresh.
    Every pose counts when the sender sets no time stamps (None). A tool that is not seen for ``ASIDE_S`` is laid aside
    until it is taken up, or somebody expects it; one whose tracker is silent is not.
    """

    def __init__(self, tool: str, clock: Callable[[], float], stale_s: float = POSE_STALE_S) -> None:
        if not stale_s > 0:
            raise DataError(f"stale_s must be positive, got {stale_s}")
        self.tool = tool
        self._clock = clock
        self._stale_s = stale_s
        self._pose: Pose | None = None
        self._heart, self._alive_s = Heartbeat(), float("-inf")
        self._fresh = FRESH_POSES
        #: Since when it is not seen, and since when it is seen again; from when on somebody has waited for it.
        self._lost_s: float | None = None
        self._seen_s: float | None = None
        self._expected_s = float("-inf")

    def expect(self) -> None:
        """Somebody wants to navigate with it now: when it is not seen, that matters again."""
        self._expected_s = self._clock()

    def update(self, pose: Pose) -> None:
        """Take in a pose. Poses of other tools, and late ones older than the last, are refused by DataError."""
        if pose.tool != self.tool:
            raise DataError(f"this watch follows '{self.tool}', got a pose of '{pose.tool}'")
        last = self._pose
        if last is not None and pose.received_monotonic_s < last.received_monotonic_s:
            raise DataError(f"the pose of '{pose.tool}' is older than the last one: poses must come in order")
        before_s, self._alive_s = self._alive_s, self._heart.note(pose.progress_s, pose.received_monotonic_s)
        if not pose.valid:
            self._fresh = 0
        elif last is not None and self._alive_s > before_s:
            steady = last.valid and self._alive_s - before_s <= self._stale_s
            self._fresh = min(FRESH_POSES, self._fresh + 1) if steady else 1
        self._pose = pose
        self._note(pose.valid, pose.received_monotonic_s)

    def _note(self, seen: bool, now_s: float) -> None:
        if not seen:
            self._seen_s = None
            self._lost_s = now_s if self._lost_s is None else self._lost_s
            return
        self._seen_s = now_s if self._seen_s is None else self._seen_s
        if self._lost_s is not None and (not self._aside(now_s) or now_s - self._seen_s >= TAKEN_UP_S):
            self._lost_s = None

    def _aside(self, now_s: float) -> bool:
        return self._lost_s is not None and now_s - max(self._lost_s, self._expected_s) > ASIDE_S

    @property
    def pose(self) -> Pose | None:
        """The last pose when it may be used, else None."""
        return self._pose if self.state().live else None

    def state(self) -> PoseState:
        """Trust in the last pose now."""
        if self._pose is None:
            return PoseState(Trust.NEVER, None, f"no pose of '{self.tool}' has arrived: check the tracker")
        now = self._clock()
        age = now - self._alive_s
        if not self._pose.valid and self._aside(now):
            return PoseState(Trust.ASIDE, age, f"'{self.tool}' is out of sight")
        if not self._pose.valid:
            return PoseState(Trust.NOT_SEEN, age, f"the tracker does not see '{self.tool}': clear the line of sight")
        if age > self._stale_s and self._pose.age_s(now) <= self._stale_s:
            reason = f"the time stamp of '{self.tool}' has stood still for {age:.1f} s: check the tracker"
            return PoseState(Trust.STALE, age, reason)
        if age > self._stale_s:
            return PoseState(Trust.STALE, age, f"the last pose of '{self.tool}' is {age:.1f} s old: check the tracker")
        if self._fresh < FRESH_POSES:
            return PoseState(Trust.RETURNING, age, f"'{self.tool}' has just come back: waiting for steady poses")
        return PoseState(Trust.LIVE, age, "")


class AlarmLevel(Enum):
    """How near is too near. UNKNOWN: the distance is not known now, which is not 'safe'."""

    SAFE = "safe"
    NEAR = "near"
    TOO_NEAR = "too near"
    UNKNOWN = "unknown"


class DistanceAlarm:
    """Levels of a distance with hysteresis: entered at once, left only ``hysteresis_mm`` beyond the limit.

    The lower end of the measurement's interval decides, since an alarm must not wait for certainty.
    """

    def __init__(self, near_mm: float, too_near_mm: float, hysteresis_mm: float = 0.5) -> None:
        if not 0 <= too_near_mm < near_mm or hysteresis_mm < 0:
            raise DataError(
                f"alarm limits must satisfy 0 <= too_near_mm < near_mm and hysteresis_mm >= 0, got {too_near_mm}, "
                f"{near_mm} and {hysteresis_mm}"
            )
        self._limits = ((AlarmLevel.TOO_NEAR, too_near_mm), (AlarmLevel.NEAR, near_mm))
        self._hysteresis = hysteresis_mm
        self.level = AlarmLevel.UNKNOWN

    def update(self, distance: Measurement) -> AlarmLevel:
        """The level after this distance (mm, signed, negative inside)."""
        if distance.value is None:
            self.level = AlarmLevel.UNKNOWN
            return self.level
        near = distance.value if distance.interval is None else distance.interval[0]
        held = _SEVERITY[self.level]
        for level, limit in self._limits:
            if near <= limit + (self._hysteresis if held >= _SEVERITY[level] else 0.0):
                self.level = level
                return level
        self.level = AlarmLevel.SAFE
        return self.level


_SEVERITY = {AlarmLevel.UNKNOWN: 0, AlarmLevel.SAFE: 0, AlarmLevel.NEAR: 1, AlarmLevel.TOO_NEAR: 2}
