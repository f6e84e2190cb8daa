"""A scanner in a process of its own: k-space of the head over OpenIGTLink, and when each frame's last line was sent.

Prints one line of JSON with its port, and one with the monotonic clock as the last block of each frame is handed to the
socket; that clock is the same for all processes of a computer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.phantom import Phantom, phantom
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server

CALIBRATION_LINES = 24
DEPTH = 128
#: Lines in a message: a scanner's buffer of some 10 ms.
LINES = 8
#: The receiver may hold us back while it works.
LIMITS = Limits(send_s=120.0)


@dataclass(frozen=True)
class Stream:
    """What is sent: ``frames`` of a slice, or one volume; every ``step``-th line; ``tr_s`` from line to line."""

    depth: int
    frames: int
    step: int
    tr_s: float


STREAMS = {
    "2D full": Stream(1, 60, 1, 1e-3),
    "2D R2": Stream(1, 60, 2, 2e-3),
    "3D R2": Stream(DEPTH, 1, 2, 0.0),
    "3D R2 in 20 s": Stream(DEPTH, 1, 2, 20.0 / DEPTH / 140),
}


def head(stream: Stream) -> Phantom:
    """The same for both sides."""
    return phantom(stream.depth, is_3d=stream.depth > 1)


def encoding(stream: Stream) -> Encoding:
    matrix = (stream.depth, 256, 256)
    return Encoding(
        "bench",
        "cartesian",
        matrix,
        matrix,
        (float(stream.depth), 256.0, 256.0),
        (float(stream.depth), 256.0, 256.0),
        8,
        np.eye(4),
        is_3d=stream.depth > 1,
        acceleration=(1, stream.step),
        calibration_lines=(0, CALIBRATION_LINES if stream.step > 1 else 0),
        repetitions=stream.frames,
    )


def blocks(stream: Stream, kspace: npt.NDArray[np.complex64]) -> Iterator[Acquisition]:
    """Lines of all frames; the first frame alone brings calibration lines."""
    lattice = np.arange(0, 256, stream.step)
    first = 128 - CALIBRATION_LINES // 2
    centre = np.arange(first, first + CALIBRATION_LINES)
    for frame in range(stream.frames):
        calibrates = stream.step > 1 and frame == 0
        lines = np.union1d(lattice, centre) if calibrates else lattice
        flags = np.zeros(len(lines), np.uint32)
        if calibrates:
            inside = np.isin(lines, centre)
            flags[inside] = int(LineFlag.CALIBRATION)
            flags[inside & np.isin(lines, lattice)] = int(LineFlag.CALIBRATION_AND_IMAGE)
        for partition in range(stream.depth):
            for part in np.array_split(np.arange(len(lines)), -(-len(lines) // LINES)):
                last = frame == stream.frames - 1 and partition == stream.depth - 1 and part[-1] == len(lines) - 1
                yield Acquisition(
                    "bench",
                    np.ascontiguousarray(kspace[:, partition, lines[part]].swapaxes(0, 1)),
                    lines[part].astype(np.int32),
                    np.full(len(part), partition, np.int32),
                    flags[part],
                    repetition=frame,
                    last=last,
                )


def main() -> None:
    """Send one stream to the first that connects."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("stream", choices=sorted(STREAMS))
    stream = STREAMS[arguments.parse_args().stream]
    kspace = head(stream).kspace
    messages = [(block, message_from_acquisition(block, form="image")) for block in blocks(stream, kspace)]
    with Server(limits=LIMITS) as server:
        print(json.dumps({"port": server.port}), flush=True)
        while not server.wait_for_peer(1.0):
            pass
        for message in messages_from_encoding(encoding(stream)):
            server.send(message)
        due_s = time.monotonic()
        for number, (block, message) in enumerate(messages):
            due_s = max(due_s + stream.tr_s * len(block.ky), time.monotonic() - 1.0) if stream.tr_s else 0.0
            time.sleep(max(0.0, due_s - time.monotonic()))
            ends = number + 1 == len(messages) or messages[number + 1][0].repetition > block.repetition
            sent_s = time.monotonic()
            server.send(message)
            if ends:
                print(json.dumps({"frame": block.repetition, "sent_s": sent_s}), flush=True)
        input()


if __name__ == "__main__":
    main()
