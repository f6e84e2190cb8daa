"""Receives scans from a scanner or a file and reconstructs them, in threads that touch no node."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import Acquisition, Encoding, Image
from ..errors import Cancelled, IntraopError
from ..reconstruct.auto import Frame, Options, reconstruct
from ..reconstruct.live import SCAN_SILENT_S, LiveScan
from ..reconstruct.methods import METHODS
from ..reconstruct.result import Reconstruction
from ..reconstruct.unmixing import Ahead, Calibrations

if TYPE_CHECKING:
    # Not needed before somebody connects, and then with packages that have to be installed first.
    from ..wire.raw_data import RawDataReader
    from ..wire.transport import Client
    from ..wire.transport import Received as FromWire


@dataclass(frozen=True)
class Progressed:
    """Work goes on: ``fraction`` 0..1."""

    fraction: float
    what: str


@dataclass(frozen=True)
class Dropped:
    """The scan that was arriving is over: whatever was shown of its beginning no longer holds."""


@dataclass(frozen=True)
class Failed:
    """One sentence for a person."""

    text: str


@dataclass(frozen=True, eq=False)
class Received:
    """A finished image came from the scanner, without raw data."""

    image: Image


@dataclass(frozen=True, eq=False)
class Previewed:
    """A coarse picture of a scan of which ``fraction`` 0..1 has arrived."""

    result: Reconstruction
    fraction: float


News = Encoding | Progressed | Dropped | Failed | Received | Previewed | Reconstruction


class Reception:
    """One source until :meth:`close`. ``drain`` gives what happened; ``kspace`` is the last complete scan."""

    def __init__(self, method: str, iterations: int, livePreview: bool) -> None:
        self.method, self.iterations, self.livePreview = method, iterations, livePreview
        self.kspace: Frame | None = None
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._closing, self._cancelled = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._live: LiveScan | None = None
        self._strays_told = False

    def listen(self, host: str, port: int) -> None:
        """Connect to a scanner. Raises WireError when it cannot be reached."""
        from ..wire.transport import Client

        client = Client(host, port)
        client.__enter__()

        def work() -> None:
            with client:
                self._listen(client)

        self._start(work)

    def read(self, path: Path) -> None:
        """Read an ISMRMRD file in the background."""

        def work() -> None:
            from ..wire.mrd_file import MrdReader

            with MrdReader(path) as scan:
                self._tell(scan.encoding)
                self._live = LiveScan(scan.encoding, self.method)
                self._collect(scan.blocks(256))

        self._start(work)

    def again(self) -> None:
        """Reconstruct the last scan anew, with the present method."""
        if self.kspace is not None and not self.busy:
            self._start(self._reconstruct)

    @property
    def busy(self) -> bool:
        """Whether a thread works or listens."""
        return self._thread is not None and self._thread.is_alive()

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
        if self._thread is not None:
            self._thread.join()

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Cancelled:
                self._tell(Progressed(1.0, ""))
            except (IntraopError, OSError, MemoryError) as error:
                self._tell(Failed(str(error) or type(error).__name__))

        self._cancelled.clear()
        self._thread = threading.Thread(target=guarded, name="intraop reception", daemon=True)
        self._thread.start()

    def _tell(self, news: News) -> None:
        self._news.put(news)

    def _listen(self, client: Client) -> None:
        from ..wire.raw_data import RawDataReader

        reader = RawDataReader("")
        while not self._closing.is_set():
            received = client.receive(0.1)
            # A scanner may report its state all the time: only lines show that a scan goes on.
            if self._live is not None and self._live.silent:
                self._lost(f"no line for {SCAN_SILENT_S:g} s; check the scanner and scan again")
            if received is None:
                continue
            try:
                self._take(received, reader, client)
            except Cancelled:
                self._drop()
            except IntraopError as error:
                self._refused(received, error)
        self._drop()

    def _take(self, received: FromWire, reader: RawDataReader, client: Client) -> None:
        """Handle one message."""
        from ..wire import adapters
        from ..wire.messages_array import ImageMessage

        item = reader.feed(received.message, received)
        if isinstance(item, Encoding):
            if self._live is not None:
                self._lost("a new scan has begun")
            self._cancelled.clear()
            self._tell(item)
            self._live, self._strays_told = LiveScan(item, self.method), False
        elif isinstance(item, Acquisition):
            if self._live is not None:
                self._arrived(self._live, item)
        elif isinstance(received.message, ImageMessage):
            self._tell(Received(adapters.image_from_message(received.message, client.profile)))

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
            self._reconstruct_whole(live, last=True)
        finally:
            self._drop()

    def _arrived(self, live: LiveScan, block: Acquisition) -> None:
        """Take in lines and show what they allow."""
        if self._cancelled.is_set():
            raise Cancelled("stopped while lines arrive")
        live.add(block)
        self._tell(Progressed(live.fraction, live.name))
        self._reconstruct_whole(live, block.last)
        if block.last:
            self._drop()
        elif self.livePreview and (shown := live.preview()) is not None:
            self._tell(Previewed(shown, live.fraction))

    def _reconstruct_whole(self, live: LiveScan, last: bool) -> None:
        for frame in live.whole(last):
            self.kspace = frame
            try:
                # Frames of a stream are too short to report how far they are.
                self._reconstruct(live.calibrations, quiet=not last)
            except Cancelled:
                raise
            except IntraopError as error:
                self._tell(Failed(str(error)))

    def _reconstruct(self, calibrations: Calibrations | Ahead | None = None, quiet: bool = False) -> None:
        """Reconstruct the last frame that became whole."""
        assert self.kspace is not None

        def progress(fraction: float, what: str) -> bool:
            if not quiet:
                self._tell(Progressed(fraction, what))
            return not self._cancelled.is_set()

        iterative = self.method in METHODS and METHODS[self.method].iterative
        options = Options(iterations=self.iterations) if iterative else None
        self._tell(reconstruct(self.kspace, self.method, progress, options=options, calibrations=calibrations))

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
