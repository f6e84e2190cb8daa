"""One receiver, everybody at once: what is sound comes through whole and in time while the others do their worst.

To one server of ours, from a process of its own: numbered texts at 1 kHz and a numbered 16 MB volume that must come
whole, in order and once, over links that end again and again; two trackers with one tool name; pyigtl and the C++
examples of OpenIGTLink, killed in mid-message; mutated messages, bytes one by one, half a header, silence; and peers
that ask for a stream and never read it. Nothing may be lost, late, wrong, or left behind.

Usage: make soak, or soak_storm.py [--seconds 60] [--seed 1]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from benchmarks.common import ended
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.codec import encode_parts
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.header import pack_header, timestamp_now
from IntraopMRIReconstructionLib.wire.messages_text import Query
from IntraopMRIReconstructionLib.wire.timing import PoseBoard
from IntraopMRIReconstructionLib.wire.transport import Received, Server
from peers import igtl_examples
from peers.igtl_fuzz import seeds

VOLUME = (64, 512, 256)
TEXTS_PER_S, VOLUMES_PER_S, POSES_PER_S = 1000, 1, 60
#: Messages of one link before it ends; the next one goes on with the next number.
TEXTS_PER_LINK, VOLUMES_PER_LINK = 1500, 4
#: A text that takes longer than this was frozen out by others (s): two cores carry all processes here.
LATE_S = 0.5
#: What the allocator may keep more in the last quarter than in the second.
FLAT_MB = 32.0
DEAF, LIMITS = 3, Limits(header_s=2.0, stall_s=2.0, send_s=2.0)
PYIGTL = """
import sys, numpy as np, pyigtl, time
client = pyigtl.OpenIGTLinkClient("127.0.0.1", int(sys.argv[1]))
while True:
    client.send_message(pyigtl.TransformMessage(np.eye(4), device_name="igtl"), wait=True)
    client.send_message(pyigtl.ImageMessage(np.full((1, 128, 128), 7, np.int16), device_name="igtl"), wait=True)
    time.sleep(0.01)
"""


def raw(message: codec.Message) -> bytes:
    """The bytes of a message."""
    return b"".join(encode_parts(message))


def numbered(number: int) -> codec.Message:
    """A text that says its number and when it was sent, in header version 2 with metadata."""
    text, stamp = f"{number} {time.time():.6f}", timestamp_now()
    return codec.StringMessage(device="count", version=2, metadata={"n": str(number)}, text=text, timestamp=stamp)


class Senders:
    """Threads that send until told to stop. ``sent``: how many whole messages of a kind have left."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.stop = port, threading.Event()
        self.sent: Counter[str] = Counter()
        self._rng = np.random.default_rng(seed)
        kinds: tuple[Callable[[], None], ...] = (
            self.texts, self.volumes, self.hostile, self.dribble, self.half, self.deaf, self.poses, self.poses,
        )  # fmt: skip
        self.threads = [threading.Thread(target=self._until_stopped, args=(kind,)) for kind in kinds]
        for thread in self.threads:
            thread.start()

    def _until_stopped(self, kind: Callable[[], None]) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(OSError):
                kind()

    def _link(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20.0)

    def texts(self) -> None:
        """Numbered texts at a steady pace; the link ends when its last one has left."""
        with self._link() as link:
            due = time.monotonic()
            for _ in range(TEXTS_PER_LINK):
                due += 1.0 / TEXTS_PER_S
                link.sendall(raw(numbered(self.sent["count"])))
                self.sent["count"] += 1
                if self.stop.wait(max(0.0, due - time.monotonic())):
                    break
            link.shutdown(socket.SHUT_WR)
            while link.recv(4096):
                pass

    def volumes(self) -> None:
        """Numbered volumes, every voxel of which is the number."""
        with self._link() as link:
            for _ in range(VOLUMES_PER_LINK):
                number = self.sent["volume"]
                array = np.full(VOLUME, number % 30000, np.int16)
                stamp = codec.timestamp_of(time.time() + (-3600.0 if number % 3 else 0.0))
                link.sendall(raw(codec.ImageMessage(device="volume", array=array, timestamp=stamp)))
                self.sent["volume"] += 1
                if self.stop.wait(1.0 / VOLUMES_PER_S):
                    break
            link.shutdown(socket.SHUT_WR)
            while link.recv(4096):
                pass

    def hostile(self) -> None:
        """A message with bits, sizes or a CRC that are wrong, in pieces; then often a reset."""
        sound = seeds()
        with self._link() as link:
            for _ in range(int(self._rng.integers(1, 20))):
                version, kind, body = sound[int(self._rng.integers(len(sound)))]
                data = bytearray(pack_header(version, kind, "Device", timestamp_now(), [body]) + body)
                for _ in range(int(self._rng.integers(1, 4))):
                    data[int(self._rng.integers(len(data)))] ^= 1 << int(self._rng.integers(8))
                if self._rng.random() < 0.1:
                    data[50:58] = bytes(8)
                if self._rng.random() < 0.1:
                    struct.pack_into(">Q", data, 42, int(self._rng.integers(0, 2**40)))
                at = int(self._rng.integers(len(data)))
                link.sendall(data[:at])
                link.sendall(data[at:])
                self.sent["hostile"] += 1
            if self._rng.random() < 0.5:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stop.wait(0.02)

    def dribble(self) -> None:
        """A sound message a byte at a time."""
        with self._link() as link:
            for byte in raw(codec.StringMessage(device="dribble", text="whole")):
                link.sendall(bytes([byte]))
                if self.stop.wait(0.005):
                    return
            self.sent["dribble"] += 1
            link.shutdown(socket.SHUT_WR)
            while link.recv(4096):
                pass

    def half(self) -> None:
        """Half a header, and then nothing until we are cut off."""
        with self._link() as link:
            link.sendall(raw(codec.StringMessage(device="half"))[:29])
            while link.recv(4096):
                pass
        self.sent["half"] += 1

    def deaf(self) -> None:
        """Peers that ask for a stream of pictures and read nothing."""
        with contextlib.ExitStack() as stack:
            links = [stack.enter_context(self._link()) for _ in range(DEAF)]
            for link in links:
                link.sendall(raw(Query.start("IMAGE", "picture", 0.01)))
            self.stop.wait(5.0)
            self.sent["deaf"] += DEAF

    def poses(self) -> None:
        """One of two trackers that both say where the pointer is; its stamps stand still or go back now and then."""
        with self._link() as link:
            for number in range(300):
                stamp = 1 if number % 100 > 90 else timestamp_now()
                link.sendall(raw(codec.TransformMessage(device="pointer", timestamp=stamp)))
                if self.stop.wait(1.0 / POSES_PER_S):
                    break


def play(port: int, seed: int) -> None:
    """The sending process, until its standard input closes; prints what it has sent."""
    senders = Senders(port, seed)
    programs = [[sys.executable, "-c", PYIGTL, str(port)]]
    if not igtl_examples.missing():
        folder = igtl_examples.build()
        for name in ("TrackerClient", "ImagerClient"):
            path = next(Path(folder).rglob(name))
            programs.append([str(path), "127.0.0.1", str(port), "60"])
    running: list[subprocess.Popen[bytes]] = []

    def crowd() -> None:
        rng = np.random.default_rng(seed)
        while not senders.stop.is_set():
            for command in programs:
                running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            senders.stop.wait(float(rng.uniform(3.0, 6.0)))
            for process in running:
                process.kill()
                process.wait()
            running.clear()

    thread = threading.Thread(target=crowd)
    thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    senders.stop.set()
    for each in [*senders.threads, thread]:
        each.join()
    print(json.dumps(senders.sent), flush=True)


class Checker:
    """Takes what comes and says what is wrong with it."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.came: Counter[str] = Counter()
        self.late_s: list[float] = []
        self._board = PoseBoard()
        self._rivals: dict[str, float] = {}

    def take(self, received: Received) -> None:
        """One message."""
        message = received.message
        if isinstance(message, codec.StringMessage) and message.device == "count":
            number, sent_s = message.text.split()
            self.late_s.append(received.received_utc_s - float(sent_s))
            self._in_order("count", int(number))
            if message.metadata.get("n") != number:
                self.wrong.append(f"text {number} came with the metadata {message.metadata}")
        elif isinstance(message, codec.ImageMessage) and message.device == "volume":
            first = int(message.array[0, 0, 0])
            self._in_order("volume", first)
            if message.array.shape != VOLUME or not (message.array == first).all():
                self.wrong.append(f"volume {first} is not what was sent")
        elif isinstance(message, codec.TransformMessage) and message.device == "pointer":
            self._pose(received)
        elif message.device == "dribble":
            self.came["dribble"] += 1
        elif message.device == "igtl":
            self.came[f"pyigtl {message.type_name}"] += 1
        else:
            self.came[f"other {message.type_name}"] += 1

    def _in_order(self, kind: str, number: int) -> None:
        if number != self.came[kind]:
            self.wrong.append(f"{kind} {number} came where {self.came[kind]} was due")
        self.came[kind] = number + 1

    def _pose(self, received: Received) -> None:
        """While two trackers send one tool neither may be shown."""
        now_s = received.received_monotonic_s
        with contextlib.suppress(IntraopError):
            self._board.update(received)
        others = [at for peer, at in self._rivals.items() if peer != received.peer and now_s - at < 0.5]
        self._rivals[received.peer] = now_s
        state = self._board.state("pointer", now_s)
        self.came["pose"] += 1
        if others and state is not None and state.usable:
            self.wrong.append("a tool that two trackers send was shown")


def storm(seconds: float, seed: int, late_s: float = LATE_S, flat_mb: float = FLAT_MB) -> list[str]:
    """Receive, print, and return what is wrong."""
    checker = Checker()
    states: list[float] = []
    process = psutil.Process()
    with Server(limits=LIMITS) as server:
        picture = codec.ImageMessage(device="picture", array=np.zeros((1, 512, 512), np.int16))
        server.offer("IMAGE", "picture", lambda: picture)
        threads = process.num_threads()
        command = [sys.executable, __file__, "--play", str(server.port), "--seed", str(seed)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as player:
            assert player.stdin is not None
            assert player.stdout is not None
            player.stdout.readline()
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                received = server.receive(0.1)
                if received is not None:
                    checker.take(received)
                if time.monotonic() - began > len(states):
                    states.append(process.memory_info().rss / 2**20)
            player.stdin.close()
            ends: list[str] = []
            reader = threading.Thread(target=lambda: ends.append(player.stdout.readline()))  # type: ignore[union-attr]
            reader.start()
            while reader.is_alive() or server.peers:
                received = server.receive(0.1)
                if received is not None:
                    checker.take(received)
            while (received := server.receive(0.0)) is not None:
                checker.take(received)
            sent = json.loads(ends[0])
        counters = server.counters
        left = process.num_threads() - threads
    wrong = [*judge(checker, sent), *trends(checker.late_s, late_s, states, flat_mb)]
    print(f"refused {dict(counters.refused)}\nlinks ended {dict(counters.lost)}")
    if left > 0:
        wrong.append(f"{left} threads were left")
    if "defect" in counters.refused:
        wrong.append(f"{counters.refused['defect']} messages were refused for a defect of ours")
    return wrong


def judge(checker: Checker, sent: dict[str, int]) -> list[str]:
    """Print what came and say what is wrong with it."""
    wrong = checker.wrong[:10]
    print(f"sent {dict(sorted(sent.items()))}\ncame {dict(sorted(checker.came.items()))}")
    for kind in ("count", "volume", "dribble"):
        if checker.came[kind] != sent.get(kind, 0):
            wrong.append(f"of {sent.get(kind, 0)} {kind}s {checker.came[kind]} came")
    wrong += [
        f"no {word} came at all"
        for word in ("pyigtl TRANSFORM", "pyigtl IMAGE", "pose", "count")
        if not checker.came[word]
    ]
    return wrong


def trends(delays_s: list[float], late_s: float, states: list[float], flat_mb: float) -> list[str]:
    """Print delays and memory and say what is wrong with them."""
    late = np.percentile(delays_s or [np.inf], [50, 99, 100])
    quarter = max(len(states) // 4, 1)
    # The least: volumes that are on their way are no growth.
    memory = [min(part) for part in (states[quarter : 2 * quarter], states[-quarter:])]
    wrong = []
    print(f"texts: delay p50, p99, largest {np.round(1e3 * late, 1)} ms; memory {memory[0]:.0f} -> {memory[1]:.0f} MB")
    if late[2] > late_s:
        wrong.append(f"a text took {late[2]:.2f} s")
    if memory[1] - memory[0] > flat_mb:
        wrong.append(f"memory grew by {memory[1] - memory[0]:.0f} MB")
    return wrong


def main() -> int:
    """Run; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--play", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play(options.play, options.seed)
        return 0
    return ended(storm(options.seconds, options.seed), "Nothing was lost, late, wrong or left behind.")


if __name__ == "__main__":
    sys.exit(main())
