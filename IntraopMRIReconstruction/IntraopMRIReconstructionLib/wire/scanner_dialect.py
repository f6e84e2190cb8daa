"""The words and states of scanners that are commanded over OpenIGTLink."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ScannerState(Enum):
    """What is known of the scanner. The value is the word for a person."""

    UNKNOWN = "not heard from"
    STARTING_UP = "starting up"
    READY = "ready"
    STARTING = "starting the sequence"
    SCANNING = "scanning"
    STOPPING = "stopping"
    BUSY = "busy"
    MANUAL = "manual mode at the console"
    EMERGENCY = "emergency"
    FAULT = "fault"
    NO_ANSWER = "does not answer"


@dataclass(frozen=True)
class Dialect:
    """The words of one kind of peer.

    ``acknowledges``: answers ACK; ``reports``: sends STATUS named by phase. A peer that does neither is believed by
    its images. ``start`` or ``emergency`` None: the peer has no such command. ``numbers_by_time``: commands are
    numbered by the clock instead of counted. ``plane_device``: name of the transform that lays the image plane, None:
    it takes none. ``calibration``, ``target``: names of the two transforms of a robot and
    the phases in which they are taken. ``phases``: names of STATUS that are phases, every name when empty.
    ``answer_s``, ``done_s``: how long an ACK and the phase may take.
    """

    name: str
    start_up: str = "START_UP"
    start: str | None = "START_SEQUENCE"
    stop: str = "STOP_SEQUENCE"
    emergency: str | None = None
    acknowledges: bool = True
    reports: bool = True
    numbers_by_time: bool = False
    plane_device: str | None = "PLANE_0"
    calibration: tuple[str, str] | None = None
    target: tuple[str, str] | None = None
    phases: tuple[str, ...] = ()
    answer_s: float = 2.0
    done_s: float = 30.0


#: CMD_, ACK_ and STATUS, the default.
ACKNOWLEDGED = Dialect("CMD/ACK")
#: mrigtlbridge, a client of Slicer: never acknowledges. Its README says START_SCAN, its code knows START_SEQUENCE.
MRIGTLBRIDGE = Dialect("mrigtlbridge", acknowledges=False, reports=False, numbers_by_time=True)
#: MR-robot practice (ProstateBRP): phases are asked for with :meth:`ScannerControl.request`.
MR_ROBOT = Dialect(
    "MR robot",
    start=None,
    stop="STOP",
    emergency="EMERGENCY",
    plane_device=None,
    calibration=("CLB", "CALIBRATION"),
    target=("TGT", "TARGETING"),
    phases=("START_UP", "PLANNING", "CALIBRATION", "TARGETING", "MOVE_TO_TARGET", "MANUAL", "STOP", "EMERGENCY"),
)


def dialect_of(profile_name: str) -> Dialect:
    """How a peer of that profile (trust.PROFILES) is commanded."""
    return next((dialect for dialect in (MRIGTLBRIDGE, MR_ROBOT) if dialect.name == profile_name), ACKNOWLEDGED)


@dataclass(frozen=True)
class EmergencyStop:
    """An emergency stop that was sent from here, and what became of it. Times are POSIX seconds, None while unknown.

    ``word``, ``number``: the command. ``confirmed_utc_s``: when the peer said that it has stopped. ``trouble``: why it
    is not known whether it did; ``sign``: what speaks for it where a peer of its kind says nothing.
    """

    word: str
    sent_utc_s: float
    number: str = ""
    acknowledged_utc_s: float | None = None
    confirmed_utc_s: float | None = None
    sign: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Transition:
    """One change of state and why.

    ``confirmed``: the scanner said so itself; ``refused``: it refused a command; ``unanswered``: what became of a
    command is not known; ``by_command``: it is about a command of ours. The state need not change then: an emergency
    stays one when nobody answers to it.
    """

    utc_s: float
    monotonic_s: float
    before: ScannerState
    after: ScannerState
    reason: str
    confirmed: bool
    refused: bool = False
    unanswered: bool = False
    by_command: bool = False

    @property
    def is_trouble(self) -> bool:
        """Whether a person must be told: a command had no effect, or the scanner cannot go on by itself."""
        lost = (ScannerState.EMERGENCY, ScannerState.FAULT, ScannerState.NO_ANSWER, ScannerState.MANUAL)
        return self.refused or self.unanswered or (self.after in lost and self.after is not self.before)

    @property
    def is_urgent(self) -> bool:
        """Whether a person must act: a command came to nothing, or the scanner is in an emergency."""
        under_way = (ScannerState.STARTING_UP, ScannerState.STARTING, ScannerState.STOPPING)
        failed = self.refused or self.unanswered or self.before in under_way
        return self.is_trouble and (failed or self.after is ScannerState.EMERGENCY)
