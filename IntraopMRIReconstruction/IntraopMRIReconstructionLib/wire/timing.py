"""Time and age: what a sender's clock says, how late its messages are, and when a pose must not be believed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..data import POSE_STALE_S, Heartbeat, Pose
from ..errors import WireError
from .adapters import Times, poses_from_message
from .message import Message
from .messages_tracking import MOST_TOOLS
from .trust import AS_SENT, PeerProfile

#: A sender's clock further off than this is set wrong (1970, 2100), not merely unsynchronised.
WRONG_CLOCK_S = 86400.0
#: The smallest delay is looked for in the last one to two of these: long enough to meet an undisturbed message, short
#: enough to follow two clocks that drift apart by 1e-4.
WINDOW_S = 10.0

#: After so long without a pose from its tracker, a tool may come from another one: a tracker that comes back does so
#: under another port.
HANDOVER_S = 2.0

#: What can be wrong with a time stamp.
ABSENT, WRONG, BACKWARDS, FROZEN = "absent", "wrong clock", "backwards", "frozen"


class SenderTime(NamedTuple):
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

    @property
    def peer(self) -> str:
        """Who sent it."""


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


@dataclass(eq=False)
class _Tool:
    source: str
    pose: Pose
    alive_s: float
    #: Who else sends a tool of this name, and when last.
    rivals: dict[str, float] = field(default_factory=dict)
    heart: Heartbeat = field(default_factory=Heartbeat)

    def others(self, now_s: float, source: str = "") -> dict[str, float]:
        """Rivals that were there a moment ago, but for ``source``."""
        return {other: at for other, at in self.rivals.items() if now_s - at <= HANDOVER_S and other != source}


class PoseBoard:
    """Latest pose of every tool, and its age. Not for several threads at once.

    A tool comes from one tracker. While a second one sends a tool of the same name, neither is believed: which of them
    is meant cannot be known.
    """

    def __init__(self, stale_after_s: float = POSE_STALE_S, profile: PeerProfile = AS_SENT) -> None:
        self.stale_after_s = stale_after_s
        self.profile = profile
        self._tools: dict[str, _Tool] = {}

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of all tools seen so far."""
        return tuple(self._tools)

    def update(self, received: ReceivedPose) -> list[Pose]:
        """Take the poses of a TRANSFORM, POSITION, TDATA or QTDATA; returns those that were taken.

        Raises WireError for another message, too many tools, or when all its tools come from another tracker already;
        DataError for a matrix that is not rigid.
        """
        poses = poses_from_message(received.message, received, self.profile)
        if len(self._tools.keys() | {pose.tool for pose in poses}) > MOST_TOOLS:
            raise WireError(f"more than {MOST_TOOLS} tools: {received.message.device} invents names, disconnect it")
        message, now_s = received.message, received.received_monotonic_s
        source = f"{message.type_name} '{message.device}' of {received.peer}"
        taken = []
        for pose in poses:
            tool = self._tools.get(pose.tool)
            if tool is None:
                tool = self._tools[pose.tool] = _Tool(source, pose, now_s)
            elif tool.source != source and now_s - tool.pose.received_monotonic_s > HANDOVER_S:
                # One of several that are left is no more to be believed than before.
                tool = self._tools[pose.tool] = _Tool(source, pose, now_s, tool.others(now_s, source))
            elif tool.source != source:
                tool.rivals = {**tool.others(now_s), source: now_s}
                continue
            tool.pose, tool.alive_s = pose, tool.heart.note(message.timestamp or None, now_s)
            taken.append(pose)
        if poses and not taken:
            raise WireError(f"{source} sends '{poses[0].tool}', which comes from another tracker already: rename one")
        return taken

    def state(self, tool: str, now_monotonic_s: float | None = None) -> PoseState | None:
        """Latest pose of a tool and whether it may be used now; None for a tool that never came."""
        followed = self._tools.get(tool)
        if followed is None:
            return None
        pose = followed.pose
        now = time.monotonic() if now_monotonic_s is None else now_monotonic_s
        age_s = now - followed.alive_s
        reason = ""
        if rivals := followed.others(now):
            reason = f"two trackers send '{tool}': {followed.source} and {list(rivals)[-1]}; rename or disconnect one"
        elif not pose.valid:
            reason = f"the tracker does not see '{tool}'"
        elif age_s > self.stale_after_s:
            frozen = pose.age_s(now) <= self.stale_after_s
            reason = f"'{tool}' has not moved on for {age_s:.2f} s" + (
                ": its time stamp is frozen or goes back" if frozen else ""
            )
        return PoseState(pose, age_s, reason)
