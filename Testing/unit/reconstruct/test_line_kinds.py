"""Readouts of real scans that are in no picture, and calibration that comes in ways of its own: nothing is misused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import LineFlag
from IntraopMRIReconstructionLib.reconstruct.live import PREVIEW_S, LiveScan
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan
from IntraopMRIReconstructionLib.wire.mrd_layout import COUNTERS, NOT_FOR_IMAGES, MrdFlag
from unit.reconstruct.fault_scans import Mrd, block, encoding, head, made, scan
from unit.reconstruct.test_fault_oracle import difference, right

#: What may be in the head of a line that is in no picture, besides its flag.
ODD: dict[str, dict[str, int]] = {
    "as an image line": {},
    "with few samples": {"number_of_samples": 8, "center_sample": 4, "trajectory_dimensions": 0},
    "of the body coil": {"active_channels": 2},
    "with counters of its own": {
        "kspace_encode_step_1": 999,
        "kspace_encode_step_2": 77,
        "average": 5,
        "slice": 9,
        "contrast": 3,
        "repetition": 4,
        "set": 2,
        "phase": 3,
    },
    "without a place": {"position": 0, "read_dir": 0, "phase_dir": 0, "slice_dir": 0},
}


def mixed_in(case: Mrd, flag: MrdFlag, fields: dict[str, int], every: int = 5) -> None:
    """Readouts of loud noise with ``flag`` before each fifth readout of a scan."""
    rng, heads, data, traj = np.random.default_rng(1), [], [], []
    loud = 5 * max(float(np.abs(line).max()) for line in case.data)
    for row, line in enumerate(case.data):
        if row % every == 0:
            other = case.heads[row : row + 1].copy()
            other["flags"] = np.uint64(flag)
            for name, value in fields.items():
                (other["idx"] if name in (COUNTERS.names or ()) else other)[name] = value
            size = 2 * int(other["number_of_samples"][0]) * int(other["active_channels"][0])
            heads.append(other)
            data.append((loud * rng.standard_normal(size)).astype(np.float32))
            traj.append(case.traj[row] if other["trajectory_dimensions"][0] else case.traj[row][:0])
        heads.append(case.heads[row : row + 1])
        data.append(line)
        traj.append(case.traj[row])
    case.heads, case.data, case.traj = np.concatenate(heads), data, traj


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", ["2D", "GRAPPA", "slices", "EPI", "radial"])
def test_readouts_of_no_picture_change_none(kind: str, odd: str) -> None:
    expected, known = right(kind, Mrd)
    others = () if kind == "EPI" else (MrdFlag.PHASE_CORRECTION,)
    for flag in (*NOT_FOR_IMAGES, *others):
        case, said = Mrd(made(kind)), list[str]()
        mixed_in(case, flag, ODD[odd])
        found = case.read(said)
        assert found.keys() == expected.keys(), flag.name
        assert all(difference(expected[key], found[key]) < 1e-5 for key in expected), flag.name
        assert tuple(said) == known, flag.name


def test_noise_with_counters_of_its_own_is_used() -> None:
    expected, known = right("noise", Mrd)
    case, said = Mrd(made("noise")), list[str]()
    noise = case.heads["flags"] & np.uint64(MrdFlag.NOISE) > 0
    for name in ("average", "slice", "contrast", "repetition"):
        case.heads["idx"][name][noise] = 7
    found = case.read(said)
    assert difference(expected[0, 0], found[0, 0]) < 1e-5
    assert tuple(said) == known


def separately_calibrated() -> RawScan:
    """Two echoes of an accelerated scan; a scan of its own, in the first echo alone, calibrates both before them."""
    rows, middle = np.arange(0, 48, 2), np.arange(16, 32)
    header = encoding((1, 48, 48), acceleration=(1, 2), contrasts=2, calibration_lines=(0, 16))
    flags = np.full(len(middle), LineFlag.CALIBRATION, np.uint32)
    # As another sequence sees it: another brightness and phase.
    calibrating = block((0.3 * np.exp(0.7j) * head((48, 48), 5)[:, middle]).astype(np.complex64), middle, flags=flags)
    return scan(header, [calibrating, *(block(head((48, 48), echo)[:, rows], rows, contrast=echo) for echo in (0, 1))])


def test_one_calibration_scan_serves_all_contrasts() -> None:
    said: list[str] = []
    found = Mrd(separately_calibrated()).read(said)
    expected = right("contrasts", Mrd)[0]
    assert found.keys() == expected.keys()
    assert all(difference(expected[key], found[key]) < 0.05 for key in expected)
    assert said == ["calibrated by the lines of contrast 0, since contrast 1 has none of its own"]


def test_a_calibration_scan_alone_is_no_picture_and_no_error() -> None:
    raw, now = separately_calibrated(), [0.0]
    live = LiveScan(raw.encoding, clock=lambda: now[0])
    live.add(replace(raw.blocks[0], repetition=0, contrast=1))
    now[0] += 2 * PREVIEW_S
    assert live.preview() is None
    assert list(live.whole(last=False)) == []
    for each in raw.blocks[1:]:
        live.add(each)
    assert [(frame.contrast, frame.repetition) for frame in live.whole(last=True)] == [(0, 0), (1, 0)]
    live.close()


def backwards(own_centre: bool) -> Callable[[Mrd], None]:
    """Every second line, from the first on, read backwards; ``own_centre``: its head says where its centre is then."""

    def change(case: Mrd) -> None:
        for row in range(0, len(case.heads), 2):
            case.line(row)[:] = case.line(row)[:, ::-1].copy()
            case.heads["flags"][row] |= np.uint64(MrdFlag.REVERSE)
            if own_centre:
                case.heads["center_sample"][row] = (
                    case.heads["number_of_samples"][row] - 1 - case.heads["center_sample"][row]
                )

    return change


@pytest.mark.parametrize("own_centre", [False, True])
def test_short_echoes_read_backwards(own_centre: bool) -> None:
    case, said = Mrd(made("short echo")), list[str]()
    backwards(own_centre)(case)
    found = case.read(said)
    assert difference(right("short echo", Mrd)[0][0, 0], found[0, 0]) < 1e-5
    assert said == []
