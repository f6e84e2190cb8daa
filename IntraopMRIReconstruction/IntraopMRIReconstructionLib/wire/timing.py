"""Time and age: what a sender's clock says, how late its messages are, and when a pose must not be believed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from ..data import Pose
from ..errors import WireError
from .adapters import Times, poses_from_message
from .message import Message
from .messages_tracking import MOST_TOOLS
from .trust import AS_SENT, PeerProfile

#: A pose older than this is not shown as a position. Ibis uses 0.2 s; SlicerIGT's 1.0 s is a long way for a hand.
STALE_AFTER_S = 0.2
#: A sender's clock further off than this is set wrong (1970, 2100), not merely unsynchronised.
WRONG_CLOCK_S = 86400.0
#: The smallest delay is looked for in the last one to two of these: long enough to meet an undisturbed message, short
#: enough to follow two clocks that drift apart by 1e-4.
WINDOW_S = 10.0

#: What can be wrong with a time stamp.
ABSENT, WRONG, BACKWARDS, FROZEN = "absent", "wrong clock", "backwards", "frozen"


@dataclass(frozen=True)
class SenderTime:
    """What one time stamp tells. ``sent_utc_s`` None: nothing that may be believed, ``fault`` says why.

    ``clock_offset_s``: sender's clock minus ours, plus nothing we could know about the shortest way of a message (a
    one-way stamp cannot tell an early clock from a slow link). ``latency_s``: how much later than the fastest recent
    message this one came.
    """

    sent_utc_s: float | None
    clock_offset_s: float | None = None
    latency_s: float | None = None
    fault: str = ""


class SenderClock:
    """Estimates the clock offset of one connection from the smallest delay in a moving window."""

    def __init__(self) -> None:
        self._least_now = self._least_before = float("inf")
        self._turned_s = float("-inf")
        self._last: dict[tuple[str, str], float] = {}

    def note(self, message: Message, received_utc_s: float, received_monotonic_s: float) -> SenderTime:
        """Judge the time stamp of a message that has just come."""
        sent = message.sent_utc_s
        if sent is None:
            return SenderTime(None, fault=ABSENT)
        if abs(sent - received_utc_s) > WRONG_CLOCK_S:
            return SenderTime(None, fault=WRONG)
        stream = (message.type_name, message.device)
        previous = self._last.get(stream)
        self._last[stream] = sent
        fault = ""
        if previous is not None and sent <= previous:
            fault = FROZEN if sent == previous else BACKWARDS
        if fault == BACKWARDS:
            # The sender's clock was set; delays measured against the old one mean nothing now.
            self._least_now = self._least_before = float("inf")
        if received_monotonic_s - self._turned_s > WINDOW_S:
            self._least_before, self._least_now = self._least_now, float("inf")
            self._turned_s = received_monotonic_s
        delay = received_utc_s - sent
        if fault != FROZEN:
            self._least_now = min(self._least_now, delay)
        least = min(self._least_now, self._least_before, delay)
        return SenderTime(sent, -least, delay - least, fault)


class ReceivedPose(Times, Protocol):
    """What a :class:`PoseBoard` needs to know: a transport.Received."""

    @property
    def message(self) -> Message:
        """What came."""


@dataclass(frozen=True, eq=False)
class PoseState:
    """The latest pose of a tool and whether it may be shown as a position.

    ``age_s``: since the tool was last known to be there: since its time stamp last advanced, or since it was received
    when its sender sets none. ``unusable_because``: "" or the reason in words.
    """

    pose: Pose
    age_s: float
    unusable_because: str

    @property
    def usable(self) -> bool:
        """Whether the pose may be shown as a position."""
        return not self.unusable_because


class PoseBoard:
    """Latest pose of every tool, and its age. Not for several threads at once."""

    def __init__(self, stale_after_s: float = STALE_AFTER_S, profile: PeerProfile = AS_SENT) -> None:
        self.stale_after_s = stale_after_s
        self.profile = profile
        self._poses: dict[str, tuple[Pose, int, float]] = {}

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of all tools seen so far."""
        return tuple(self._poses)

    def update(self, received: ReceivedPose) -> list[Pose]:
        """Take the poses of a TRANSFORM, POSITION, TDATA or QTDATA; returns them.

        Raises WireError for another message or too many tools, DataError for a matrix that is not rigid.
        """
        poses = poses_from_message(received.message, received, self.profile)
        if len(self._poses.keys() | {pose.tool for pose in poses}) > MOST_TOOLS:
            raise WireError(f"more than {MOST_TOOLS} tools: {received.message.device} invents names, disconnect it")
        stamp = received.message.timestamp
        for pose in poses:
            alive_s = received.received_monotonic_s
            if pose.tool in self._poses:
                _, stamp_before, alive_before_s = self._poses[pose.tool]
                if stamp and stamp == stamp_before:
                    alive_s = alive_before_s
            self._poses[pose.tool] = pose, stamp, alive_s
        return poses

    def state(self, tool: str, now_monotonic_s: float | None = None) -> PoseState | None:
        """Latest pose of a tool and whether it may be used now; None for a tool that never came."""
        if tool not in self._poses:
            return None
        pose, _, alive_s = self._poses[tool]
        now = time.monotonic() if now_monotonic_s is None else now_monotonic_s
        age_s = now - alive_s
        reason = ""
        if not pose.valid:
            reason = f"the tracker does not see '{tool}'"
        elif age_s > self.stale_after_s:
            frozen = pose.age_s(now) <= self.stale_after_s
            reason = f"'{tool}' has not moved on for {age_s:.2f} s" + (": its time stamp is frozen" if frozen else "")
        return PoseState(pose, age_s, reason)
