"""Sorts what a scanner sends into scans: one scan arrives at a time, is previewed, and is handed over when it is whole.

For the receiver thread alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from IntraopMRIReconstructionLib.data import Acquisition, Encoding, Image, Status
from IntraopMRIReconstructionLib.errors import SessionError, WireError
from IntraopMRIReconstructionLib.reconstruct.live import SCAN_SILENT_S, LiveScan
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.wire import adapters
from IntraopMRIReconstructionLib.wire.messages_array import ImageMessage
from IntraopMRIReconstructionLib.wire.messages_text import StatusMessage
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader
from IntraopMRIReconstructionLib.wire.transport import Received
from IntraopMRIReconstructionLib.wire.trust import PeerProfile

from .heat import Thermometry
from .journal import Journal
from .products import is_map
from .updates import DeviceSaid, Problem, Role, ScanPreview, ScanProgress, Update

#: What means contrast agent in a protocol's name, in small letters with one space between words; 'posterior' and 'post
#: resection' do not. What denies it is taken out first: 'pre contrast', 'non-contrast', 'w/o Gd'.
AGENT = r"(?:[ck]ontrast\w*|gd|gad\w*|km)(?![a-z])"
DENIED = re.compile(rf"\b(?:pre|non?|w ?o|without|before|ohne|sans) ?{AGENT}")
AFTER = r"(?:ce|post)(?! ?(?:er|op|res|surg))(?![a-z])"
GIVEN = re.compile(rf"[ck]ontrast|(?<![a-z])(?:{AGENT}|{AFTER})|t1 ?ce?(?![a-z0-9])|\+ ?c(?![a-z])")
#: Different texts of a scanner's state that are written down: one that counts in them would fill the record.
KEPT_TEXTS = 500


@dataclass(frozen=True, eq=False)
class ArrivedScan:
    """A whole scan: k-space in the ``live`` scan that sorted it, or a finished ``image``.

    ``made``: what has been made of it while it arrived, None when all is still to do. ``last_byte_s``: monotonic time
    at which the last of its data was received; None for one that a person has ``chosen`` among volumes that were there.
    """

    role: Role
    protocol: str
    last_byte_s: float | None = None
    image: Image | None = None
    live: LiveScan | None = None
    made: Reconstruction | None = None
    chosen: bool = False

    def close(self) -> None:
        """Let go of what was begun while it arrived."""
        if self.live is not None:
            self.live.close()


def role_of(protocol: str) -> Role:
    """Whether a protocol's name speaks of contrast agent."""
    name = re.sub(r"[^a-z0-9+]+", " ", protocol.lower())
    return "contrast" if GIVEN.search(DENIED.sub(" ", name)) else "native"


class Reception:
    """Takes messages of one scanner; ``tell`` hears of progress and trouble, ``done`` gets each whole scan.

    ``stopped``: set by another thread when the scan that arrives is to be dropped.
    """

    def __init__(
        self,
        patient_id: str,
        profile: PeerProfile,
        journal: Journal,
        tell: Callable[[Update], None],
        done: Callable[[ArrivedScan], None],
        stopped: threading.Event,
        heat: Thermometry,
    ) -> None:
        self._reader = RawDataReader(patient_id)
        self._profile, self._journal, self._tell, self._done, self._stopped = profile, journal, tell, done, stopped
        self._arriving: LiveScan | None = None
        self._heat, self._heating = heat, False
        self._strays_told = False
        #: Code and text that each device reported last, and how many texts were written down.
        self._reported: dict[str, tuple[int, str]] = {}
        self._texts = 0

    def take(self, received: Received) -> None:
        """Handle one message. Raises an IntraopError for what cannot be used."""
        message = received.message
        if isinstance(message, StatusMessage):
            status = adapters.status_from_message(message)
            self._note(status)
            self._tell(DeviceSaid(status))
            return
        if self._arriving is None and "ky" in message.metadata:
            # Of a scan that was refused or dropped as a whole, its lines say nothing new.
            if self._strays_told:
                return
            self._strays_told = True
        try:
            item = self._reader.feed(message, received)
        except WireError:
            self._strays_told = self._arriving is None
            raise
        if isinstance(item, Encoding):
            self._open(item)
        elif isinstance(item, Acquisition):
            self._lines(item, received)
        elif isinstance(message, ImageMessage):
            image = adapters.image_from_message(message, self._profile, received)
            # A single slice is a live one, but a map of a single slice is one.
            if image.array.shape[0] > 1 or is_map(image):
                self._done(ArrivedScan(role_of(image.name), image.name, received.received_monotonic_s, image=image))

    def check(self) -> None:
        """Give up the scan that arrives when it has fallen silent or was stopped."""
        # A scanner may report its state all the time: only lines show that a scan goes on.
        if self._arriving is not None and self._arriving.silent:
            self._lost(f"no line for {SCAN_SILENT_S:g} s; check the scanner and scan again")
        elif self._arriving is not None and self._stopped.is_set():
            self._lost("stopped by hand", fatal=False)
        self._heat.check()

    def over(self) -> None:
        """Nothing more will come: give up the scan that arrives."""
        if self._arriving is not None:
            self._lost("the recording is over")

    def close(self) -> None:
        """Let go of the scan that arrives."""
        if self._arriving is not None:
            self._arriving.close()

    def _note(self, status: Status) -> None:
        """Write down what a device reports anew: a scanner may repeat its state every second of a day."""
        code, text = self._reported.get(status.device, (None, ""))
        self._reported[status.device] = status.code, status.text
        if status.code == code and (status.text == text or self._texts >= KEPT_TEXTS):
            return
        self._texts += 1
        self._journal.event("status", f"{status.device}: code {status.code} {status.text}".rstrip())

    def _open(self, encoding: Encoding) -> None:
        if self._arriving is not None:
            self._lost("a new scan has begun")
        self._stopped.clear()
        self._journal.event("scan", f"'{encoding.protocol or encoding.scan_id}' began")
        self._tell(ScanProgress(encoding.scan_id, encoding.protocol, 0.0))
        self._strays_told = True
        self._arriving, self._heating = LiveScan(encoding), self._heat.begin(encoding)

    def _lines(self, block: Acquisition, received: Received) -> None:
        live = self._arriving
        if live is None:
            raise SessionError(f"lines of scan '{block.scan_id}' came without an open scan: scan again")
        live.add(block)
        self._tell(ScanProgress(live.encoding.scan_id, live.encoding.protocol, live.fraction))
        made = self._heat.take(live, block.last, received.received_monotonic_s) if self._heating else None
        if block.last:
            self._arriving, self._heating = None, False
            self._done(ArrivedScan(role_of(live.name), live.name, received.received_monotonic_s, live=live, made=made))
        elif not self._heating and (shown := live.preview()) is not None:
            self._tell(ScanPreview(live.name, live.fraction, shown.image))

    def _lost(self, why: str, fatal: bool = True) -> None:
        """The rest of the scan will not come, or is not wanted: nothing is made of it."""
        live = self._arriving
        assert live is not None
        self._arriving, self._strays_told = None, True
        if self._heating:
            self._heating = False
            self._heat.lost()
        live.close()
        self._tell(ScanPreview(live.name, live.fraction, None))
        self._tell(Problem("receive", f"scan '{live.name}' stopped at {live.fraction:.0%}: {why}", fatal))
