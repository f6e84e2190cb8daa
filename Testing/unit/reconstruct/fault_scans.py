"""Small scans of every kind, and the two doors through which they come: MRD and the messages of OpenIGTLink."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.geometry import corner_from_fourier_centre, rotation_about
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make, quantity_of
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, HEAD_3D, cartesian_kspace, ring_of_coils
from IntraopMRIReconstructionLib.simulate.metal_scans import metal_scan
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan, epi_scan, radial_scan, spiral_scan
from IntraopMRIReconstructionLib.wire.mrd_header import format_header, parse_header
from IntraopMRIReconstructionLib.wire.mrd_lines import Lines, scan_lines
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions, plan_scan
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding

FIELD, COILS, NOISE = 240.0, 4, 0.003

#: Array (z, y, x) and ras_from_ijk of each frame, by (contrast, repetition).
Pictures = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]


def encoding(matrix: tuple[int, int, int], **changes: Any) -> Encoding:
    is_3d = changes.get("is_3d", matrix[0] > 1)
    fov = (FIELD if is_3d else 5.0 * matrix[0], FIELD, FIELD)
    recon, shown = changes.get("recon_matrix", matrix), changes.get("recon_fov_mm", fov)
    turn = changes.pop("turn", np.eye(3))
    steps = np.diag([-shown[2] / recon[2], -shown[1] / recon[1], shown[0] / recon[0]])
    values: dict[str, Any] = {
        "scan_id": "scan",
        "trajectory": "cartesian",
        "encoded_matrix": matrix,
        "recon_matrix": matrix,
        "encoded_fov_mm": fov,
        "recon_fov_mm": fov,
        "coils": COILS,
        "ras_from_ijk": corner_from_fourier_centre(turn @ steps, (3.0, -7.0, 11.0), recon[::-1]),
        "is_3d": is_3d,
        "dwell_time_s": 5e-6,
    }
    return Encoding(**(values | changes))


@cache
def head(matrix: tuple[int, ...], seed: int = 0, long: int = 1) -> np.ndarray:
    """(coils, [z,] y, x) with noise; ``long``: how much longer than the others the field of the readout is."""
    parts = HEAD_2D if len(matrix) == 2 else HEAD_3D[:4]
    field = (FIELD,) * (len(matrix) - 1) + (long * FIELD,)
    clean = cartesian_kspace(matrix, field, parts, ring_of_coils(COILS, FIELD, len(matrix)))
    noise = np.random.default_rng(seed).standard_normal((*clean.shape, 2))
    return (clean + NOISE * (noise[..., 0] + 1j * noise[..., 1])).astype(np.complex64)


def block(kspace: np.ndarray, ky: Any, kz: Any = 0, **changes: Any) -> Acquisition:
    """Lines (coils, lines, x)."""
    rows = np.asarray(ky, np.int32)
    samples = np.ascontiguousarray(np.moveaxis(kspace, 1, 0))
    return Acquisition("scan", samples, rows, np.broadcast_to(np.int32(kz), rows.shape).copy(), **changes)


def scan(header: Encoding, blocks: Iterable[Acquisition]) -> RawScan:
    ended = list(blocks)
    return RawScan(header, (*ended[:-1], replace(ended[-1], last=True)))


def plain() -> RawScan:
    header = encoding((1, 48, 96), recon_matrix=(1, 48, 48), recon_fov_mm=(5.0, FIELD, FIELD))
    header = replace(header, encoded_fov_mm=(5.0, FIELD, 2 * FIELD))
    return scan(header, [block(head((48, 96), long=2), range(48))])


def volume(turn: np.ndarray | None = None) -> RawScan:
    kspace = head((12, 32, 24))
    header = encoding((12, 32, 24), turn=np.eye(3) if turn is None else turn)
    return scan(header, [block(kspace[:, z], range(32), z) for z in range(12)])


def oblique() -> RawScan:
    return volume(rotation_about((0.3, -0.5, 0.8), 37.0))


def grappa(repetitions: int = 1) -> RawScan:
    rows = np.arange(48)
    middle = np.abs(rows - 24) < 8
    chosen = (rows % 2 == 0) | middle
    flags = np.where(middle, np.where(rows % 2 == 0, LineFlag.CALIBRATION_AND_IMAGE, LineFlag.CALIBRATION), 0)
    header = encoding((1, 48, 48), acceleration=(1, 2), calibration_lines=(0, 15), repetitions=repetitions)
    lines, marks = head((48, 48))[:, chosen], flags[chosen].astype(np.uint32)
    return scan(header, [block(lines, rows[chosen], flags=marks, repetition=each) for each in range(repetitions)])


def grappa_volume() -> RawScan:
    z, y = np.indices((24, 24))
    mask = ((z % 2 == 0) & (y % 2 == 0)) | ((np.abs(z - 12) < 9) & (np.abs(y - 12) < 9))
    kspace = head((24, 24, 16))
    header = encoding((24, 24, 16), acceleration=(2, 2), calibration_lines=(17, 17))
    rows = [(number, np.flatnonzero(mask[number])) for number in range(24) if mask[number].any()]
    return scan(header, [block(kspace[:, number, row], row, number) for number, row in rows])


def partial() -> RawScan:
    return scan(encoding((1, 48, 48), centre=(0, 4, 24)), [block(head((48, 48))[:, 20:], range(28))])


def short() -> RawScan:
    return scan(encoding((1, 48, 48), centre=(0, 24, 8)), [block(head((48, 48))[:, :, 16:], range(48))])


def slices() -> RawScan:
    header = encoding((4, 48, 48), is_3d=False)
    return scan(header, [block(head((48, 48), z) * np.float32(1 + z), range(48), z) for z in range(4)])


def contrasts() -> RawScan:
    header = encoding((1, 48, 48), contrasts=2, echo_times_s=(0.005, 0.01))
    return scan(header, [block(head((48, 48), echo), range(48), contrast=echo) for echo in range(2)])


def averages() -> RawScan:
    header = encoding((1, 48, 48), averages=3)
    return scan(header, [block(head((48, 48), each), range(48), average=each) for each in range(3)])


def with_noise() -> RawScan:
    numbers = np.random.default_rng(9).standard_normal((COILS, 16, 96, 2)) * NOISE
    noise = (numbers[..., 0] + 1j * numbers[..., 1]).astype(np.complex64)
    flags = np.full(16, LineFlag.NOISE, np.uint32)
    made = grappa()
    return scan(made.encoding, [block(noise, np.zeros(16), flags=flags), *made.blocks])


KINDS: dict[str, Callable[[], RawScan]] = {
    "2D": plain,
    "3D": volume,
    "oblique": oblique,
    "GRAPPA": grappa,
    "GRAPPA 2x2": grappa_volume,
    "partial Fourier": partial,
    "short echo": short,
    "slices": slices,
    "contrasts": contrasts,
    "repetitions": lambda: grappa(3),
    "averages": averages,
    "noise": with_noise,
    "EPI": lambda: epi_scan(32, COILS),
    "radial": lambda: radial_scan(32, COILS, 60),
    "golden angle": lambda: radial_scan(32, COILS, 60, with_trajectory=False),
    "spiral": lambda: spiral_scan(32, COILS, 12),
    "SEMAC": lambda: metal_scan(32, COILS, 4, 4),
}


@cache
def made(kind: str) -> RawScan:
    return KINDS[kind]()


def pictures(header: Encoding, blocks: Iterable[Acquisition], said: list[str]) -> Pictures:
    """Every picture of a scan; what was wrong on the way goes into ``said``."""
    collected = collector(header)
    for each in blocks:
        try:
            collected.add(each)
        except IntraopError as error:
            said.append(str(error))
    whole = quantity_of(Wanted(), header) != "image" or not collected.frames
    result: Pictures = {}
    for key in [(0, 0)] if whole else collected.frames:
        wanted = Wanted() if whole else Wanted(contrast=key[0], repetition=key[1])
        try:
            found = make(collected, wanted, threads=1)
        except IntraopError as error:
            said.append(str(error))
            continue
        said.extend(found.warnings)
        result[key] = found.image.array, found.image.ras_from_ijk
    return result


class Mrd:
    """A scan as MRD holds it: change ``xml``, ``heads``, ``data`` and ``traj``, then :meth:`read`."""

    def __init__(self, raw: RawScan) -> None:
        parts = list(scan_lines(raw.encoding, raw.blocks))
        self.xml = format_header(raw.encoding).decode()
        self.heads = np.concatenate([part.heads for part in parts])
        self.data = [line.copy() for part in parts for line in part.samples]
        nothing = np.zeros(0, np.float32)
        self.traj = [
            nothing if part.trajectory is None else part.trajectory[row].copy()
            for part in parts
            for row in range(len(part.heads))
        ]

    def line(self, row: int) -> np.ndarray:
        """Samples (coils, readout) of one line, to be changed in place."""
        return self.data[row].view(np.complex64).reshape(int(self.heads["active_channels"][row]), -1)

    def keep(self, rows: Any) -> None:
        """Only these lines, in this order."""
        chosen = np.arange(len(self.heads))[rows]
        self.heads = self.heads[chosen].copy()
        self.data, self.traj = [self.data[row].copy() for row in chosen], [self.traj[row] for row in chosen]

    def read(self, said: list[str]) -> Pictures:
        plan = plan_scan(parse_header(self.xml), self.heads, MrdOptions(), "file")
        blocks = plan.blocks(Lines(self.heads, self.data, self.traj))
        # As a file is read: its last block ends the scan, flagged or not.
        ended = [replace(each, last=number == len(blocks) - 1) for number, each in enumerate(blocks)]
        return pictures(plan.encoding, ended, said)


@dataclass
class Message:
    """One block on the link."""

    template: Any
    metadata: dict[str, str]
    array: np.ndarray


class Link:
    """A scan as messages: change ``fields`` and ``messages``, then :meth:`read`."""

    def __init__(self, raw: RawScan) -> None:
        (self._header,) = messages_from_encoding(raw.encoding)
        self.fields = json.loads(self._header.text)  # type: ignore[attr-defined]
        sent = [message_from_acquisition(each) for each in raw.blocks]
        self.messages = [Message(each, dict(each.metadata), each.array.copy()) for each in sent]

    def read(self, said: list[str]) -> Pictures:
        reader, blocks = RawDataReader(), []
        header = reader.feed(replace(self._header, text=json.dumps(self.fields)))  # type: ignore[call-arg]
        assert isinstance(header, Encoding)
        for message in self.messages:
            try:
                got = reader.feed(replace(message.template, metadata=message.metadata, array=message.array))
            except IntraopError as error:
                said.append(str(error))
                continue
            if isinstance(got, Acquisition):
                blocks.append(got)
        return pictures(header, blocks, said)
