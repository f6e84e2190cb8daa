"""The links of a session in real time, as a theatre has them: does anything grow, does anything become late?

A tracker (QTDATA at 60 Hz, its state ten times a second) and a live view (5 images of 256 x 256 a second and its state)
in a process of their own; here a session's links, asked 60 times a second as the window does. Memory, threads, files
and delays of the first and of the last quarter are compared. ``--cut`` ends every link each so many seconds.

Usage: soak_links.py [--minutes 4] [--cut 0]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import psutil
from benchmarks.common import ended
from IntraopMRILib.session.journal import Journal
from IntraopMRILib.session.links import Link, Links
from IntraopMRILib.session.updates import Problem, Update
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.header import timestamp_now
from IntraopMRIReconstructionLib.wire.transport import Server

RATE_HZ, IMAGE_EVERY, STATE_EVERY = 60, 12, 6
#: What the allocator and the journal of a session may grow by from the second to the last quarter.
FLAT_MB = 4.0
#: 95 % of the poses and slices come within three ticks of the window.
LATE_MS = 3 * 1e3 / RATE_HZ


def play(cut_s: float) -> None:
    """The sending process, until its standard input closes."""
    picture = np.zeros((1, 256, 256), np.int16)
    with Server() as tracker, Server() as live:
        print(json.dumps({"tracker": tracker.port, "live": live.port}), flush=True)
        due_s = cut_due_s = time.monotonic()
        for number in range(sys.maxsize):
            due_s += 1.0 / RATE_HZ
            time.sleep(max(0.0, due_s - time.monotonic()))
            stamp, at_mm = timestamp_now(), np.array([number % 100, 0.0, 0.0])
            tool = codec.QuaternionTool("pointer", at_mm, np.array([0.0, 0.0, 0.0, 1.0]))
            state = codec.StatusMessage(device="camera", timestamp=stamp, text=str(number))
            for server, every, message in (
                (tracker, 1, codec.QuaternionTrackingMessage(device="tracker", timestamp=stamp, tools=(tool,))),
                (tracker, STATE_EVERY, state),
                (live, STATE_EVERY, state),
                (live, IMAGE_EVERY, codec.ImageMessage(device="live", timestamp=stamp, array=picture)),
            ):
                # While nobody is connected nothing is sent.
                with contextlib.suppress(WireError):
                    if number % every == 0:
                        server.send(message)
            if cut_s and time.monotonic() - cut_due_s > cut_s:
                cut_due_s = time.monotonic()
                for link in [*tracker._connections.values(), *live._connections.values()]:
                    link.close(0.0)


def state() -> tuple[float, int, int]:
    """Memory in MB, threads, open files."""
    process = psutil.Process()
    return process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()


def soak(minutes: float, cut_s: float) -> list[str]:
    """Receive, print, and return what is wrong."""
    told: list[Update] = []
    links = Links("patient", Journal("patient", "soak"), told.append, {})
    command = [sys.executable, __file__, "--play", "--cut", str(cut_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        links.connect(None, Link("127.0.0.1", ports["tracker"]), Link("127.0.0.1", ports["live"]))
        began = time.monotonic()
        states: list[tuple[float, int, int]] = []
        delays: dict[str, list[tuple[float, float]]] = {"pose": [], "slice": []}
        try:
            while (now := time.monotonic() - began) < 60.0 * minutes:
                pose, live = links.pose(), links.live_slice()
                for name, sent in (
                    ("pose", pose.sent_utc_s if pose is not None else None),
                    ("slice", live.acquired_utc_s if live is not None else None),
                ):
                    if sent is not None:
                        delays[name].append((now, 1e3 * (time.time() - sent)))
                if now > len(states):
                    states.append(state())
                time.sleep(1.0 / RATE_HZ)
        finally:
            process.kill()
            links.close()
    wrong = [f"a problem was told: {update.text}" for update in told if isinstance(update, Problem)]
    quarter = len(states) // 4
    memory = [np.median([row[0] for row in rows]) for rows in (states[quarter : 2 * quarter], states[-quarter:])]
    print(f"memory {states[0][0]:.1f}, {memory[0]:.1f} -> {memory[1]:.1f} MB; threads, files {states[5][1:]}", end="")
    print(f" -> {states[-1][1:]}; CPU {100 * time.process_time() / (60 * minutes):.1f} % of a core")
    if memory[1] - memory[0] > FLAT_MB:
        wrong.append(f"memory grew by {memory[1] - memory[0]:.1f} MB")
    if max(row[1] for row in states[-quarter:]) > max(row[1] for row in states[:quarter]):
        wrong.append("there are more threads than at the beginning")
    if max(row[2] for row in states[-quarter:]) > max(row[2] for row in states[:quarter]):
        wrong.append("there are more open files than at the beginning")
    for name, rows in delays.items():
        first, last = (
            np.percentile(
                [late for at, late in rows if low <= at / (60 * minutes) < low + 0.25] or [np.nan], [50, 95, 99]
            )
            for low in (0.0, 0.75)
        )
        print(f"{len(rows)} {name}s; delay p50, p95, p99 (ms): first quarter {first.round(1)}, last {last.round(1)}")
        if not last[1] <= LATE_MS:
            wrong.append(f"95 % of the {name}s come within {last[1]:.0f} ms, not within {LATE_MS:.0f} ms")
    return wrong


def main() -> int:
    """Run; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--cut", type=float, default=0.0, metavar="S", help="end every link each so many seconds")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play(options.cut)
        return 0
    return ended(soak(options.minutes, options.cut), "Nothing grew and nothing became late.")


if __name__ == "__main__":
    sys.exit(main())
