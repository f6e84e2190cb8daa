"""Receivers of OpenIGTLink: ours, pyigtl and the C++ library with its CRC on, fed by the same sender in one run.

Images: seconds per image between the arrival of the first and of the last. Received: the newest one of a name is kept
and the consumer looks every millisecond, which is all that pyigtl does, and what a live view does with ours. Delivered:
per image that the consumer got; ours gives it every one as it comes, so does the C++ library, pyigtl those that it
found. What the link itself takes, read and thrown away by a bare socket, is printed with them: no receiver can be
faster. pyigtl sums up no CRC; the others do. Poses at 1 kHz: how many were seen, and the delay from the sender's stamp
to the consumer. Then a million mutated messages through the codec.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pyigtl
from benchmarks.common import Row, report
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE, RefusedMessage
from IntraopMRIReconstructionLib.wire.transport import Server
from peers.igtl_examples import build_own, free_port, missing
from peers.igtl_fuzz import fuzz_one, seeds
from peers.igtl_samples import frame, transform_body
from peers.igtl_sender import image_body

#: Slices of 256 x 256 16-bit voxels, images per run.
IMAGES = {"0.13 MB": (1, 2000), "16.8 MB": (128, 32), "67 MB": (512, 16)}
#: Runs of each receiver, in turn. Of the images the fastest run of each counts (what else the machine does only slows
#: down), of the delays the median, of the poses seen the fewest.
REPEATS, IMAGE_REPEATS = 3, 6
POSES, RATE_HZ = 5001, 1000
MUTATED = 1_000_000
FLIPS = 7000
WAIT_S = 120.0


def sender(port: int, mode: str, count: int, parameter: float) -> subprocess.Popen[bytes]:
    """Start the sending process."""
    command = [sys.executable, "-m", "peers.igtl_sender", str(port), mode, str(count), str(parameter)]
    return subprocess.Popen(command)


def looked(newest: Callable[[], Iterable[str]], count: int) -> tuple[float, float]:
    """Seconds per image that was sent, and per image that was found by a look every millisecond until the last."""
    started = time.perf_counter()
    names: list[str] = []
    while "last" not in names:
        names += newest()
        # pyigtl's own way of waiting looks every 10 ms; this one loses less time.
        time.sleep(0.001)
    seconds = time.perf_counter() - started
    return seconds / (count - 1), seconds / len(names)


def ours_newest(slices: int, count: int) -> float:
    """Seconds per image of which the newest are kept."""
    with Server(latest=("IMAGE",)) as server:
        process = sender(server.port, "images", count, slices)
        assert server.expect(WAIT_S).message.device == "first"
        waiting = partial(server.receive, 0.0)
        seconds, _ = looked(lambda: [received.message.device for received in iter(waiting, None)], count)
        assert server.counters.received == count
    process.wait()
    return seconds


def ours_images(slices: int, count: int) -> float:
    """Seconds per image, each delivered."""
    with Server() as server:
        process = sender(server.port, "images", count, slices)
        assert isinstance(server.expect(WAIT_S).message, codec.ImageMessage)
        started = time.perf_counter()
        for _ in range(count - 1):
            last = server.expect(WAIT_S).message
        seconds = (time.perf_counter() - started) / (count - 1)
        assert isinstance(last, codec.ImageMessage)
        assert last.device == "last"
        assert last.array.shape == (slices, 256, 256)
        assert server.counters.received == count
    process.wait()
    return seconds


def link_images(slices: int, count: int) -> float:
    """Seconds per image for the link alone: one buffer, nothing looked at."""
    size = HEADER_SIZE + len(image_body(slices))
    waste = memoryview(bytearray(size))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = sender(listener.getsockname()[1], "images", count, slices)
        link, _ = listener.accept()
        with link:
            for number in range(count):
                if number == 1:
                    started = time.perf_counter()
                left = size
                while left:
                    left -= link.recv_into(waste, left, socket.MSG_WAITALL)
            seconds = (time.perf_counter() - started) / (count - 1)
    process.wait()
    return seconds


def pyigtl_images(slices: int, count: int) -> tuple[float, float]:
    """Seconds per image that was received, and per image that the consumer found."""
    server = pyigtl.OpenIGTLinkServer(port=free_port(), local_server=True)
    process = sender(server.port, "images", count, slices)
    assert server.wait_for_message("first", WAIT_S) is not None
    seconds = looked(lambda: [message.device_name for message in server.get_latest_messages()], count)
    server.stop()
    process.wait()
    return seconds


def cpp(receiver: Path, mode: str, count: int, parameter: float) -> tuple[int, float, float, float]:
    """(messages, seconds from first to last, p50 ms, p99 ms) of the C++ receiver."""
    port = free_port()
    with subprocess.Popen([receiver, str(port), str(count)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        sending = sender(port, mode, count, parameter)
        seen, seconds, p50, p99 = process.stdout.readline().split()
    sending.wait()
    return int(seen), float(seconds), float(p50), float(p99)


def image_rows(receiver: Path | None) -> list[Row]:
    """Ours against pyigtl and against the C++ receiver."""
    rows = []
    for name, (slices, count) in IMAGES.items():
        times: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(IMAGE_REPEATS):
            times["received"].append(ours_newest(slices, count))
            times["delivered"].append(ours_images(slices, count))
            times["link"].append(link_images(slices, count))
            received, delivered = pyigtl_images(slices, count)
            times["pyigtl, received"].append(received)
            times["pyigtl, delivered"].append(delivered)
            if receiver is not None:
                times["C++, delivered"].append(cpp(receiver, "images", count, slices)[1] / (count - 1))
        link = min(times["link"])
        for peer, least in (("pyigtl, received", 3.0), ("pyigtl, delivered", 3.0), ("C++, delivered", 1.0)):
            if times[peer]:
                theirs, ours = min(times[peer]), min(times[peer.partition(", ")[2]])
                print(f"image of {name}, {peer}: the link alone is {theirs / link:.1f} times as fast ({link:.2g} s)")
                goal = f"at least {least:g} times as fast"
                work = f"image of {name}, s, against {peer}"
                rows.append(Row(work, ours, theirs, theirs / ours, goal, theirs / ours >= least))
    return rows


def ours_poses() -> tuple[int, float]:
    """(different poses seen, p99 ms). The consumer wants every pose, so a few may wait for it."""
    delays: list[float] = []
    seen: set[float] = set()
    with Server(latest_depth=64) as server:
        process = sender(server.port, "poses", POSES, RATE_HZ)
        while len(seen) < POSES:
            received = server.receive(5.0)
            if received is None:
                break
            assert isinstance(received.message, codec.TransformMessage)
            delays.append(time.time() - (received.message.sent_utc_s or 0.0))
            seen.add(float(received.message.matrix[0, 3]))
    process.wait()
    return len(seen), 1e3 * float(np.percentile(delays, 99))


def pyigtl_poses() -> tuple[int, float]:
    """(different poses seen, p99 ms) through pyigtl's way of waiting for a message."""
    delays: list[float] = []
    seen: set[float] = set()
    server = pyigtl.OpenIGTLinkServer(port=free_port(), local_server=True)
    process = sender(server.port, "poses", POSES, RATE_HZ)
    while POSES - 1.0 not in seen:
        message = server.wait_for_message("probe", 5.0)
        if message is None:
            break
        delays.append(time.time() - message.timestamp)
        seen.add(float(message.matrix[0, 3]))
    server.stop()
    process.wait()
    return len(seen), 1e3 * float(np.percentile(delays, 99))


def cpp_poses(receiver: Path | None) -> tuple[int, float]:
    """(poses seen, p99 ms) of the C++ receiver."""
    if receiver is None:
        return 0, 0.0
    seen, _, _, p99 = cpp(receiver, "poses", POSES, RATE_HZ)
    return seen, p99


def pose_rows(receiver: Path | None) -> list[Row]:
    """Poses seen and their delay: the median of runs in turn, fewest seen."""
    runs = [(ours_poses(), pyigtl_poses(), cpp_poses(receiver)) for _ in range(REPEATS)]
    (seen, p99), (peer_seen, peer_p99), (cpp_seen, cpp_p99) = (
        (min(run[who][0] for run in runs), statistics.median(run[who][1] for run in runs)) for who in range(3)
    )
    rows = [
        Row(f"poses seen of {POSES} at 1 kHz, against pyigtl", seen, peer_seen, seen / peer_seen, "all", seen == POSES),
        Row("pose delay p99, ms, against pyigtl", p99, peer_p99, peer_p99 / p99, "below 1 ms", p99 < 1.0),
    ]
    if receiver is not None:
        rows += [
            Row(f"poses seen of {POSES} at 1 kHz, against C++", seen, cpp_seen, seen / cpp_seen, "all", seen == POSES),
            Row("pose delay p99, ms, against C++", p99, cpp_p99, cpp_p99 / p99, "below 1 ms", p99 < 1.0),
        ]
    return rows


def fuzz_rows() -> list[Row]:
    """A million mutated messages; any error that is not a refusal ends the benchmark. And flipped bits let through."""
    messages = seeds()
    rng = np.random.default_rng(20261122)
    started = time.perf_counter()
    passed = sum(fuzz_one(rng, messages[number % len(messages)]) for number in range(MUTATED))
    print(f"{MUTATED} mutated messages in {time.perf_counter() - started:.0f} s, {passed} harmless, the others refused")
    good = bytearray(frame("TRANSFORM", transform_body()))
    accepted = peer_accepted = 0
    for number in range(FLIPS):
        raw = bytearray(good)
        bit = HEADER_SIZE * 8 + number % ((len(good) - HEADER_SIZE) * 8)
        raw[bit // 8] ^= 1 << (bit % 8)
        accepted += ours_accepts(bytes(raw))
        peer_accepted += pyigtl_accepts(bytes(raw))
    return [
        Row(f"{MUTATED} mutated messages, foreign errors or hangs", 0, 0, 1.0, "none", True),
        Row(
            f"flipped bits accepted of {FLIPS}, against pyigtl", accepted, peer_accepted, np.inf, "none", accepted == 0
        ),
    ]


def ours_accepts(raw: bytes) -> bool:
    """Whether our codec takes the message."""
    try:
        codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
    except RefusedMessage:
        return False
    return True


def pyigtl_accepts(raw: bytes) -> bool:
    """Whether pyigtl takes the message."""
    fields = pyigtl.messages.MessageBase.parse_header(raw[:HEADER_SIZE])
    message = pyigtl.messages.MessageBase.create_message(fields["message_type"])
    message.unpack(fields, raw[HEADER_SIZE:])
    return bool(message.is_valid)


def main() -> None:
    """Run all and report."""
    reason = missing()
    if reason:
        print(f"without the C++ receiver: {reason}")
    receiver = None if reason else build_own("igtl_receiver")
    # Small images take as long as the machine leaves three processes to themselves: the ratio is worth its load.
    before = os.getloadavg()[0]
    rows = [*pose_rows(receiver), *image_rows(receiver), *fuzz_rows()]
    print(f"load of the machine (processes, over a minute): {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    report("receiver", rows)


if __name__ == "__main__":
    main()
