"""One scan has one hash, however it came; another header or other data have another. What was left out is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.live import LiveScan
from IntraopMRIReconstructionLib.simulate.raw_scans import (
    RawScan,
    epi_scan,
    in_small_blocks,
    interleaved_scan,
    radial_scan,
)
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd, write_mrd
from IntraopMRIReconstructionLib.wire.mrd_live import receive_scan
from IntraopMRIReconstructionLib.wire.mrd_stream import MrdConnection
from unit.wire.mrd_peer import Scan

SCANS: dict[str, Callable[[], RawScan]] = {
    "cartesian": lambda: interleaved_scan(32, 2, 1, 2),
    "radial": lambda: radial_scan(32, 2, 60),
    "epi": lambda: epi_scan(32, 2),
}


def hash_of(encoding: Encoding, blocks: Any) -> str:
    made = collector(encoding)
    for block in blocks:
        made.add(block)
    return made.kspace(*made.frames[-1]).input_hash


def streamed(encoding: Encoding, blocks: Any) -> list[Any]:
    """The scan through a socket, as an MRD client sends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=20)
        ours, _ = listener.accept()
    with MrdConnection(theirs, "sender") as sender, MrdConnection(ours, "receiver") as receiver:
        sending = threading.Thread(target=lambda: sender.send_scan(encoding, blocks))
        sending.start()
        items = list(receive_scan(receiver, lines_at_once=7))
        sending.join()
    return items


@pytest.mark.parametrize("name", SCANS)
def test_order_and_grouping_do_not_matter(name: str) -> None:
    scan = SCANS[name]()
    first = hash_of(scan.encoding, scan.blocks)
    assert len(first) == 64
    assert hash_of(scan.encoding, in_small_blocks(scan, 3)) == first
    if name != "epi":
        assert hash_of(scan.encoding, list(in_small_blocks(scan, 5))[::-1]) == first


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_has_one_hash_from_a_file_and_from_a_stream(tmp_path: Path, name: str) -> None:
    scan = SCANS[name]()
    write_mrd(tmp_path / "a.h5", scan.encoding, scan.blocks)
    stored = read_mrd(tmp_path / "a.h5")
    encoding, *blocks = streamed(scan.encoding, in_small_blocks(scan, 11))[1:]
    assert hash_of(encoding, blocks) == hash_of(stored.encoding, stored.acquisitions)


def moved(encoding: Encoding) -> Encoding:
    matrix = encoding.ras_from_ijk.copy()
    matrix[0, 3] += 1e-3
    return replace(encoding, ras_from_ijk=matrix)


@pytest.mark.parametrize(
    "change",
    [
        moved,
        lambda encoding: replace(encoding, recon_fov_mm=(5.0, 200.0, 201.0)),
        lambda encoding: replace(encoding, patient_id="another"),
        lambda encoding: replace(encoding, echo_times_s=(0.01,)),
        lambda encoding: replace(encoding, metadata={"geometry": "assumed axial"}),
        lambda encoding: replace(encoding, metadata={"frame_of_reference": "1.2.3"}),
    ],
)
def test_another_header_has_another_hash(change: Callable[[Encoding], Encoding]) -> None:
    scan = SCANS["cartesian"]()
    assert hash_of(change(scan.encoding), scan.blocks) != hash_of(scan.encoding, scan.blocks)


def test_what_a_file_calls_the_scan_does_not_count() -> None:
    scan = SCANS["cartesian"]()
    other = replace(scan.encoding, scan_id="another")
    renamed = [replace(block, scan_id="another") for block in scan.blocks]
    assert hash_of(other, renamed) == hash_of(scan.encoding, scan.blocks)


@pytest.mark.parametrize("part", ["samples", "ky", "repetition", "trajectory", "flags", "lacking", "twice"])
def test_other_readouts_have_another_hash(part: str) -> None:
    scan = SCANS["radial"]()
    first, *rest = (replace(block, samples=block.samples.copy()) for block in scan.blocks)
    plain = hash_of(scan.encoding, scan.blocks)
    if part == "samples":
        first.samples[0, 0, 0] += 1e-6
    elif part == "ky":
        first = replace(first, ky=first.ky + 1)
    elif part == "repetition":
        first = replace(first, repetition=1)
    elif part == "flags":
        first = replace(first, flags=np.full(len(first.ky), 2, np.uint32))
    elif part == "trajectory":
        assert first.trajectory is not None
        first = replace(first, trajectory=first.trajectory * np.float32(1.0001))
    elif part == "lacking":
        first = next(iter(in_small_blocks(RawScan(scan.encoding, (first,), scan.truth), len(first.ky) - 1)))
    else:
        rest = [first, *rest]
    assert hash_of(scan.encoding, [first, *rest]) != plain


def test_a_block_that_is_refused_leaves_no_trace() -> None:
    scan = SCANS["cartesian"]()
    made = collector(scan.encoding)
    for block in scan.blocks:
        with pytest.raises(Exception, match="ky must be within"):
            made.add(replace(block, ky=block.ky + 1000))
        made.add(block)
    assert made.kspace(*made.frames[-1]).input_hash == hash_of(scan.encoding, scan.blocks)


def test_lines_that_were_left_out_are_told_with_their_reasons(tmp_path: Path) -> None:
    """Of the file: those of no image; of the assembling: broken ones and doubles. All reach the image's metadata."""
    scan = Scan()
    rng = np.random.default_rng(5)
    lines = [scan.line(rng.normal(size=(2, 32)), kspace_encode_step_1=step) for step in range(16)]
    lines[3].data[:] = np.nan
    lines.insert(9, scan.line(kspace_encode_step_1=2))
    for flag in (ismrmrd.ACQ_IS_DUMMYSCAN_DATA, ismrmrd.ACQ_IS_DUMMYSCAN_DATA, ismrmrd.ACQ_IS_RTFEEDBACK_DATA):
        lines.append(scan.line(flags=[flag]))
    read = read_mrd(scan.write(tmp_path / "a.h5", lines))
    result = reconstruct(live_frame(read.encoding, read.acquisitions))
    assert sorted(result.image.metadata["lines_left_out"].split("; ")) == [
        "1 lines came twice: the first was kept",
        "1 lines left out because they carry NaN or infinity",
        "1 rt feedback readouts",
        "2 dummy scan readouts",
    ]
    assert not any("dummy" in text for text in result.warnings), "what a scanner plans is no fault"
    assert any("NaN" in text for text in result.warnings)
    assert result.provenance["geometry"] == "from the acquisition headers"


def live_frame(encoding: Encoding, blocks: Any) -> Any:
    scan = LiveScan(encoding)
    for block in blocks:
        scan.add(block)
    scan.close()
    return scan.frame()


def test_nothing_is_said_where_nothing_was_left_out() -> None:
    scan = SCANS["cartesian"]()
    assert "lines_left_out" not in reconstruct(live_frame(scan.encoding, scan.blocks)).provenance


@pytest.mark.parametrize("name", SCANS)
def test_every_collector_keeps_what_came_with_its_blocks(name: str) -> None:
    scan = SCANS[name]()
    blocks: list[Acquisition] = [replace(block, left_out={"dummy scan readouts": 2}) for block in scan.blocks]
    made = live_frame(scan.encoding, blocks)
    assert made.left_out == (f"{2 * len(blocks)} dummy scan readouts",)
