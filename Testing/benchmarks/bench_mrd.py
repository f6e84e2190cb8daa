"""Reading an MRD file of 1281 readouts: one HDF5 read against the ismrmrd package's Dataset, line by line."""

from __future__ import annotations

import shutil
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
from IntraopMRIReconstructionLib.data import LineFlag
from IntraopMRIReconstructionLib.wire.mrd_file import MrdScan, read_mrd
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions

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
    report("mrd", [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
