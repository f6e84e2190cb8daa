"""Receives scans from a scanner or a file and reconstructs them, in threads that touch no node."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..data import Acquisition, Encoding, Image, KSpace
from ..errors import Cancelled, IntraopError
from ..reconstruct.auto import Frame, preview, reconstruct
from ..reconstruct.collect import Collector, collector
from ..reconstruct.result import Reconstruction

#: Previews while lines arrive: at most one in this time, s.
PREVIEW_S = 1.0
#: A preview of less than this part of the lines shows nothing yet.
PREVIEW_FROM = 0.2


@dataclass(frozen=True)
class Progressed:
    """Work goes on: ``fraction`` 0..1."""

    fraction: float
    what: str


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
    """A coarse picture of a scan that still arrives."""

    result: Reconstruction


News = Encoding | Progressed | Failed | Received | Previewed | Reconstruction


class Reception:
    """One source until :meth:`close`. ``drain`` gives what happened; ``kspace`` is the last complete scan."""

    def __init__(self, method: str, iterations: int, livePreview: bool) -> None:
        self.method, self.iterations, self.livePreview = method, iterations, livePreview
        self.kspace: Frame | None = None
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._closing, self._cancelled = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

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
                self._assemble(collector(scan.encoding), scan.blocks(256))

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
        """Stop the present reconstruction."""
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

    def _listen(self, client: object) -> None:
        from ..wire import adapters
        from ..wire.messages_array import ImageMessage
        from ..wire.raw_data import RawDataReader
        from ..wire.transport import Client

        assert isinstance(client, Client)
        reader, last_s = RawDataReader(""), 0.0
        assembler: Collector | None = None
        while not self._closing.is_set():
            received = client.receive(0.1)
            if received is None:
                continue
            try:
                item = reader.feed(received.message, received)
                if isinstance(item, Encoding):
                    assembler = collector(item)
                    self._tell(item)
                elif isinstance(item, Acquisition) and assembler is not None:
                    last_s = self._add(assembler, item, last_s)
                    if item.last:
                        self.kspace, assembler = assembler.kspace(), None
                        self._reconstruct()
                elif isinstance(received.message, ImageMessage):
                    self._tell(Received(adapters.image_from_message(received.message, client.profile)))
            except Cancelled:
                self._tell(Progressed(1.0, ""))
            except IntraopError as error:
                self._tell(Failed(str(error)))

    def _assemble(self, assembler: Collector, blocks: Iterator[Acquisition]) -> None:
        last_s = 0.0
        for block in blocks:
            if self._cancelled.is_set():
                raise Cancelled("stopped while reading")
            last_s = self._add(assembler, block, last_s)
        self.kspace = assembler.kspace()
        self._reconstruct()

    def _add(self, assembler: Collector, block: Acquisition, last_s: float) -> float:
        """Take in lines; returns when the last preview was made."""
        assembler.add(block)
        fraction = assembler.fraction_acquired
        self._tell(Progressed(fraction, assembler.encoding.protocol or assembler.encoding.scan_id))
        now = time.monotonic()
        if self.livePreview and not block.last and fraction > PREVIEW_FROM and now - last_s > PREVIEW_S:
            frame = assembler.kspace()
            if isinstance(frame, KSpace):
                self._tell(Previewed(preview(frame)))
            return time.monotonic()
        return last_s

    def _reconstruct(self) -> None:
        from ..reconstruct.auto import Options

        assert self.kspace is not None
        self._cancelled.clear()

        def progress(fraction: float, what: str) -> bool:
            self._tell(Progressed(fraction, what))
            return not self._cancelled.is_set()

        options = Options(iterations=self.iterations) if self.method in ("cg-sense", "l1-wavelet", "tv") else None
        self._tell(reconstruct(self.kspace, self.method, progress, options=options))
