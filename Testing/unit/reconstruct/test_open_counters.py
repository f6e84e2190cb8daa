"""MRD streams whose header leaves limits of counters out, as the standard allows: what comes counts."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import OPEN_COUNTERS, Acquisition, Encoding
from IntraopMRIReconstructionLib.errors import ReconstructionError, WireError
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.live import LiveScan as Frames
from IntraopMRIReconstructionLib.reconstruct.unmixing import Calibrations
from IntraopMRIReconstructionLib.wire.mrd_header import parse_header
from IntraopMRIReconstructionLib.wire.mrd_live import LiveScan
from IntraopMRIReconstructionLib.wire.mrd_messages import AcquisitionMessage
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions, plan_scan
from unit.reconstruct.fault_scans import Mrd, Pictures, made, pictures


def without_limits(case: Mrd) -> Mrd:
    case.xml = re.sub("<encodingLimits>.*</encodingLimits>", "<encodingLimits/>", case.xml)
    return case


def interleaved(case: Mrd) -> Mrd:
    """Line by line: every slice, average or contrast of one before the next."""
    case.keep(np.argsort(case.heads["idx"]["kspace_encode_step_1"], kind="stable"))
    return case


def streamed(case: Mrd, at_once: int) -> tuple[list[Encoding], list[Acquisition]]:
    live, items = LiveScan(), []
    live.begin(case.xml)
    for row in range(len(case.heads)):
        live.add(AcquisitionMessage(case.heads[row : row + 1], case.data[row], case.traj[row]))
        if row % at_once == 0:
            items += list(live.flush())
    items += list(live.flush(end=True))
    blocks = [item for item in items if isinstance(item, Acquisition)]
    return [item for item in items if isinstance(item, Encoding)], blocks


def same(one: Pictures, two: Pictures) -> bool:
    return one.keys() == two.keys() and all(
        np.allclose(one[key][0], two[key][0], rtol=1e-4, atol=1e-5) and np.allclose(one[key][1], two[key][1])
        for key in one
    )


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("kind", "order"),
    [
        *((kind, interleaved) for kind in ("2D", "GRAPPA 2x2", "slices", "contrasts", "repetitions", "averages")),
        *((kind, lambda case: case) for kind in ("slices", "contrasts", "repetitions", "averages", "noise", "radial")),
    ],
)
def test_the_pictures_are_those_of_the_file(kind: str, order: Callable[[Mrd], Mrd], at_once: int) -> None:
    case, said = order(without_limits(Mrd(made(kind)))), list[str]()
    expected = case.read([])
    encodings, blocks = streamed(case, at_once)
    assert len(encodings) == 1
    assert same(pictures(encodings[0], blocks, said), expected)
    assert said == []


def test_frames_come_one_by_one_and_share_their_weights() -> None:
    encodings, blocks = streamed(without_limits(Mrd(made("repetitions"))), 7)
    live, shown = Frames(encodings[0]), []
    for block in blocks:
        live.add(block)
        shown += [frame.repetition for frame in live.whole(block.last)]
    live.close()
    assert shown == [0, 1, 2]
    assert isinstance(live.calibrations, Calibrations)
    assert live.encoding.repetitions == 3
    assert live.fraction == 1.0


def test_a_place_that_cannot_be_is_said_with_the_first_line() -> None:
    case, live = without_limits(Mrd(made("slices"))), LiveScan()
    for name in ("read_dir", "phase_dir", "slice_dir"):
        case.heads[name] = 0
    live.begin(case.xml)
    with pytest.raises(WireError, match="nobody knows how the image lies"):
        live.add(AcquisitionMessage(case.heads[:1], case.data[0], case.traj[0]))


def test_a_stream_that_breaks_off_gives_what_came() -> None:
    case, live = without_limits(Mrd(made("slices"))), LiveScan()
    live.begin(case.xml)
    for row in range(100):
        live.add(AcquisitionMessage(case.heads[row : row + 1], case.data[row], case.traj[row]))
    assert list(live.flush()) == []
    live.count_slices()
    items = list(live.flush())
    assert isinstance(items[0], Encoding)
    assert items[0].encoded_matrix[0] == 3
    assert sum(len(item.ky) for item in items[1:] if isinstance(item, Acquisition)) == 100


def test_a_header_with_limits_is_held_to_them() -> None:
    case = Mrd(made("repetitions"))
    case.xml = re.sub("(<repetition>.*?<maximum>)2(</maximum>)", r"\g<1>0\2", case.xml)
    encodings, blocks = streamed(case, 7)
    assert "repetition" not in encodings[0].metadata.get(OPEN_COUNTERS, "")
    scan = collector(encodings[0])
    scan.add(blocks[0])
    with pytest.raises(ReconstructionError, match=r"repetition must be within 0\.\.0 by the header, got 2"):
        scan.add(next(block for block in blocks if block.repetition == 2))


def test_a_damaged_counter_takes_no_memory() -> None:
    case = Mrd(made("averages"))
    case.xml = re.sub("<average>.*</average>", "", case.xml)
    case.heads["idx"]["average"][-1] = 65535
    encodings, blocks = streamed(case, 7)
    scan = collector(encodings[0])
    with pytest.raises(ReconstructionError, match=r"average must be within 0\.\.254 .*, got 65535"):
        scan.add(next(block for block in blocks if block.average == 65535))


def test_a_file_leaves_nothing_open() -> None:
    case = without_limits(Mrd(made("repetitions")))
    plan = plan_scan(parse_header(case.xml), case.heads, MrdOptions())
    assert plan.encoding.repetitions == 3
    assert OPEN_COUNTERS not in plan.encoding.metadata
