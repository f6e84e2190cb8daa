"""An hour of an intraoperative session over OpenIGTLink, accelerated, with forced reconnects; then a long fuzz.

A sender in a process of its own plays poses, images, k-space and status messages as fast as they are taken and cuts the
link again and again: between two messages, in mid-message (which it repeats, since it knows that it did not get
through), and with a reset once everything has arrived. Nothing that was sent may be lost, memory must stay flat.

Usage: make soak, or soak.py [--minutes 60] [--reconnects 100] [--mutated 2000000]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from benchmarks.common import ended
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.connection import unsent_bytes
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Client, Server
from peers.igtl_fuzz import fuzz_one, seeds

OUTPUT = Path(__file__).resolve().parents[2] / "soak-output"

#: Per simulated second.
POSES, IMAGES = 60, 2
#: A 3D scan every so many simulated seconds, and what it consists of.
SCAN_EVERY_S, MATRIX, COILS, LINES_PER_BLOCK = 180, (24, 48, 64), 4, 16
#: Growth of memory from the second to the last quarter that is still called flat: noise of the allocator.
FLAT_MB = 16.0
IMAGE_SHAPE = (1, 256, 256)
WAIT_S = 60.0


def traffic(minutes: float) -> Iterator[codec.Message]:
    """All messages of the session in order. Images and k-space are numbered, so that a lost one is noticed."""
    picture = np.random.default_rng(1).integers(0, 255, IMAGE_SHAPE, dtype=np.uint8)
    for second in range(round(minutes * 60)):
        for number in range(POSES):
            yield codec.TransformMessage(device="probe", timestamp=codec.timestamp_of(second + number / POSES + 1.0))
        for number in range(IMAGES):
            picture[0, 0, :4] = np.frombuffer(struct.pack("<I", second * IMAGES + number), np.uint8)
            yield codec.ImageMessage(device="live", timestamp=codec.timestamp_of(second + 1.0), array=picture)
        yield codec.StatusMessage(device="scanner", text=str(second))
        if second % SCAN_EVERY_S == 0:
            yield from scan(f"scan {second}", "image" if second % (2 * SCAN_EVERY_S) else "ndarray")


def scan(scan_id: str, form: str) -> Iterator[codec.Message]:
    """One 3D scan, block by block."""
    depth, height, width = MATRIX
    yield from messages_from_encoding(
        Encoding(scan_id, "cartesian", MATRIX, MATRIX, (24.0, 48.0, 64.0), (24.0, 48.0, 64.0), COILS, np.eye(4))
    )
    lines = (
        np.stack(np.meshgrid(np.arange(depth), np.arange(height), indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    )
    blocks = np.split(lines, len(lines) // LINES_PER_BLOCK)
    for number, block in enumerate(blocks):
        samples = np.zeros((LINES_PER_BLOCK, COILS, width), np.complex64)
        samples[:] = (block[:, 0] + 1j * block[:, 1])[:, None, None]
        acquisition = Acquisition(scan_id, samples, block[:, 1], block[:, 0], last=number == len(blocks) - 1)
        yield message_from_acquisition(acquisition, form="image" if form == "image" else "ndarray")


def play(minutes: float, reconnects: int) -> None:
    """The sending process: listens, prints its port, sends everything, and cuts the link again and again."""
    total = sum(1 for _ in traffic(minutes))
    cuts = set(np.linspace(total / (reconnects + 1), total * reconnects / (reconnects + 1), reconnects).astype(int))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    peer, _ = listener.accept()
    for number, message in enumerate(traffic(minutes)):
        raw = codec.encode(message)
        if number in cuts:
            cut(peer, raw, len(cuts))
            cuts.discard(number)
            peer, _ = listener.accept()
        peer.sendall(raw)
    peer.close()
    print(total, flush=True)


def cut(peer: socket.socket, raw: bytes, number: int) -> None:
    """End the link in one of three ways."""
    if number % 3 == 0:
        peer.sendall(raw[: len(raw) // 2])
    elif number % 3 == 1:
        while unsent_bytes(peer):
            time.sleep(0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class Checker:
    """Looks at everything that came and remembers what is wrong with it."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.images = self.scans = self.lines = self.statuses = 0
        self._reader = RawDataReader()
        self._open_lines: Counter[tuple[int, int]] = Counter()

    def take(self, message: codec.Message) -> None:
        """Check one message."""
        if isinstance(message, codec.ImageMessage) and message.device == "live":
            (number,) = struct.unpack("<I", message.array[0, 0, :4].tobytes())
            self._expect(number == self.images, f"image {number} came instead of {self.images}")
            self.images = number + 1
        elif isinstance(message, codec.StatusMessage):
            self._expect(message.text == str(self.statuses), f"status {message.text} instead of {self.statuses}")
            self.statuses = int(message.text) + 1
        else:
            raw_data = self._reader.feed(message)
            if isinstance(raw_data, Acquisition):
                self._take_lines(raw_data)

    def _take_lines(self, block: Acquisition) -> None:
        expected = (block.kz + 1j * block.ky).astype(np.complex64)
        self._expect(bool((block.samples == expected[:, None, None]).all()), f"{block.scan_id}: wrong samples")
        self._open_lines.update(zip(block.kz.tolist(), block.ky.tolist(), strict=True))
        self.lines += len(block.ky)
        if block.last:
            complete = len(self._open_lines) == MATRIX[0] * MATRIX[1] == self._open_lines.total()
            self._expect(complete, f"{block.scan_id} has {len(self._open_lines)} different lines")
            self._open_lines.clear()
            self.scans += 1

    def _expect(self, condition: bool, fault: str) -> None:
        if not condition:
            self.faults.append(fault)


def soak(minutes: float, reconnects: int) -> dict[str, object]:
    """Receive the session and report."""
    command = [sys.executable, __file__, "--play", "--minutes", str(minutes), "--reconnects", str(reconnects)]
    checker, memory = Checker(), []
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        seconds = round(minutes * 60)
        with Client(port=port) as client:
            while checker.statuses < seconds:
                received = client.receive(WAIT_S)
                if received is None:
                    checker.faults.append(f"nothing came for {WAIT_S:g} s")
                    break
                checker.take(received.message)
                if isinstance(received.message, codec.StatusMessage) and checker.statuses % 30 == 0:
                    memory.append(psutil.Process().memory_info().rss / 2**20)
            # The last scan begins with the last status at the earliest.
            while (received := client.receive(2.0)) is not None:
                checker.take(received.message)
            counters = client.counters
        process.kill()
    quarter = max(1, len(memory) // 4)
    growth = float(np.median(memory[-quarter:]) - np.median(memory[quarter : 2 * quarter]))
    expected = {
        "images": seconds * IMAGES,
        "scans": -(-seconds // SCAN_EVERY_S),
        "lines": -(-seconds // SCAN_EVERY_S) * MATRIX[0] * MATRIX[1],
        "statuses": seconds,
    }
    for name, count in expected.items():
        if getattr(checker, name) != count:
            checker.faults.append(f"{getattr(checker, name)} of {count} {name}")
    if counters.connections < reconnects + 1:
        checker.faults.append(f"{counters.connections - 1} of {reconnects} reconnects")
    if growth > FLAT_MB:
        checker.faults.append(f"memory grew by {growth:.1f} MB")
    if counters.refused:
        checker.faults.append(f"refused: {dict(counters.refused)}")
    return {
        "simulated minutes": minutes,
        "wall seconds": round(time.monotonic() - started, 1),
        "reconnects": counters.connections - 1,
        "ends of links": dict(counters.lost),
        **{name: f"{getattr(checker, name)} of {count}" for name, count in expected.items()},
        "messages": counters.received,
        "poses replaced by newer ones": counters.dropped[("TRANSFORM", "probe")],
        "memory MB": [round(value, 1) for value in memory[:: max(1, len(memory) // 12)]],
        "memory growth MB": round(growth, 2),
        "faults": checker.faults,
    }


def fuzz(count: int, seed: int) -> dict[str, object]:
    """Mutated messages through the codec; any error that is not a refusal ends the run."""
    rng, messages = np.random.default_rng(seed), seeds()
    started = time.monotonic()
    passed = sum(fuzz_one(rng, messages[number % len(messages)]) for number in range(count))
    return {
        "mutated messages": count,
        "seed": seed,
        "harmless": passed,
        "wall seconds": round(time.monotonic() - started),
    }


def fuzz_links(count: int, seed: int) -> dict[str, object]:
    """Streams of mutated bytes to a live server, which must serve a good peer after each."""
    rng = np.random.default_rng(seed)
    stream = b"".join(codec.encode(message) for message in traffic(1 / 60))[:20_000]
    hello = codec.encode(codec.StringMessage(device="good", text="hello"))
    faults = []
    with Server(answer_queries=False) as server:
        for number in range(count):
            data = bytearray(stream)
            for _ in range(int(rng.integers(1, 20))):
                data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
            with socket.create_connection((server.host, server.port)) as peer, contextlib.suppress(OSError):
                peer.sendall(data)
            with socket.create_connection((server.host, server.port)) as peer:
                peer.sendall(hello)
                if server.receive(5.0, device="good") is None:
                    faults.append(f"no service after stream {number}")
            while server.receive(0) is not None:
                pass
        counters = server.counters
    ends = {"refused": dict(counters.refused), "ends of links": dict(counters.lost)}
    return {"mutated streams": count, "seed": seed, **ends, "faults": faults}


def main() -> int:
    """Run all; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--reconnects", type=int, default=100)
    parser.add_argument("--mutated", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play(options.minutes, options.reconnects)
        return 0
    results = {
        "soak": soak(options.minutes, options.reconnects),
        "links": fuzz_links(300, options.seed),
        "fuzz": fuzz(options.mutated, options.seed),
    }
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "soak.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    wrong = [fault for result in results.values() for fault in result.get("faults", [])]  # type: ignore[attr-defined]
    return ended(wrong, "The soak found nothing wrong.")


if __name__ == "__main__":
    sys.exit(main())
