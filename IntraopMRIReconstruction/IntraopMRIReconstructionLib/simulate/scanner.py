"""A simulated MR scanner: multi-coil k-space, or finished images, over OpenIGTLink.

It starts its scans when a peer connects. STRING messages named ``CMD_<id>`` command it as mrigtlbridge does:
``START_UP``, ``START_SEQUENCE [scan]`` and ``STOP_SEQUENCE``; each is answered at once by ``ACK_<id>`` and a STATUS
named after the command. The same STATUS tells when it starts or ends a sequence by itself; ``Scanner`` tells how the
scans go. ``START_SEQUENCE Thermometry`` heats a spot of the brain and sends its frames one after another.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ..data import Image
from ..errors import DataError, IntraopError, WireError
from ..wire.adapters import message_from_image
from ..wire.connection import Limits
from ..wire.header import timestamp_now
from ..wire.messages_text import StatusMessage, StringMessage
from ..wire.raw_data import message_from_acquisition, messages_from_encoding
from ..wire.transport import Server
from .case_files import read_ablation, read_scan, scans_of
from .grids import stream
from .head import WHITE
from .heating import THERMOMETRY, HeatedScan
from .kspace import Sampling, Scan, simulate_scan
from .phantom import CONTRAST
from .process import announce, leave, parser, run, stop_signal
from .rendering import rician

NAME = "scanner"
OK, NOT_FOUND, BUSY, ILLEGAL = 1, 4, 6, 12
COMMANDS = START_UP, START, STOP = "START_UP", "START_SEQUENCE", "STOP_SEQUENCE"
#: A receiver that reconstructs while we send may hold us back; a real scanner would buffer as long.
LIMITS = Limits(send_s=120.0)
TICK_S = 0.1


class Scanner:
    """Serves the scans of a case until ``stop`` is set.

    ``raw``: k-space, otherwise finished images. ``noise``: of one channel, as a fraction of bright tissue.
    ``scan_s``: how long the lines of a scan take at least; 0 sends as fast as the receiver takes them. ``frame_s``: the
    same of a frame of thermometry, which is sent on command only; as long as it would take when None.
    """

    def __init__(
        self,
        folder: Path,
        stop: threading.Event,
        *,
        raw: bool,
        coils: int,
        noise: float,
        acceleration: int,
        scan_s: float,
        frame_s: float | None = None,
    ) -> None:
        self.names = scans_of(folder)
        if not self.names:
            raise DataError(f"{folder} holds no scans to serve; make a case with write_case first")
        self._images = {name: read_scan(folder, name) for name in self.names}
        self._stop, self._raw, self._scan_s = stop, raw, scan_s
        self._coils, self._noise = coils, noise
        self._sampling = Sampling((1, acceleration))
        self._heated = read_ablation(folder)
        self._frame_s = frame_s
        self._count = 0
        self._ahead: tuple[str, _Task] | None = None
        self._interrupted = False

    def serve(self, server: Server) -> None:
        """Send all scans to whoever connects while nobody else is there, then obey commands."""
        self._prepare(self.names[0])
        known: set[str] = set()
        while not self._stop.is_set():
            if not server.wait_for_peer(TICK_S):
                continue
            peers = set(server.peers)
            newcomer = bool(peers) and not peers & known
            known = peers
            if newcomer:
                self._sequence(server, self.names)
            else:
                self._obey(server, TICK_S)

    def _sequence(self, server: Server, names: list[str]) -> None:
        self._interrupted = False
        try:
            self._say(server, "OK", phase=START)
            for name, following in zip_longest(names, names[1:]):
                self._scan(server, name, following)
                if self._is_over:
                    return
            self._say(server, "OK", phase=STOP)
        except WireError as error:
            # The receiver is gone: the next one gets its own scans.
            print(f"scan ended: {error}", file=sys.stderr, flush=True)

    def _scan(self, server: Server, name: str, following: str | None) -> None:
        """One scan. The following one is prepared meanwhile; without one the computer is left to the receiver."""
        self._say(server, f"{name}: preparing")
        task = self._prepare(name)
        self._obey_until(server, lambda: task.is_done)
        if self._is_over:
            return
        scan = task.result()
        self._ahead = None
        if following is not None:
            self._prepare(following)
        self._say(server, f"{name}: scanning")
        if isinstance(scan, HeatedScan):
            self._send_frames(server, scan)
        elif isinstance(scan, Image):
            self._pause(server, self._scan_s)
            if not self._is_over:
                server.send(message_from_image(scan, name, version=2))
        else:
            self._send_lines(server, scan)
        self._say(server, f"{name}: {'stopped' if self._interrupted else 'done'}")

    def _send_lines(self, server: Server, scan: Scan) -> None:
        for message in messages_from_encoding(scan.encoding):
            server.send(message)
        partitions = scan.encoding.encoded_matrix[0]
        for block in scan.blocks():
            server.send(message_from_acquisition(block, form="image"))
            self._pause(server, self._scan_s / partitions)
            if self._is_over:
                return

    def _send_frames(self, server: Server, scan: HeatedScan) -> None:
        """Each frame when it has been taken."""
        for message in messages_from_encoding(scan.encoding):
            server.send(message)
        frame_s = scan.ablation.interval_s if self._frame_s is None else self._frame_s
        due_s, frame = time.monotonic() + frame_s, 0
        for block in scan.blocks():
            if block.repetition != frame:
                frame = block.repetition
                due_s += frame_s
            self._pause(server, max(0.0, due_s - time.monotonic()))
            if self._is_over:
                return
            server.send(message_from_acquisition(block, form="image"))

    @property
    def _is_over(self) -> bool:
        return self._stop.is_set() or self._interrupted

    def _pause(self, server: Server, seconds: float) -> None:
        """Let time pass; what is commanded meanwhile is answered."""
        due_s = time.monotonic() + seconds
        self._obey(server, 0.0, scanning=True)
        self._obey_until(server, lambda: time.monotonic() >= due_s, min(TICK_S, seconds))

    def _obey_until(self, server: Server, over: Callable[[], bool], tick_s: float = TICK_S) -> None:
        while not (self._is_over or over()):
            self._obey(server, tick_s, scanning=True)

    def _obey(self, server: Server, timeout_s: float, scanning: bool = False) -> None:
        """Take one command, if there is one."""
        # What is no command is thrown away: what stays in its queue stops the link when the queue is full.
        received = server.receive(timeout_s)
        message = None if received is None else received.message
        if received is None or not isinstance(message, StringMessage) or not message.device.startswith("CMD_"):
            return
        word, _, name = message.text.strip().partition(" ")
        answer, code, work = self._command(word, name.strip(), scanning)
        try:
            reply = StringMessage(device=f"ACK_{message.device[4:]}", timestamp=timestamp_now(), text=answer)
            server.send(reply, received.peer)
            if not work:
                self._say(server, answer, code, phase=word)
        except WireError as error:
            print(f"no answer given: {error}", file=sys.stderr, flush=True)
            return
        if work:
            self._sequence(server, work)

    def _command(self, word: str, name: str, scanning: bool) -> tuple[str, int, list[str]]:
        """What to answer, the STATUS code, and the scans to make."""
        if word == STOP:
            self._interrupted = True
            return "OK", OK, []
        if word == START_UP:
            return "OK", OK, []
        if word != START:
            return f"'{word}' is not understood; use {', '.join(COMMANDS)}", ILLEGAL, []
        if scanning:
            return f"a scan is running; send {STOP} first", BUSY, []
        known = [*self.names, *([THERMOMETRY] if self._heated is not None else [])]
        if name and name not in known:
            return f"there is no scan '{name}'; choose one of {', '.join(known)}", NOT_FOUND, []
        return "OK", OK, [name] if name else self.names

    def _prepare(self, name: str) -> _Task:
        """The scan that is being made, or a new one."""
        if self._ahead is None or self._ahead[0] != name:
            self._count += 1
            number = self._count
            self._ahead = name, _Task(lambda: self._made(name, number))
        return self._ahead[1]

    def _made(self, name: str, number: int) -> Scan | Image | HeatedScan:
        if name == THERMOMETRY and self._heated is not None:
            image, scan_id = self._images[self.names[0]], f"{name} #{number}"
            return HeatedScan(image, self._heated, coils=self._coils, noise=self._noise, scan_id=scan_id, seed=number)
        image = self._images[name]
        if not self._raw:
            noisy = rician(image.array, self._noise * WHITE, stream(number, f"image {name}"))
            return replace(
                image.with_array(np.round(noisy).astype(np.int16), name), metadata={**image.metadata, "protocol": name}
            )
        scan = simulate_scan(
            image, f"{name} #{number}", coils=self._coils, noise=self._noise, sampling=self._sampling, protocol=name
        )
        known = {"contrast_agent": "yes" if name == CONTRAST else "no"}
        encoding = replace(scan.encoding, metadata=known)
        if "readout_hz_per_mm" in image.metadata:
            dwell_s = 1.0 / (float(image.metadata["readout_hz_per_mm"]) * encoding.encoded_fov_mm[2])
            field_t = float(image.metadata["field_t"])
            beside_metal = {key: text for key, text in image.metadata.items() if key == "spectral_bin_hz"}
            encoding = replace(encoding, field_t=field_t, dwell_time_s=dwell_s, metadata=known | beside_metal)
        return replace(scan, encoding=encoding)

    def _say(self, server: Server, text: str, code: int = OK, phase: str = "Scanner") -> None:
        device = phase if phase in COMMANDS else "Scanner"
        server.send(StatusMessage(device=device, timestamp=timestamp_now(), code=code, text=text))


class _Task:
    """Work on a thread that does not keep the process alive."""

    def __init__(self, work: Callable[[], Scan | Image | HeatedScan]) -> None:
        self._result: Scan | Image | HeatedScan | None = None
        self._error: IntraopError | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return not self._thread.is_alive()

    def result(self) -> Scan | Image | HeatedScan:
        """What came of it. Raises what the work raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work()
        except IntraopError as error:
            self._error = error


def main(argv: list[str] | None = None) -> None:
    """Serve a case until SIGTERM, or the end of standard input with ``--with-parent``."""
    arguments = _arguments(argv)
    stop = stop_signal(arguments.with_parent)
    scanner = Scanner(
        arguments.case,
        stop,
        raw=arguments.send == "raw",
        coils=arguments.coils,
        noise=arguments.noise,
        acceleration=arguments.acceleration,
        scan_s=arguments.scan_seconds,
        frame_s=arguments.frame_seconds,
    )
    with Server(arguments.port, limits=LIMITS) as server:
        announce(NAME, server.port)
        scanner.serve(server)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    arguments = parser("A simulated MR scanner that speaks OpenIGTLink.")
    arguments.add_argument("--send", choices=("raw", "images"), default="raw", help="k-space or finished images")
    arguments.add_argument("--coils", type=int, default=8)
    arguments.add_argument(
        "--acceleration", type=int, default=1, help="along the phase direction, 24 centre lines kept"
    )
    arguments.add_argument("--noise", type=float, default=0.02, help="of one channel, fraction of bright tissue")
    text = "how long a frame of thermometry takes at least; as it would when left out"
    arguments.add_argument("--frame-seconds", type=float, help=text)
    arguments.add_argument("--scan-seconds", type=float, default=0.0, help="how long a scan takes at least")
    return arguments.parse_args(argv)


if __name__ == "__main__":
    leave(run(main))
