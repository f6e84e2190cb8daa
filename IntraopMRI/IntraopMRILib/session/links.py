"""The links of a session to scanner, tracker, live stream, robot: opened together or not at all, and what they tell."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from IntraopMRIReconstructionLib.data import Image, Pose
from IntraopMRIReconstructionLib.errors import DataError, WireError
from IntraopMRIReconstructionLib.wire import adapters
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.endpoint import LinkEvent
from IntraopMRIReconstructionLib.wire.intake import IdentityGuard
from IntraopMRIReconstructionLib.wire.message import Message
from IntraopMRIReconstructionLib.wire.messages_array import ImageMessage
from IntraopMRIReconstructionLib.wire.messages_tracking import MOST_TOOLS
from IntraopMRIReconstructionLib.wire.recorder import ByteTap
from IntraopMRIReconstructionLib.wire.scanner_control import ScannerControl
from IntraopMRIReconstructionLib.wire.scanner_dialect import ScannerState, Transition, dialect_of
from IntraopMRIReconstructionLib.wire.timing import HANDOVER_S
from IntraopMRIReconstructionLib.wire.transport import LATEST_TYPES, Client, Received
from IntraopMRIReconstructionLib.wire.trust import AS_SENT, PeerProfile

from .journal import Journal
from .troubles import LINES_OF_TROUBLE
from .updates import Problem, Update

#: The links that bring data: also the names of their options and recordings. A robot beside them is commanded alone.
PARTS = ("scanner", "tracker", "live")
#: Different refusals of one reason that are told one by one: a damaged message has a text of its own each time, and
#: must not hide that another one is of another patient.
TOLD_REFUSALS = 3
#: Commands and planes are sent from the thread of the window: a peer that takes none for so long is cut off. It has
#: megabytes of them unread then, which it must not carry out later.
LIMITS = Limits(send_s=0.5)
#: Messages looked at in one go: a flood must not hold up the window.
MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class Link:
    """Where a peer listens, and what is known about the way it speaks.

    ``tool``: which tool of a tracker is the pointer; "" for the first that comes, see :meth:`Links.pose`. ``recorded``:
    a recording is played there, which comes to its end.
    """

    host: str
    port: int
    profile: PeerProfile = AS_SENT
    tool: str = ""
    recorded: bool = False


@dataclass(frozen=True)
class Tools:
    """What a tracker sees. ``pointer``: the tool that is followed as the pointer, "" before the first one has come.

    ``came``: whether the tracker has sent it, be it hidden or not; ``others``: names of what it sees beside it.
    """

    pointer: str = ""
    came: bool = False
    others: tuple[str, ...] = ()

    @property
    def is_missing(self) -> bool:
        """Whether a person has chosen a tool that the tracker has not sent, while it sends others."""
        return bool(self.pointer and self.others) and not self.came


class Links:
    """``scanner``, ``tracker``, ``live``, ``robot``: clients, None without; ``controls``: of scanner and robot where
    they are there; ``identity``: of all.

    ``taps``: recorders of the wire traffic by link. ``tell`` hears of refusals and of a scanner in trouble.
    """

    def __init__(
        self, patient_id: str, journal: Journal, tell: Callable[[Update], None], taps: Mapping[str, ByteTap]
    ) -> None:
        self._journal, self._tell, self._taps = journal, tell, taps
        self._open = ExitStack()
        #: How often each link was refused for a reason, and which texts of it were told.
        self._refused: Counter[tuple[str, str]] = Counter()
        self._refusals: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.identity = IdentityGuard()
        self.identity.accept(patient_id=patient_id)
        self.scanner: Client | None = None
        self.tracker: Client | None = None
        self.live: Client | None = None
        self.robot: Client | None = None
        self.controls: dict[str, ScannerControl] = {}
        #: Whether the scanner was a recording, and it has come to its end.
        self.over = False
        self._tool, self._is_chosen, self._seen_s = "", False, float("-inf")
        self._came = False
        #: What is seen beside the pointer, and since when; whether that was said.
        self._beside: dict[str, float] = {}
        self._told = False

    def connect(
        self, scanner: Link | None, tracker: Link | None = None, live: Link | None = None, robot: Link | None = None
    ) -> None:
        """Raises WireError, with nothing left open, when a peer cannot be reached."""
        try:
            # Before the links: they hear what comes, and an answer to a stop must not wait behind scans.
            self.controls = {
                part: ScannerControl(
                    partial(self._command, part),
                    dialect_of(link.profile.name),
                    on_transition=partial(self._turned, part),
                )
                for part, link in (("scanner", scanner), ("robot", robot))
                if link is not None
            }
            self.scanner = self._client("scanner", scanner, LATEST_TYPES)
            self.tracker = self._client("tracker", tracker, LATEST_TYPES)
            self._tool = tracker.tool if tracker is not None else ""
            self._is_chosen = bool(self._tool)
            self.live = self._client("live", live, LATEST_TYPES | {"IMAGE"})
            self.robot = self._client("robot", robot, LATEST_TYPES)
        except WireError:
            self._open.close()
            raise
        there = ", ".join(_told(client) for client in (self.scanner, self.tracker, self.robot) if client)
        self._journal.event("connected", there if scanner else f"without a scanner: scans are chosen. {there}".rstrip())

    def attend(self) -> None:
        """Let time pass for scanner and robot. Of a robot only what its control hears is used."""
        for _ in self._waiting(self.robot):
            pass
        for control in self.controls.values():
            control.poll()

    def close(self) -> None:
        """End all links. Safe to call twice."""
        self._open.close()

    def pose(self) -> Pose | None:
        """Newest pose of the pointer since the last call, None when there is none. Never waits.

        One tool is followed. One that comes alone after it, for ``HANDOVER_S`` without it, is taken up in its place
        unless a person has chosen; one that was seen beside it, such as the reference on the patient, is never the
        pointer. Raises DataError while nothing but transforms that are no tools have come.
        """
        newest, no_tool = None, None
        for received in self._waiting(self.tracker):
            try:
                newest = self._pointer(received) or newest
            except DataError as error:
                # What scales pixels to mm hides no tool beside it.
                no_tool = error
        if no_tool is not None and not self._tool:
            raise no_tool
        return newest

    def tools(self) -> Tools:
        """Which tool is the pointer, and what the tracker sees beside it, as far as :meth:`pose` has looked."""
        return Tools(self._tool, self._came, tuple(self._beside))

    def live_slice(self) -> Image | None:
        """Next slice of the live stream, None when there is none. Never waits. What else came is thrown away."""
        for received in self._waiting(self.live):
            if isinstance(received.message, ImageMessage):
                assert self.live is not None
                return adapters.image_from_message(received.message, self.live.profile, received)
        return None

    @staticmethod
    def _waiting(client: Client | None) -> Iterator[Received]:
        """What has come. All of it is taken: what stays in its queue stops the link when the queue is full."""
        for _ in range(MOST_LOOKED_AT):
            received = client.receive(0.0) if client is not None else None
            if received is None:
                return
            yield received

    def _pointer(self, received: Received) -> Pose | None:
        """The pose of the tool that is followed, None when there is none in it."""
        if not isinstance(received.message, adapters.POSES):
            return None
        assert self.tracker is not None
        poses = adapters.poses_from_message(received.message, received, self.tracker.profile)
        # The one that is followed first, and every one: what is seen beside it is noted.
        poses.sort(key=lambda pose: pose.tool != self._tool)
        found = [pose for pose in poses if self._follows(pose)]
        return found[0] if found else None

    def _follows(self, pose: Pose) -> bool:
        now_s = pose.received_monotonic_s
        is_alone = now_s - self._seen_s > HANDOVER_S
        may_change = is_alone and not self._is_chosen and pose.tool not in self._beside
        if pose.tool != self._tool and pose.valid and may_change:
            self._tool = pose.tool
        if pose.tool == self._tool:
            self._seen_s, self._came = now_s if pose.valid else self._seen_s, True
            return True
        if pose.valid and (self._is_chosen or not is_alone):
            if len(self._beside) < MOST_TOOLS:
                self._beside.setdefault(pose.tool, now_s)
            self._tell_beside(pose.tool, now_s)
        return False

    def _tell_beside(self, tool: str, now_s: float) -> None:
        """Once that there is another tool; of a chosen one, that it has not come for as long as a tool may be away.

        A name that was mistyped would look like a pointer that is out of sight.
        """
        text = ""
        if not self._is_chosen:
            text = f"the tracker sees '{tool}' too; only '{self._tool}' is followed as the pointer"
        elif not self._came and now_s - min(self._beside.values()) > HANDOVER_S:
            seen = ", ".join(f"'{name}'" for name in self._beside)
            text = f"the tracker has not sent '{self._tool}', which was chosen as the pointer, but {seen}"
        if text and not self._told:
            self._told = True
            self._tell(Problem("follow the pointer", text, fatal=False))

    def states(self) -> dict[str, tuple[str, bool]]:
        """Address of each link and whether it is up now, by its part: scanner, tracker, live, robot."""
        parts = {"scanner": self.scanner, "tracker": self.tracker, "live": self.live, "robot": self.robot}
        return {part: (client.address, client.connected) for part, client in parts.items() if client is not None}

    def _client(self, part: str, link: Link | None, latest: frozenset[str]) -> Client | None:
        if link is None:
            return None
        client = Client(
            link.host,
            link.port,
            reconnect=not link.recorded,
            profile=link.profile,
            limits=LIMITS,
            latest=latest,
            tap=self._taps.get(part),
            identity=self.identity,
            on_event=lambda event: self._heard(part, event, link.recorded),
            overhear=self.controls[part].on_message if part in self.controls else None,
        )
        try:
            return self._open.enter_context(client)
        except WireError as error:
            # All links of a computer have the same host: which one it is has to be said.
            raise WireError(f"{part}: {error}") from error

    def _command(self, part: str, message: Message) -> None:
        client: Client | None = getattr(self, part)
        if client is None:
            raise WireError(f"the {part} is not connected yet: try again")
        client.send(message)

    def _heard(self, part: str, event: LinkEvent, recorded: bool) -> None:
        """Links that came and went, and what was refused; the counters have all of it."""
        # A tool that is not seen is filled with NaN by some trackers.
        hidden = event.kind == "left out" and event.reason == "not finite"
        if event.kind in ("refused", "incomplete", "left out") and not hidden:
            self._tell_refused(part, event)
            return
        if event.kind == "lost" and recorded:
            self._journal.event("link", f"the recording of the {part} is over")
            self.over |= part == "scanner"
            return
        self._journal.repeated("link", f"{part} {event.peer} {event.kind} {event.text}".rstrip())
        if event.kind == "callback failed":
            self._tell(Problem("record the wire", f"{part}: {event.text}", fatal=False))
        if event.kind == "lost" and part in self.controls:
            self.controls[part].link_lost(event.text)

    def _tell_refused(self, part: str, event: LinkEvent) -> None:
        """Each text once; of a reason that has a new one each time the first ones, and then at every doubling."""
        key = part, event.reason
        self._refused[key] += 1
        times, texts = self._refused[key], self._refusals[key]
        if event.text in texts:
            return
        again = ""
        if len(texts) < TOLD_REFUSALS:
            texts.add(event.text)
        elif times.bit_count() == 1:
            again = f" ({times} times by now)"
        else:
            return
        self._tell(Problem("receive", f"the {part} sent what is not used: {event.text}{again}", fatal=False))

    def _turned(self, part: str, transition: Transition) -> None:
        """The state of the scanner or the robot has changed, or a command of ours."""
        said, times = f"{transition.after.value}: {transition.reason}", 1
        states = transition.before, transition.after
        flaps = ScannerState.NO_ANSWER in states or transition.before is transition.after
        if flaps and not transition.by_command and not transition.is_urgent:
            times = self._journal.repeated(part, said)
        else:
            self._journal.event(part, said)
        # Of what comes again and again a person hears now and then, at every doubling.
        if transition.is_trouble and (times <= LINES_OF_TROUBLE or times.bit_count() == 1):
            again = f" ({times} times by now)" if times > LINES_OF_TROUBLE else ""
            text = f"the {part}: {transition.after.value}; {transition.reason}{again}"
            self._tell(Problem(f"command the {part}", text, fatal=transition.is_urgent))


def _told(client: Client) -> str:
    """Address of a peer, and what it was taken for unless every byte is believed."""
    return f"{client.address} ({client.profile.name})" if client.profile is not AS_SENT else client.address
