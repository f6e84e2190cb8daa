"""Control of a scanner over OpenIGTLink: start, stop, and the scan plane from the pointer, as a state machine.

Free of sockets and threads: messages leave through ``send``, arrive through :meth:`ScannerControl.on_message`, and
time passes in :meth:`ScannerControl.poll`, which its owner calls some ten times a second or more often.

Commands are STRING messages named ``CMD_<number>``; a peer that acknowledges answers ``ACK_<number>`` and then sends a
STATUS named by the phase that it reached. What the scanner does not confirm is never shown as confirmed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from ..data import POSE_STALE_S, Heartbeat, Matrix, Pose, checked_rigid
from ..errors import SessionError, WireError
from .codec import ImageMessage, Message, StatusMessage, StringMessage, TransformMessage, timestamp_of
from .scanner_dialect import (
    ACKNOWLEDGED,
    MR_ROBOT,
    MRIGTLBRIDGE,
    Dialect,
    EmergencyStop,
    ScannerState,
    Transition,
)

__all__ = [
    "ACKNOWLEDGED",
    "MRIGTLBRIDGE",
    "MR_ROBOT",
    "Dialect",
    "EmergencyStop",
    "ScannerControl",
    "ScannerState",
    "Transition",
]

#: Shortest time between two scan planes: real bridges are throttled to 10 Hz and fall behind when given more.
PLANE_INTERVAL_S = 0.1
#: Without images for so long, a scanner that reports no status has stopped.
QUIET_S = 3.0
#: Nobody waits longer than this to hear whether an emergency stop was carried out.
EMERGENCY_DONE_S = 5.0
#: Transitions that are kept for a person to read.
KEPT_TRANSITIONS = 10_000


_log = logging.getLogger(__name__)


@dataclass
class _Command:
    """A command that was sent and is not yet done. ``target`` None: it leads to no state, only to a phase.

    ``before``: state to return to when it is refused; ``then``: scan to start when it is done. ``by_number``: only its
    ACK tells it from another one of its phase. ``reported``: the STATUS that came before that ACK.
    """

    word: str
    target: ScannerState | None
    sent_s: float
    answered: bool
    before: ScannerState
    then: str | None = None
    by_number: bool = False
    reported: str = ""
    emergency: bool = False


_OK = 1
_BUSY = 6
#: States that STATUS codes put the scanner into; a code that is not here is a fault.
_CODE_STATES = {
    3: ScannerState.EMERGENCY,
    _BUSY: ScannerState.BUSY,
    13: ScannerState.UNKNOWN,
    14: ScannerState.MANUAL,
    19: ScannerState.UNKNOWN,
}
#: STATUS codes under the name of a command that refuse just that: not found, access denied, illegal instruction.
_REFUSALS = (4, 5, 12)
#: Names of STATUS messages that are states in every dialect.
_NAME_STATES = {"MANUAL": ScannerState.MANUAL, "EMERGENCY": ScannerState.EMERGENCY}
#: States that no command of ours ends.
_HELD = (ScannerState.EMERGENCY, ScannerState.MANUAL)
#: States in which the plane of the scan may be moved.
_MAY_STEER = (ScannerState.READY, ScannerState.STARTING, ScannerState.SCANNING)
#: Timed-out commands whose late acknowledgement is still understood.
_KEPT_LATE = 16


class ScannerControl:
    """The state machine. Methods may be called from any thread.

    ``send``: sends a message to the scanner, raises WireError when it cannot. ``now``, ``utc_now``: clocks in seconds.
    ``on_transition`` hears every change. ``status_devices``: whose STATUS counts, everybody's when None; an emergency
    counts from anybody. ``tool_from_plane``: (4, 4), mm; where the scan plane lies on the pointer, z is its normal.
    The plane is sent in RAS.

    ``state`` and ``confirmed`` (the scanner said so itself), ``phase`` (name of the last good STATUS), ``history`` and
    ``emergency_stop`` (the last one from here, until :meth:`reset`) are for showing.
    """

    def __init__(
        self,
        send: Callable[[Message], object],
        dialect: Dialect = ACKNOWLEDGED,
        *,
        now: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], float] = time.time,
        on_transition: Callable[[Transition], None] | None = None,
        status_devices: Collection[str] | None = None,
        tool_from_plane: Matrix | None = None,
    ) -> None:
        self.dialect = dialect
        self.state = ScannerState.UNKNOWN
        self.confirmed = False
        self.phase = ""
        self.emergency_stop: EmergencyStop | None = None
        self.history: deque[Transition] = deque(maxlen=KEPT_TRANSITIONS)
        self.planes_sent = 0
        self._send, self._now, self._utc_now = send, now, utc_now
        self._on_transition = on_transition
        self._status_devices = None if status_devices is None else frozenset(status_devices)
        self._tool_from_plane = checked_rigid(np.eye(4) if tool_from_plane is None else tool_from_plane, "plane")
        self._lock = threading.RLock()
        self._number = 0
        self._pending: tuple[str, _Command] | None = None
        self._late: dict[str, _Command] = {}
        self._before_busy = ScannerState.UNKNOWN
        self._plane: tuple[Matrix, float] | None = None
        self._pointers: dict[str, Heartbeat] = {}
        self._plane_sent_s = self._image_s = -np.inf

    @property
    def text(self) -> str:
        """State and what is uncertain about it, for a person."""
        certain = self.confirmed or self.state is ScannerState.UNKNOWN
        return self.state.value + ("" if certain else " (not confirmed by the scanner)")

    def start_up(self) -> None:
        """Ask the scanner to get ready. Raises SessionError when it may not be asked now, WireError when it cannot."""
        with self._lock:
            self._refuse_unless(self.state is not ScannerState.SCANNING, self.dialect.start_up)
            self._issue(self.dialect.start_up, ScannerState.READY, ScannerState.STARTING_UP)

    def start(self, scan: str = "") -> None:
        """Start the sequence, or one scan by its name. Raises as :meth:`start_up`; the scanner must be ready."""
        with self._lock:
            word = self._start_word()
            self._refuse_unless(self.state is ScannerState.READY, word)
            self._issue(word, ScannerState.SCANNING, ScannerState.STARTING, scan)

    def scan(self, scan: str = "") -> None:
        """As :meth:`start`, but a scanner that is not known to be ready is asked to get ready first."""
        with self._lock:
            if self.state is ScannerState.READY:
                self.start(scan)
                return
            self._refuse_unless(self.state is not ScannerState.SCANNING, self._start_word())
            self._issue(self.dialect.start_up, ScannerState.READY, ScannerState.STARTING_UP, then=scan)

    def stop(self) -> None:
        """Stop the sequence. Allowed in every state, and replaces a command that is under way. Raises WireError."""
        with self._lock:
            self._issue(self.dialect.stop, ScannerState.READY, ScannerState.STOPPING)

    def request(self, word: str) -> None:
        """Send another command of the peer, such as PLANNING; ``phase`` tells when it is reached. Raises as start."""
        with self._lock:
            self._refuse_unless(True, word)
            self._issue(word, None, None)

    def calibrate(self, ras_from_robot: Matrix) -> None:
        """Tell a robot where it stands: (4, 4), mm, RAS, in its calibration phase. Raises as :meth:`start_up`."""
        self._place(self.dialect.calibration, ras_from_robot, "calibration")

    def aim(self, ras_from_target: Matrix) -> None:
        """Tell a robot its target: (4, 4), mm, RAS, in its targeting phase. Raises as :meth:`start_up`."""
        self._place(self.dialect.target, ras_from_target, "target")

    def panic(self, reason: str) -> None:
        """Emergency: the scanner is told (by stop when it has no word for it); only stop is sent until :meth:`reset`.

        Raises WireError when the scanner could not be told; the state is EMERGENCY all the same.
        """
        with self._lock:
            self._change(ScannerState.EMERGENCY, reason, confirmed=False)
            word = self.dialect.emergency or self.dialect.stop
            self.emergency_stop = EmergencyStop(word, self._utc_now())
            self._issue(word, None, None)

    def reset(self) -> None:
        """A person says that an emergency or a fault is over; nothing is known of the scanner then."""
        with self._lock:
            self._pending = None
            self._late.clear()
            self.emergency_stop = None
            self._change(ScannerState.UNKNOWN, "reset by a person", confirmed=False, ends_emergency=True)

    def link_lost(self, reason: str) -> None:
        """The connection ended: what the scanner does now is not known."""
        with self._lock:
            command = self._pending[1] if self._pending else None
            unknown = f"; whether {command.word} was carried out is not known" if command else ""
            self._lost(reason + unknown, unanswered=command is not None)

    def set_plane(self, pose: Pose) -> bool:
        """Lay the scan plane where the pointer is: the newest pose, at most ten times a second.

        Returns whether the pose was taken: it is not when the pointer is not seen, the pose is stale or its time stamp
        has stood still for as long, the scanner may not be steered in its state, or a peer of its kind takes no plane.
        """
        with self._lock:
            if pose.tool not in self._pointers:
                # One pointer steers; what was known of another one means nothing for it.
                self._pointers = {pose.tool: Heartbeat()}
            alive_s = self._pointers[pose.tool].note(pose.progress_s, pose.received_monotonic_s)
            if not pose.valid or self._now() - alive_s > POSE_STALE_S or not self.may_steer:
                self._plane = None
                return False
            self._plane = np.asarray(pose.ras_from_tool @ self._tool_from_plane), alive_s
            self._send_plane()
            return True

    @property
    def may_steer(self) -> bool:
        """Whether a plane would be taken in the scanner's state."""
        return self.dialect.plane_device is not None and self.state in _MAY_STEER

    @property
    def stuck(self) -> bool:
        """Whether only a person can tell that it is over: an emergency, a fault, or no answer."""
        return self.state in (ScannerState.EMERGENCY, ScannerState.FAULT, ScannerState.NO_ANSWER)

    def poll(self) -> ScannerState:
        """Let time pass: time-outs, and the plane that waits for its turn."""
        with self._lock:
            self._send_plane()
            now = self._now()
            quiet = not self.dialect.reports and now - self._image_s > QUIET_S
            if self._pending is not None:
                self._wait(*self._pending, now, quiet)
            elif quiet and self.state is ScannerState.SCANNING:
                self._change(ScannerState.READY, f"no image for {QUIET_S:g} s", confirmed=False)
            return self.state

    def on_message(self, message: Message) -> None:
        """Take what came from the scanner; what is not meant for its control is passed over."""
        with self._lock:
            if isinstance(message, StringMessage | TransformMessage) and message.device.startswith("ACK_"):
                self._on_answer(message.device[4:])
            elif isinstance(message, StatusMessage):
                self._on_status(message)
            elif isinstance(message, ImageMessage):
                self._on_image()

    def _lost(self, reason: str, unanswered: bool) -> None:
        self._pending = self._plane = None
        self._change(ScannerState.NO_ANSWER, reason, confirmed=False, unanswered=unanswered)

    def _refuse_unless(self, allowed: bool, word: str) -> None:
        if self._pending is not None:
            raise SessionError(f"{word} was not sent: {self._pending[1].word} is under way; wait, or stop")
        if not allowed or self.state in (*_HELD, ScannerState.BUSY):
            raise SessionError(f"{word} was not sent, the scanner is: {self.text}")

    def _start_word(self) -> str:
        if self.dialect.start is None:
            raise SessionError(f"a peer of the kind '{self.dialect.name}' has no command that starts a sequence")
        return self.dialect.start

    def _place(self, names: tuple[str, str] | None, matrix: Matrix, what: str) -> None:
        """Send the transform of a phase; the robot confirms it with the STATUS of that phase."""
        if names is None:
            raise SessionError(f"a peer of the kind '{self.dialect.name}' takes no {what}")
        prefix, phase = names
        matrix = checked_rigid(matrix, what)
        with self._lock:
            self._refuse_unless(self.phase.upper() == phase, f"{prefix} ({what})")
            number, stamp = self._begin(phase, None, None, f"{what} is sent as {prefix}_")
            if self._pending is not None:
                self._pending[1].by_number = True
            self._send_now(TransformMessage(device=f"{prefix}_{number}", matrix=matrix, timestamp=stamp))

    def _issue(
        self,
        word: str,
        target: ScannerState | None,
        under_way: ScannerState | None,
        what: str = "",
        then: str | None = None,
    ) -> None:
        text = f"{word} {what}".rstrip()
        number, stamp = self._begin(word, target, under_way, f"{text} is sent as CMD_", then)
        self._send_now(StringMessage(device=f"CMD_{number}", text=text, timestamp=stamp))
        at_once = not self.dialect.reports and not self.dialect.acknowledges
        if at_once and word in (self.dialect.start_up, self.dialect.emergency) and self._pending is not None:
            self._done(self._pending[1], f"{word} was sent; {self.dialect.name} does not acknowledge", confirmed=False)

    def _begin(
        self,
        word: str,
        target: ScannerState | None,
        under_way: ScannerState | None,
        reason: str,
        then: str | None = None,
    ) -> tuple[str, int]:
        """A command is under way from now on; returns its number and time stamp."""
        replaced = f", replaces {self._pending[1].word}" if self._pending else ""
        self._number = max(self._number + 1, int(self._utc_now() * 1000) if self.dialect.numbers_by_time else 0)
        number = f"{self._number:04d}"
        before = self._before_busy if self.state is ScannerState.BUSY else self.state
        stop = self.emergency_stop
        if stop is not None and self._pending is not None and self._pending[1].emergency:
            self._stopping(trouble=f"{word} took its place before it was answered")
        emergency = stop is not None and not stop.number
        if emergency:
            self._stopping(number=number)
        answered = not self.dialect.acknowledges
        self._pending = number, _Command(word, target, self._now(), answered, before, then, emergency=emergency)
        confirmed = self.confirmed and not under_way
        self._change(under_way or self.state, f"{reason}{number}{replaced}", confirmed=confirmed, by_command=True)
        return number, timestamp_of(self._utc_now())

    def _send_now(self, message: Message) -> None:
        try:
            self._send(message)
        except WireError as error:
            self._lost(str(error), unanswered=True)
            raise

    def _send_plane(self) -> None:
        if self._plane is None or self.dialect.plane_device is None:
            return
        matrix, received_s = self._plane
        now = self._now()
        if self.state not in _MAY_STEER or now - received_s > POSE_STALE_S:
            self._plane = None
        elif now - self._plane_sent_s >= PLANE_INTERVAL_S:
            self._plane, self._plane_sent_s = None, now
            stamp = timestamp_of(self._utc_now())
            try:
                self._send(TransformMessage(device=self.dialect.plane_device, matrix=matrix, timestamp=stamp))
                self.planes_sent += 1
            except WireError as error:
                self.link_lost(str(error))

    def _wait(self, number: str, command: _Command, now: float, quiet: bool) -> None:
        waited = now - command.sent_s
        limit_s, what = self.dialect.done_s, "carried out"
        if command.emergency:
            limit_s = min(limit_s, EMERGENCY_DONE_S)
        if not command.answered:
            limit_s, what = self.dialect.answer_s, "acknowledged"
        elif quiet and command.word == self.dialect.stop and waited > QUIET_S:
            self._done(command, f"no image for {QUIET_S:g} s", confirmed=False)
            return
        if waited > limit_s:
            self._pending = command.then = None
            self._late = dict([*self._late.items(), (number, command)][-_KEPT_LATE:])
            reason = f"{command.word} (CMD_{number}) was not {what} within {limit_s:g} s"
            self._change(ScannerState.NO_ANSWER, reason, confirmed=False, by_command=True, unanswered=True)

    def _on_answer(self, number: str) -> None:
        if self.emergency_stop is not None and self.emergency_stop.number == number:
            self._acknowledged_stop(self.emergency_stop)
        late = self._late.pop(number, None)
        if late is not None and self._pending is None and self.state is ScannerState.NO_ANSWER:
            self._pending, self._before_busy = (number, late), ScannerState.UNKNOWN
            late.sent_s = self._now()
            self._change(ScannerState.BUSY, f"{late.word} was acknowledged late", confirmed=True)
        if self._pending is None or self._pending[0] != number:
            return
        command = self._pending[1]
        command.answered = True
        if command.reported or not self.dialect.reports:
            self._done(command, command.reported or f"{command.word} was acknowledged", confirmed=True)

    def _on_status(self, status: StatusMessage) -> None:
        name = status.device.upper()
        after = _NAME_STATES.get(name) if status.code == _OK else _CODE_STATES.get(status.code, ScannerState.FAULT)
        heard = self._status_devices is None or status.device in self._status_devices
        if not heard and after is not ScannerState.EMERGENCY:
            return
        reason = f"STATUS {status.device}: {status.meaning}" + (f", {status.said}" if status.text else "")
        if status.code == _OK and (not self.dialect.phases or name in self.dialect.phases):
            self.phase = status.device
        if self._confirms_stop(status, after, reason):
            return
        if status.code in _REFUSALS and self._pending is not None and name == self._pending[1].word:
            self._refused(self._pending[1], reason)
        elif after is ScannerState.BUSY:
            if self._pending is not None and not self._pending[1].emergency:
                self._pending[1].sent_s = self._now()
            if self.state not in (ScannerState.BUSY, *_HELD):
                self._before_busy = self.state
                self._change(after, reason, confirmed=True)
        elif after is not None:
            if self._pending is not None and self._pending[1].emergency and after is not ScannerState.EMERGENCY:
                self._stopping(trouble=reason)
            self._pending = None
            self._change(after, reason, confirmed=True)
        else:
            self._on_phase(name, reason)

    def _acknowledged_stop(self, stop: EmergencyStop) -> None:
        now = self._utc_now()
        confirmed = stop.confirmed_utc_s if self.dialect.reports else (stop.confirmed_utc_s or now)
        self._stopping(acknowledged_utc_s=stop.acknowledged_utc_s or now, confirmed_utc_s=confirmed)
        if self._pending is None or self._pending[0] != stop.number or self.dialect.reports:
            self._change(self.state, f"{stop.word} was acknowledged", confirmed=confirmed is not None, by_command=True)

    def _confirms_stop(self, status: StatusMessage, after: ScannerState | None, reason: str) -> bool:
        """Whether a STATUS says that our emergency stop was carried out, and there is nothing else to it."""
        stop = self.emergency_stop
        said = status.code == _OK and stop is not None and status.device.upper() == stop.word
        if stop is None or stop.confirmed_utc_s is not None or not (said or after is ScannerState.EMERGENCY):
            return False
        self._stopping(confirmed_utc_s=self._utc_now())
        if self._pending is None:
            self._change(ScannerState.EMERGENCY, reason, confirmed=True)
        return self._pending is None

    def _stopping(self, **found: float | str | None) -> None:
        """What became of the emergency stop; once it is confirmed there is no trouble with it."""
        assert self.emergency_stop is not None
        stop: EmergencyStop = replace(self.emergency_stop, **found)  # type: ignore[arg-type]
        self.emergency_stop = replace(stop, trouble="") if stop.confirmed_utc_s is not None else stop

    def _on_phase(self, name: str, reason: str) -> None:
        """A good STATUS that names no state by itself."""
        dialect = self.dialect
        if self._pending is not None and name == self._pending[1].word:
            command = self._pending[1]
            if command.answered or not command.by_number:
                self._done(command, reason, confirmed=True)
            else:
                command.reported = reason
        elif self.state is ScannerState.MANUAL:
            self._change(ScannerState.UNKNOWN, f"manual mode ended: {reason}", confirmed=True)
        elif self._pending is None and name in (dialect.start_up, dialect.start, dialect.stop):
            after = ScannerState.SCANNING if name == dialect.start else ScannerState.READY
            self._change(after, f"{reason}, without a command from here", confirmed=True)
        elif self.state is ScannerState.BUSY:
            self._change(self._before_busy, reason, confirmed=True)
        elif self.state in (ScannerState.NO_ANSWER, ScannerState.FAULT):
            self._change(ScannerState.UNKNOWN, reason, confirmed=True)

    def _on_image(self) -> None:
        self._image_s = self._now()
        if self.dialect.reports:
            return
        if self._pending is not None:
            if self._pending[1].target is ScannerState.SCANNING:
                self._done(self._pending[1], "images arrive", confirmed=True)
        elif self.state in (ScannerState.UNKNOWN, ScannerState.READY, ScannerState.NO_ANSWER):
            self._change(ScannerState.SCANNING, "images arrive", confirmed=True)

    def _done(self, command: _Command, reason: str, confirmed: bool) -> None:
        self._pending = None
        if command.emergency and not confirmed:
            self._stopping(sign=reason)
        after = command.target or (self._before_busy if self.state is ScannerState.BUSY else self.state)
        self._change(after, reason, confirmed=confirmed, by_command=True)
        if command.then is not None and self.state is ScannerState.READY:
            # Whoever asked is not waiting here: a link that has ended is told by the change of state.
            with contextlib.suppress(WireError):
                self.start(command.then)

    def _refused(self, command: _Command, reason: str) -> None:
        """The scanner is well, but does not do what it was asked for: it is as it was before."""
        self._pending = None
        if command.emergency:
            self._stopping(trouble=f"{command.word} was refused: {reason}")
        self._change(
            command.before, f"{command.word} was refused: {reason}", confirmed=False, by_command=True, refused=True
        )

    def _change(
        self,
        after: ScannerState,
        reason: str,
        *,
        confirmed: bool,
        by_command: bool = False,
        ends_emergency: bool = False,
        refused: bool = False,
        unanswered: bool = False,
    ) -> None:
        before = self.state
        # Only a person ends an emergency, only the scanner ends its manual mode.
        held = (before is ScannerState.EMERGENCY and not ends_emergency) or (by_command and before in _HELD)
        if held and after is not before:
            after, confirmed = before, self.confirmed
        self.state, self.confirmed = after, confirmed
        if unanswered and self.emergency_stop is not None:
            self._stopping(trouble=reason)
        transition = Transition(
            self._utc_now(), self._now(), before, after, reason, confirmed, refused, unanswered, by_command
        )
        self.history.append(transition)
        _log.info("scanner: %s -> %s: %s", before.value, after.value, reason)
        if self._on_transition is not None:
            self._on_transition(transition)
