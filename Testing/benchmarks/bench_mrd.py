"""MRD of 1281 readouts: reading the file, and receiving it as a live scan over loopback, against the ismrmrd package.

The package reads a file line by line (Dataset) and a stream message by message (ProtocolDeserializer); ours reads the
table at once, and turns the stream into blocks of k-space with geometry while it arrives.
"""

from __future__ import annotations

import io
import multiprocessing
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import ismrmrd
import numpy as np
from benchmarks.common import Row, report
from IntraopMRIReconstructionLib.data import Acquisition, LineFlag
from IntraopMRIReconstructionLib.wire.mrd_file import MrdScan, read_mrd
from IntraopMRIReconstructionLib.wire.mrd_header import format_header
from IntraopMRIReconstructionLib.wire.mrd_live import receive_scan
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions
from IntraopMRIReconstructionLib.wire.mrd_stream import MrdConnection
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer

#: Goal of the package: how many times as fast as the Dataset loop.
GOAL = 30.0
READOUTS = 1281

_T = TypeVar("_T")


def read_with_dataset(path: Path) -> list[ismrmrd.Acquisition]:
    """The loop of the package's own examples."""
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=False) as dataset:
        dataset.read_xml_header()
        return [dataset.read_acquisition(number) for number in range(dataset.number_of_acquisitions())]


def largest_difference(scan: MrdScan, lines: list[ismrmrd.Acquisition]) -> float:
    """Largest difference between the samples of the two, over the largest sample."""
    ours = {
        (bool(flag & LineFlag.NOISE), block.repetition, int(ky)): samples
        for block in scan.acquisitions
        for ky, flag, samples in zip(
            block.ky, block.flags if block.flags is not None else (), block.samples, strict=True
        )
    }
    if len(ours) != len(lines):
        raise SystemExit(f"{len(ours)} readouts instead of {len(lines)}")
    difference = largest = 0.0
    for line in lines:
        key = (line.isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT), line.idx.repetition, line.idx.kspace_encode_step_1)
        difference = max(difference, float(np.abs(ours[key] - line.data).max()))
        largest = max(largest, float(np.abs(line.data).max()))
    return difference / largest


def timed(work: Callable[[], _T], repeats: int) -> tuple[float, _T]:
    """Shortest time of some repeats, and the last result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> int:
    """Write the file with Debian's generator (8 coils, 256 lines, 5 repetitions, a noise scan), read it both ways."""
    program = shutil.which("ismrmrd_generate_cartesian_shepp_logan")
    if program is None:
        print("ismrmrd_generate_cartesian_shepp_logan is missing: apt-get install ismrmrd-tools")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.h5"
        options = ["-m", "256", "-c", "8", "-r", "5", "-C", "-o", str(path)]
        subprocess.run([program, *options], check=True, capture_output=True, timeout=120)
        ours_s, scan = timed(lambda: read_mrd(path, MrdOptions(assume_axial=True)), 5)
        peer_s, lines = timed(lambda: read_with_dataset(path), 2)
    if len(lines) != READOUTS:
        raise SystemExit(f"{len(lines)} readouts in the file instead of {READOUTS}")
    difference = largest_difference(scan, lines)
    ratio = peer_s / ours_s
    row = Row(
        work=f"MRD file, {READOUTS} readouts, 8 coils x 512, against ismrmrd.Dataset (s)",
        ours=ours_s,
        peer=peer_s,
        ratio=ratio,
        goal=f"{GOAL:g} times, equal content",
        holds=ratio >= GOAL and difference == 0.0,
        error_ours=difference,
        error_peer=0.0,
    )
    report("mrd", [row, stream_row(scan, lines)])
    return 0


def stream_row(scan: MrdScan, lines: list[ismrmrd.Acquisition]) -> Row:
    """The same readouts over a socket, serialised by the package and sent by a process of its own."""
    stream = io.BytesIO()
    with ProtocolSerializer(stream) as serializer:
        serializer.serialize(ismrmrd.xsd.CreateFromDocument(format_header(scan.encoding)))
        for line in lines:
            # The generator leaves the directions zero, which live scans of ours refuse.
            line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
            serializer.serialize(line)
    data = stream.getvalue()
    # Alternating, so that a busy moment of the machine meets both.
    ours, theirs = [], []
    for _ in range(5):
        ours.append(received(data, by_ours))
        theirs.append(received(data, by_package))
    ours_s, peer_s = min(seconds for seconds, _ in ours), min(seconds for seconds, _ in theirs)
    difference = largest_difference(MrdScan(scan.encoding, tuple(ours[0][1])), lines)
    if len(theirs[0][1]) != READOUTS:
        raise SystemExit(f"the package received {len(theirs[0][1])} readouts instead of {READOUTS}")
    return Row(
        work=f"MRD stream, {READOUTS} readouts, 8 coils x 512, against ProtocolDeserializer (s)",
        ours=ours_s,
        peer=peer_s,
        ratio=peer_s / ours_s,
        goal="as fast, equal content",
        holds=peer_s >= ours_s and difference == 0.0,
        error_ours=difference,
        error_peer=0.0,
    )


def by_ours(sock: socket.socket) -> list[Acquisition]:
    """Blocks of k-space."""
    with MrdConnection(sock, "bench") as connection:
        return [item for item in receive_scan(connection) if isinstance(item, Acquisition) and len(item.ky)]


def by_package(sock: socket.socket) -> list[ismrmrd.Acquisition]:
    """Single readouts."""
    with sock, sock.makefile("rb") as stream:
        return [item for item in ProtocolDeserializer(stream).deserialize() if isinstance(item, ismrmrd.Acquisition)]


def received(data: bytes, receive: Callable[[socket.socket], list[_T]]) -> tuple[float, list[_T]]:
    """Seconds from the connection to the last readout, and what was received."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = multiprocessing.get_context("fork").Process(target=send, args=(listener.getsockname()[1], data))
        sender.start()
        sock, _ = listener.accept()
        start = time.perf_counter()
        result = receive(sock)
        seconds = time.perf_counter() - start
        sender.join()
    return seconds, result


def send(port: int, data: bytes) -> None:
    """Send as fast as the receiver takes it."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(data)


if __name__ == "__main__":
    sys.exit(main())
