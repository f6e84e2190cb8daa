"""One thing wrong in a scan whose picture is known: an error, a warning, or the right picture; never a wrong one.

What nobody can see in the data is named in ``NOBODY_CAN_SEE`` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.wire.mrd_layout import MrdFlag
from unit.reconstruct.fault_scans import KINDS, Link, Mrd, Pictures, made

#: A picture within this of the right one is right: single lines at the rim of k-space change less.
SAME = 0.05

#: Damage that leaves a scan as good as any other. Pattern of the fault's name and reason.
NOBODY_CAN_SEE = {
    r"position (zero|double|negative|other|\+1|-1) (all|half)": "nothing else in a scan says where the patient lay",
    r"(read|phase|slice)_dir negative all": "a mirrored patient is a patient",
    r"sample_time_us": "only EPI on ramps and the frequencies beside metal depend on the dwell time",
    r"userParameter\w+/value": "what a scan beside metal and an EPI readout say of themselves is written in one place",
    r"kspace_encode_step_1 .* \(golden angle\)": "the number of a golden-angle spoke is all that is said of its angle",
    r"flags reverse": "a line read backwards is a line of an object that is turned round; neighbours hardly agree",
    r"center_sample (\+1|-1)": "one sample beside the centre is what shim and gradient delays do",
    r"kspace_encode_step_1 shift|kspace_encode_step_1 swap": "lines of like strength may change places",
    r"matrixSize/[xyz] (\+1|-1|double|half)": "voxels of another size than was measured are what interpolation makes",
    r"fieldOfView_mm/[xyz] (\+1|-1|double|half)": "the size of the field of view is written in one place",
    r"kspace_encoding_step_1/(minimum|maximum|center) .*|center_sample .* all": (
        "a centre that moves by a few lines moves no magnitude, only what is completed or left out at the rim"
    ),
}

HEAD_FIELDS = [
    *("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample", "encoding_space_ref"),
    *("trajectory_dimensions", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir"),
    *("patient_table_position", "version", "scan_counter"),
]
COUNTERS = [
    *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition", "set"),
    "segment",
]
VALUES: dict[str, Callable[[np.ndarray, np.random.Generator], Any]] = {
    "zero": lambda old, _rng: old * 0,
    "+1": lambda old, _rng: old + 1,
    "-1": lambda old, _rng: old - 1,
    "double": lambda old, _rng: old * 2,
    "negative": lambda old, _rng: -old,
    "largest": lambda old, _rng: old * 0 + (65535 if old.dtype.kind == "u" else np.float32(3e38)),
    "swap": lambda old, rng: old[rng.permutation(len(old))],
    "shift": lambda old, _rng: np.roll(old, 1, axis=0),
    "other": lambda old, rng: rng.integers(0, 65535, old.shape),
    "nan": lambda old, _rng: old * np.nan if old.dtype.kind == "f" else old + 2,
    "infinite": lambda old, _rng: old * 0 + np.inf if old.dtype.kind == "f" else old + 8,
}


Door = type[Mrd] | type[Link]
_RIGHT: dict[tuple[str, Door], tuple[Pictures, tuple[str, ...]]] = {}


def right(kind: str, door: Door) -> tuple[Pictures, tuple[str, ...]]:
    if (kind, door) not in _RIGHT:
        said: list[str] = []
        _RIGHT[kind, door] = door(made(kind)).read(said), tuple(said)
    return _RIGHT[kind, door]


def verdict(kind: str, door: Door, fault: Callable[[Any], None]) -> tuple[str, str]:
    """(error, said, right or WRONG; the words) for a scan with a fault. Other exceptions are not caught."""
    expected, known = right(kind, door)
    case = door(made(kind))
    said: list[str] = []
    try:
        with np.errstate(all="ignore"):
            fault(case)
        found = case.read(said)
    except IntraopError as error:
        return "error", str(error)
    new = [text for text in said if text not in known]
    if len(found) == len(expected):
        pairs = zip(sorted(expected.items(), key=str), sorted(found.items(), key=str), strict=True)
        if max(difference(one[1], two[1]) for one, two in pairs) < SAME:
            return "right", "; ".join(new)
    return ("said" if new else "WRONG"), "; ".join(new)


def difference(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> float:
    """NRMSE, the brightness of the whole being free; infinite where the grids differ."""
    (a, place), (b, other) = one, two
    if a.shape != b.shape or np.abs(place - other).max() > 0.01:
        return np.inf
    fitted = b * (np.vdot(a, b) / max(np.vdot(b, b), 1e-30))
    return float(np.linalg.norm(a - fitted) / np.linalg.norm(a))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_scan_is_the_same_through_both_doors_and_nothing_is_said(kind: str) -> None:
    (mrd, words), (link, others) = right(kind, Mrd), right(kind, Link)
    assert (words, others) == ((), ())
    assert len(mrd) == len(link) > 0
    assert max(difference(mrd[key], link[key]) for key in mrd) < 1e-4


# What a person must hear of, named one by one.


def middle(case: Mrd) -> int:
    image = np.flatnonzero((case.heads["flags"] & np.uint64(MrdFlag.NOISE | MrdFlag.PHASE_CORRECTION)) == 0)
    return int(image[len(image) // 2])


def coil_dies(case: Mrd, value: float = 0.0) -> None:
    rng = np.random.default_rng(1)
    for row in range(middle(case) + 1, len(case.data)):
        noise = rng.standard_normal((2, case.line(row).shape[1])) * value
        case.line(row)[0] = noise[0] + 1j * noise[1]


def zeros_at_the_end(case: Mrd) -> None:
    for row in range(len(case.data)):
        case.line(row)[:, -12:] = 0


def marked_as_noise(case: Mrd) -> None:
    case.heads["flags"][21:23] |= np.uint64(MrdFlag.NOISE)


def halves_change_places(case: Mrd) -> None:
    for row in range(len(case.data)):
        case.line(row)[:] = np.roll(case.line(row), case.line(row).shape[1] // 2, axis=1)


def field(name: str, value: Any, rows: Any = slice(None)) -> Callable[[Mrd], None]:
    def change(case: Mrd) -> None:
        where = case.heads["idx"] if name in COUNTERS else case.heads
        where[name][rows] = value

    return change


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("2D", lambda case: case.keep(slice(8, None)), "8 lines that the header announces did not come"),
        ("2D", lambda case: case.keep(slice(None, -6)), "6 lines that the header announces did not come"),
        ("3D", lambda case: case.keep(slice(64, None)), "64 lines that the header announces did not come"),
        ("GRAPPA 2x2", lambda case: case.keep(np.arange(len(case.data)) % 9 > 0), "that the header announces"),
        ("GRAPPA 2x2", lambda case: case.keep(np.arange(len(case.data)) % 9 > 0), "28 of 256 calibration lines were"),
        ("GRAPPA 2x2", lambda case: case.keep(np.arange(len(case.data)) % 5 > 0), "calibration lines are too few"),
        ("slices", lambda case: case.keep(slice(96, None)), "2 of 4 slices that the header announces did not come"),
        ("contrasts", lambda case: case.keep(slice(48)), "of 2 frames that the header announces 1 came"),
        ("repetitions", lambda case: case.keep(slice(64)), "of 3 frames that the header announces 2 came"),
        ("averages", lambda case: case.keep(slice(100)), "44 lines lack some of their 3 averages"),
        ("averages", field("average", 65535, slice(1)), "lack some of their 65536 averages"),
        ("2D", lambda case: coil_dies(case, 0.003), "coils dropped because they failed during the scan: 0"),
        ("3D", lambda case: coil_dies(case, 0.003), "coils dropped because they failed during the scan: 0"),
        ("2D", coil_dies, "coils dropped because they failed during the scan: 0"),
        ("radial", coil_dies, "coils dropped because they failed during the scan: 0"),
        ("radial", lambda case: coil_dies(case, 0.003), "coils dropped because they failed during the scan: 0"),
        ("2D", halves_change_places, "beside the centre of k-space that the header names"),
        ("GRAPPA", zeros_at_the_end, "begin or end in zeros"),
        ("2D", field("discard_post", 30), "begin or end in zeros"),
        ("2D", marked_as_noise, "carry signal or spikes"),
        ("2D", field("center_sample", 20, slice(1)), "the centre of the readouts changes from sample 20 to 48"),
        ("3D", field("center_sample", 18), "beside the centre of k-space that the header names"),
        ("2D", field("position", 1e30), "is in no scanner"),
        ("2D", field("position", np.inf), "no place"),
        ("2D", lambda case: scaled(case, 1e-20), "carry only zeros"),
    ],
)
def test_it_is_said(kind: str, fault: Callable[[Mrd], None], words: str) -> None:
    outcome, text = verdict(kind, Mrd, fault)
    assert outcome != "WRONG"
    assert words in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_spark_is_said_and_leaves_the_picture_right(kind: str) -> None:
    """In one coil or all, away from the centre of k-space. One too weak to be told from the signal around it does no
    harm either: a third of the strongest sample, but for readouts of 16 samples, most of which are as strong."""
    for strength in (3.0, 1e4) if kind == "GRAPPA 2x2" else (0.3, 3.0, 1e4):
        outcome, text = verdict(kind, Mrd, spark(strength))
        assert outcome == "right"
        assert "sparks" in text or strength < 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "GRAPPA 2x2"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_receiver_that_stands_still_is_no_coil(kind: str, frozen: bool) -> None:
    """On one number, or on one readout. (Three coils are too few for an acceleration of 2 x 2.)"""

    def stands(case: Mrd) -> None:
        first = middle(case) - 3
        kept = case.line(first)[0].copy()
        for row in range(first, len(case.data)):
            case.line(row)[0] = kept if frozen else np.abs(kept).max() * (0.6 - 0.8j)

    outcome, text = verdict(kind, Mrd, stands)
    assert outcome != "WRONG"
    assert "coils dropped because they failed during the scan: 0" in text


def spark(strength: float) -> Callable[[Mrd], None]:
    def change(case: Mrd) -> None:
        rng = np.random.default_rng(int(strength))
        loudest = max(np.abs(line).max() for line in case.data)
        row = min(middle(case) + 9, len(case.data) - 2)
        coils, place = slice(None) if strength < 1 else slice(1, 2), -1 - case.line(row).shape[1] // 8
        case.line(row)[coils, place] += strength * loudest * np.exp(2j * np.pi * rng.random())

    return change


def scaled(case: Mrd, factor: float) -> None:
    for line in case.data:
        line *= np.float32(factor)


@pytest.mark.parametrize(
    ("kind", "name", "value", "words"),
    [
        ("2D", "encoded_matrix", [float("inf")] * 3, "cannot be used"),
        ("2D", "encoded_matrix", [1, 35.2, 96], "whole number"),
        ("2D", "coils", 10**30, "whole number"),
        ("2D", "averages", 2**31, "averages must be"),
        ("2D", "dwell_time_s", 10**400, "cannot be used"),
        ("2D", "calibration_lines", [], "calibration_lines must be two numbers"),
        ("2D", "recon_matrix", [1, 96, 48], "one of them is wrong"),
        ("2D", "recon_fov_mm", [5.0, 240.0, 480.0], "one of them is wrong"),
        ("2D", "recon_fov_mm", [5.0, 0.24, 0.24], "check"),
        ("2D", "encoded_fov_mm", [5.0, 2.4e5, 4.8e5], "check"),
        ("2D", "ras_from_ijk", [[-5, 1, 0, 0], [0, -5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]], "right angles"),
        ("2D", "ras_from_ijk", [[-5, 0, 0, 1e9], [0, -5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]], "in no scanner"),
        ("3D", "is_3d", None, "is_3d must be true or false"),
        ("3D", "encoded_matrix", [65535, 32, 24], "check matrix and field of view"),
    ],
)
def test_a_header_on_the_link_that_contradicts_itself_is_refused(kind: str, name: str, value: Any, words: str) -> None:
    outcome, text = verdict(kind, Link, lambda case: case.fields.update({name: value}))
    assert outcome == "error"
    assert words in text


# And everything else, systematically.


def head_faults(case: Mrd, rng: np.random.Generator) -> str:
    """Change one field of some heads; returns the fault's name."""
    number = len(case.heads)
    scopes: dict[str, Any] = {"all": slice(None), "one": [middle(case)], "first": [0], "half": slice(number // 2, None)}
    scope, how = str(rng.choice(list(scopes))), str(rng.choice(list(VALUES)))
    if rng.random() < 0.25:
        flag = MrdFlag(1 << int(rng.integers(18, 31)))
        case.heads["flags"][scopes[scope]] ^= np.uint64(flag)
        return f"flags {'reverse' if flag is MrdFlag.REVERSE else flag.name} {scope}"
    name = str(rng.choice(HEAD_FIELDS + COUNTERS))
    where = case.heads["idx"] if name in COUNTERS else case.heads
    old = where[name][scopes[scope]]
    where[name][scopes[scope]] = np.asarray(VALUES[how](old, rng)).astype(old.dtype)
    return f"{name} {how} {scope}"


def header_faults(case: Mrd, rng: np.random.Generator) -> str:
    """Remove or change one number of the XML header; returns the fault's name."""
    numbers = list(re.finditer(r"<(\w+)>(-?[\d.]+)</\1>", case.xml))
    chosen = numbers[int(rng.integers(len(numbers)))]
    opened = re.findall(r"<(\w+)>(?!.*</\1>)", case.xml[: chosen.start()], re.DOTALL)
    value = float(chosen[2])
    new = {
        "double": value * 2,
        "half": value / 2,
        "+1": value + 1,
        "-1": value - 1,
        "zero": 0,
        "nan": np.nan,
        "large": 1e9,
        "huge": 1e25,
        "word": "abc",
        "empty": "",
    }
    how = str(rng.choice(list(new)))
    text = new[how]
    if isinstance(text, float) and np.isfinite(text) and "." not in chosen[2]:
        text = int(text)
    case.xml = f"{case.xml[: chosen.start(2)]}{text}{case.xml[chosen.end(2) :]}"
    return f"{opened[-1] if opened else ''}/{chosen[1]} {how}"


def order_faults(case: Mrd, rng: np.random.Generator) -> str:
    """Lose, repeat or reorder lines."""
    number = len(case.heads)
    some = rng.choice(number, max(1, number // 7), replace=False)
    how = str(rng.choice(["lost", "twice", "shuffled", "cut", "begun late"]))
    rows = {
        "lost": np.setdiff1d(np.arange(number), some),
        "twice": np.sort(np.concatenate([np.arange(number), some])),
        "shuffled": rng.permutation(number),
        "cut": np.arange(int(rng.integers(1, number))),
        "begun late": np.arange(int(rng.integers(1, number)), number),
    }
    case.keep(rows[how])
    return f"lines {how}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("faults", [head_faults, header_faults, order_faults])
def test_whatever_is_wrong_is_said_or_does_no_harm(
    kind: str, faults: Callable[[Mrd, np.random.Generator], str]
) -> None:
    """Fifteen faults of each sort, the same ones every time."""
    wrong = []
    for seed in range(15):
        named: list[str] = []
        rng = np.random.default_rng((seed, list(KINDS).index(kind)))

        def damaged(case: Mrd, rng: np.random.Generator = rng, named: list[str] = named) -> None:
            named.append(faults(case, rng))

        outcome, _ = verdict(kind, Mrd, damaged)
        name = f"{named[0]} ({kind})"
        if outcome == "WRONG" and not any(re.search(pattern, name) for pattern in NOBODY_CAN_SEE):
            wrong.append(name)
    assert wrong == []
