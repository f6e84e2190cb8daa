"""Receives scans from a scanner or a file and reconstructs them, in threads that touch no node."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..data import Acquisition, Encoding, Image
from ..errors import Cancelled, IntraopError, OpenChoice, WireError
from ..reconstruct.auto import Frame
from ..reconstruct.collect import Collector
from ..reconstruct.live import SCAN_SILENT_S, LiveScan
from ..reconstruct.products import (
    Wanted,
    lacks_calibration,
    make,
    make_image,
    neighbours_have_come,
    quantity_of,
)
from ..reconstruct.quantities import LiveThermometer, missing_for
from ..reconstruct.quantity_image import Frames
from ..reconstruct.result import Reconstruction
from ..reconstruct.window import RadialWindow, radial_window
from .news import Asked, Dropped, Failed, News, Previewed, Progressed, Received, Streamed

if TYPE_CHECKING:
    # Not needed before somebody connects, and then with packages that have to be installed first.
    from ..wire.mrd_live import ScanItem
    from ..wire.mrd_stream import MrdConnection
    from ..wire.raw_data import RawDataReader
    from ..wire.transport import Client
    from ..wire.transport import Received as FromWire

#: How often somebody who waits for messages looks up.
TICK_S = 0.1
#: An MRD client that sends nothing while no scan arrives keeps others out for so long: longer than a scanner takes
#: from its header to its first line.
CLIENT_SILENT_S = 300.0
#: So many MRD clients may be connected; all but one of them wait, for so long, and are turned away then.
CLIENTS, TURN_S = 8, 1.0


class Reception:
    """One source until :meth:`close`. ``drain`` gives what happened; ``scan`` holds the last frames that were whole.

    ``wanted`` may be changed at any time and holds from the next scan on.
    """

    def __init__(self, wanted: Wanted, livePreview: bool) -> None:
        self.wanted, self.livePreview = wanted, livePreview
        self.scan: Frames | None = None
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._closing, self._cancelled = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._again: threading.Thread | None = None
        self._listens = False
        self._live: LiveScan | None = None
        self._window: RadialWindow | None = None
        self._thermometer: LiveThermometer | None = None
        self._strays_told = False
        #: Where MRD clients are waited for, host:port; "" for other sources.
        self.address = ""
        self._patient_id = ""
        self._turn = threading.Lock()
        self._answer: Image | None = None

    def listen(self, host: str, port: int, peer: str = "as sent") -> None:
        """Connect to a scanner; ``peer``: name of its profile. Raises WireError when it cannot be reached."""
        from ..wire.transport import Client
        from ..wire.trust import profile_named

        # Entered here, so that the caller hears when nobody listens; once, or every message would come twice.
        links = ExitStack()
        client = links.enter_context(Client(host, port, profile=profile_named(peer)))

        def work() -> None:
            with links:
                self._listen(client)

        self._listens = True
        self._thread = self._start(work)

    def serve(self, host: str, port: int) -> None:
        """Wait for MRD clients (a scanner, a program that sends a scan), one at a time, as reconstruction servers do.

        Each gets the last image of its scan back. Raises WireError when the port cannot be had.
        """
        from ..wire.mrd_stream import MrdServer

        server = MrdServer(self._in_turn, host, port, max_connections=CLIENTS)
        self.address = f"{host}:{server.port}"

        def work() -> None:
            with server:
                while not self._closing.wait(TICK_S):
                    while server.failures:
                        self._tell(Failed(server.failures.popleft()))

        self._listens = True
        self._thread = self._start(work)

    def read(self, path: Path, answers: Mapping[str, int | str] = MappingProxyType({})) -> None:
        """Read an ISMRMRD file in the background. ``answers``: what a person said to :class:`.news.Asked`."""

        def work() -> None:
            from ..wire.mrd_file import MrdReader
            from ..wire.mrd_scan import MrdOptions

            options: dict[str, Any] = dict(answers)
            group = options.pop("group", "")
            try:
                scan = MrdReader(path, MrdOptions(**options), group)
            except OpenChoice as question:
                self._tell(Asked(path, question, answers))
                return
            with scan:
                self._open(scan.encoding)
                self._collect(scan.blocks(256))

        self._thread = self._start(work)

    def again(self) -> None:
        """Make what is wanted now of the last scan."""
        if self.scan is not None and not self.busy:
            self._again = self._start(lambda: self._tell(make(self._last_scan(), self.wanted, self._progress)))

    @property
    def busy(self) -> bool:
        """Whether something is read or reconstructed; waiting for a scan is not."""
        reads = self._thread is not None and self._thread.is_alive() and not self._listens
        return reads or self._live is not None or (self._again is not None and self._again.is_alive())

    def drain(self) -> list[News]:
        """Everything that happened since the last call. Never waits."""
        found = []
        while not self._news.empty():
            found.append(self._news.get_nowait())
        return found

    def cancel(self) -> None:
        """Drop the scan that arrives, or stop the present reconstruction."""
        self._cancelled.set()

    def close(self) -> None:
        """End the thread; waits for it."""
        self._closing.set()
        self._cancelled.set()
        for thread in (self._thread, self._again):
            if thread is not None:
                thread.join()

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Cancelled:
                self._tell(Progressed(1.0, ""))
            except (IntraopError, OSError, MemoryError) as error:
                self._tell(Failed(str(error) or type(error).__name__))
            except Exception as error:
                logging.getLogger(__name__).exception("defect while receiving")
                self._tell(_defect(error))

        self._cancelled.clear()
        thread = threading.Thread(target=guarded, name="intraop reception", daemon=True)
        thread.start()
        return thread

    def _tell(self, news: News) -> None:
        self._news.put(news)

    def _listen(self, client: Client) -> None:
        from ..wire.raw_data import RawDataReader

        reader = RawDataReader("")
        while not self._closing.is_set():
            received = client.receive(TICK_S)
            # A scanner may report its state all the time: only lines show that a scan goes on.
            self._look_up()
            if received is not None:
                self._handled(partial(self._take, received, reader, client), partial(self._refused, received))
        self._drop()

    def _in_turn(self, connection: MrdConnection) -> None:
        """An MRD client, in a thread of its own: it waits a moment for the one before it to leave."""
        if not self._turn.acquire(timeout=TURN_S):
            self._tell(Failed(f"{connection.name} was turned away: another client is connected"))
            return
        try:
            self._converse(connection)
        finally:
            self._turn.release()

    def _converse(self, connection: MrdConnection) -> None:
        """The scan of one MRD client, then the last image back to it."""
        from ..wire.mrd_live import receive_scan

        self._answer, whole = None, False
        heard_s = time.monotonic()

        def idle() -> None:
            self._look_up()
            if self._live is None and time.monotonic() - heard_s > CLIENT_SILENT_S:
                raise WireError(f"{connection.name} has said nothing for {CLIENT_SILENT_S:g} s: the link was closed")

        try:
            for item in receive_scan(connection, idle=idle):
                heard_s = time.monotonic()
                whole = isinstance(item, Acquisition) and item.last
                self._handled(partial(self._heard, item), lambda error: self._tell(Failed(str(error))))
        except WireError as error:
            why = error.problem if isinstance(error, OpenChoice) else str(error)
            if self._live is not None:
                self._lost(why)
            elif not whole and not self._closing.is_set():
                self._tell(Failed(why))
        else:
            self._send_back(connection)
        finally:
            self._drop()

    def _heard(self, item: ScanItem) -> None:
        """Handle what an MRD client sent."""
        from ..wire.raw_data import same_patient

        if isinstance(item, Encoding):
            if self._live is not None:
                self._lost("a new scan has begun")
            self._cancelled.clear()
            self._patient_id = same_patient(item, self._patient_id)
            self._open(item)
        elif isinstance(item, Acquisition):
            if self._live is not None:
                self._arrived(self._live, item)
        elif isinstance(item, Image):
            self._tell(Received(item))

    def _send_back(self, connection: MrdConnection) -> None:
        """The image that a client waits for; one that does not wait has its scan reconstructed all the same."""
        from ..wire.mrd_messages import MessageId, TextMessage

        try:
            if self._answer is not None:
                connection.send(self._answer)
            connection.send(TextMessage(MessageId.CLOSE))
        except IntraopError as error:
            logging.getLogger(__name__).info("no image went back to %s: %s", connection.name, error)

    def _look_up(self) -> None:
        """Drop the scan that arrives when a person said so, or when it has stopped."""
        if self._live is not None and self._cancelled.is_set():
            self._drop()
        if self._live is not None and self._live.silent:
            self._lost(f"no line for {SCAN_SILENT_S:g} s; check the scanner and scan again")

    def _handled(self, work: Callable[[], None], refused: Callable[[IntraopError], None]) -> None:
        """Handle one message; a fault of it, or of ours, is said and the next one is taken."""
        try:
            work()
        except Cancelled:
            self._drop()
        except IntraopError as error:
            refused(error)
        except Exception as error:
            logging.getLogger(__name__).exception("defect while receiving")
            self._drop()
            self._tell(_defect(error))

    def _take(self, received: FromWire, reader: RawDataReader, client: Client) -> None:
        """Handle one message."""
        from ..wire import adapters
        from ..wire.messages_array import ImageMessage

        item = reader.feed(received.message, received)
        if isinstance(item, Encoding):
            if self._live is not None:
                self._lost("a new scan has begun")
            self._cancelled.clear()
            self._open(item)
        elif isinstance(item, Acquisition):
            if self._live is not None:
                self._arrived(self._live, item)
        elif isinstance(received.message, ImageMessage):
            image = adapters.image_from_message(received.message, client.profile)
            self._tell(Received(replace(image, metadata={**image.metadata, "peer_profile": client.profile.name})))

    def _open(self, encoding: Encoding) -> None:
        """A scan begins. Raises ReconstructionError when it cannot be collected."""
        wanted = self.wanted
        self._tell(encoding)
        quantity = quantity_of(wanted, encoding)
        self._live, self._strays_told = LiveScan(encoding, wanted.method), False
        looks = quantity == "image" and self.livePreview
        self._window = radial_window(self._live.collector, wanted.options.delays) if looks else None
        measures = quantity == "temperature" and not missing_for("temperature", encoding)
        self._thermometer = LiveThermometer(wanted.heating, wanted.method, wanted.options) if measures else None

    def _refused(self, received: FromWire, error: IntraopError) -> None:
        """Say why; of the lines of a scan that was refused as a whole only once."""
        if self._live is None:
            lines = "ky" in received.message.metadata
            if lines and self._strays_told:
                return
            self._strays_told = True
        self._tell(Failed(str(error)))

    def _collect(self, blocks: Iterator[Acquisition]) -> None:
        """Take in a whole scan."""
        live = self._live
        assert live is not None
        try:
            for block in blocks:
                self._arrived(live, block)
            if self._live is live:
                self._reconstruct_whole(live, last=True)
        finally:
            self._drop()

    def _arrived(self, live: LiveScan, block: Acquisition) -> None:
        """Take in lines and show what they allow."""
        if self._cancelled.is_set():
            raise Cancelled("stopped while lines arrive")
        live.add(block)
        self._tell(Progressed(live.fraction, live.name))
        if self._window is not None and (picture := self._window.add(block)) is not None:
            self._tell(Streamed(picture, block.received_monotonic_s))
        self._reconstruct_whole(live, block.last, block.received_monotonic_s)
        if block.last:
            self._drop()
        elif self.livePreview and self._window is None and (shown := live.preview()) is not None:
            self._tell(Previewed(shown, live.fraction))

    def _reconstruct_whole(self, live: LiveScan, last: bool, received_s: float | None = None) -> None:
        """Make what the frames allow that became whole."""
        self.scan = live.collector
        whole = list(live.whole(last))
        for number, frame in enumerate(whole):
            ends = last and number == len(whole) - 1
            streamed = not ends and live.encoding.repetitions > 1
            self._said(partial(self._made, live, frame, ends), frame, received_s, streamed)
        if last and self._thermometer is None and quantity_of(self.wanted, live.encoding) != "image":
            self._said(partial(make, live.collector, self.wanted, self._progress), live.collector)

    def _said(
        self,
        work: Callable[[], Reconstruction | None],
        about: Collector | Frame,
        received_s: float | None = None,
        streamed: bool = False,
    ) -> None:
        """Tell the result of ``work``, or why there is none and what is known of the lines it is ``about``."""
        try:
            result = work()
        except Cancelled:
            raise
        except IntraopError as error:
            # What was left out for a fault is a warning already.
            unused = [text for text in about.left_out if text not in about.warnings]
            said = [str(error), *about.warnings, *([f"left out: {', '.join(unused)}"] if unused else [])]
            self._tell(Failed("; ".join(said)))
            return
        if result is not None:
            self._answer = result.image
            self._tell(Streamed(result, received_s) if streamed else result)

    def _made(self, live: LiveScan, frame: Frame, ends: bool) -> Reconstruction | None:
        """What is wanted of a frame that became whole, None when it has to wait; ``ends``: it is the scan's last."""
        wanted, quiet = self.wanted, not ends and live.encoding.repetitions > 1
        # Frames of a stream are too short to report how far they are.
        progress = self._unless_cancelled if quiet else self._progress
        if self._thermometer is not None:
            if frame.contrast or frame.repetition < wanted.heating.reference:
                return None
            return self._thermometer.add(frame, progress)
        if quantity_of(wanted, live.encoding) != "image":
            return None  # made of all frames, when the last one is there
        if frame.contrast != (wanted.contrast or 0) or (self._window is not None and not ends):
            return None
        if lacks_calibration(live.collector, frame) and not ends and not neighbours_have_come(live.collector, frame):
            return None
        return make_image(live.collector, wanted, frame, progress, kept=live.calibrations)

    def _last_scan(self) -> Frames:
        assert self.scan is not None
        return self.scan

    def _unless_cancelled(self, _fraction: float, _what: str) -> bool:
        return not self._cancelled.is_set()

    def _progress(self, fraction: float, what: str) -> bool:
        self._tell(Progressed(fraction, what))
        return self._unless_cancelled(fraction, what)

    def _lost(self, why: str) -> None:
        """The rest of the scan will not come: nothing is made of it."""
        live = self._live
        assert live is not None
        self._drop()
        self._tell(Failed(f"scan '{live.name}' stopped at {live.fraction:.0%}: {why}"))

    def _drop(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None
            self._tell(Dropped())


def _defect(error: Exception) -> Failed:
    """A defect must be said on screen, not end a thread in silence."""
    return Failed(f"a defect in this software stopped the scan ({type(error).__name__}: {error}); scan again")
