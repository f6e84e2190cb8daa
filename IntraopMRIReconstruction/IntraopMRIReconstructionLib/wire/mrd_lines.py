"""Readouts of MRD in bulk: their heads, samples and flags, and blocks of ours turned into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import Acquisition, AnyArray, Encoding, LineFlag
from ..errors import DataError, WireError
from .mrd_geometry import place_heads
from .mrd_layout import ACQUISITION_HEAD, LAYOUT_VERSION, MrdFlag

_FLAGS = (
    (MrdFlag.NOISE, LineFlag.NOISE),
    (MrdFlag.CALIBRATION, LineFlag.CALIBRATION),
    (MrdFlag.CALIBRATION_AND_IMAGE, LineFlag.CALIBRATION_AND_IMAGE),
    (MrdFlag.REVERSE, LineFlag.REVERSED),
    (MrdFlag.PHASE_CORRECTION, LineFlag.NAVIGATOR),
    (MrdFlag.LAST_IN_MEASUREMENT, LineFlag.LAST_IN_SCAN),
)


@dataclass(frozen=True, eq=False)
class Lines:
    """Readouts in bulk. ``samples``, ``trajectory``: one flat float32 array a line, as MRD stores them."""

    heads: AnyArray
    samples: list[npt.NDArray[np.float32]]
    trajectory: list[npt.NDArray[np.float32]] | None = None


def has(heads: AnyArray, flags: MrdFlag) -> npt.NDArray[np.bool_]:
    """For each head, whether it has one of ``flags``."""
    return np.asarray((heads["flags"] & np.uint64(flags)) != 0)


def line_flags(heads: AnyArray) -> npt.NDArray[np.uint32]:
    """:class:`LineFlag` values of the lines, shape (lines,)."""
    result = np.zeros(len(heads), np.uint32)
    for source, target in _FLAGS:
        result |= np.where(has(heads, source), np.uint32(target), np.uint32(0))
    return result


def samples_of(lines: Lines, rows: npt.NDArray[np.intp], coils: int, count: int) -> npt.NDArray[np.complex64]:
    """The lines ``rows`` (equal coils and length) as one array (lines, coils, readout). Raises WireError when short."""
    chosen = [lines.samples[row] for row in rows]
    wrong = [number for number, line in zip(rows, chosen, strict=True) if len(line) != 2 * coils * count]
    if wrong:
        raise WireError(
            f"readout {wrong[0]} has {len(lines.samples[wrong[0]])} numbers, its head says {coils} coils x {count} "
            f"complex samples: damaged data"
        )
    if not coils * count:
        raise WireError(f"readout {rows[0]} is empty: {coils} coils x {count} samples")
    return np.concatenate(chosen).view(np.complex64).reshape(len(rows), coils, count)


def scan_lines(encoding: Encoding, acquisitions: Iterable[Acquisition]) -> Iterator[Lines]:
    """Readouts of blocks as MRD stores them, one :class:`Lines` a block. Trajectories become normalised."""
    counter = 0
    noise_dwell_us = float(encoding.metadata.get("noise_dwell_time_s", encoding.dwell_time_s or 0.0)) * 1e6
    for block in acquisitions:
        if block.scan_id != encoding.scan_id:
            raise DataError(f"acquisition belongs to scan '{block.scan_id}', the encoding to '{encoding.scan_id}'")
        count, coils, readout = block.samples.shape
        if max(coils, readout) > 0xFFFF:
            raise DataError(f"MRD holds at most 65535 coils and samples a line, got {coils} x {readout}")
        flags = np.zeros(count, np.uint32) if block.flags is None else block.flags
        noise = bool(flags[0] & LineFlag.NOISE) if count else False
        heads = np.zeros(count, ACQUISITION_HEAD)
        heads["version"] = LAYOUT_VERSION
        heads["flags"] = _mrd_flags(flags)
        heads["scan_counter"] = counter + np.arange(count)
        heads["number_of_samples"] = readout
        heads["available_channels"] = heads["active_channels"] = coils
        heads["center_sample"] = readout // 2 if noise else min(encoding.centre_index[2], readout - 1)
        heads["sample_time_us"] = noise_dwell_us if noise else (encoding.dwell_time_s or 0.0) * 1e6
        idx = heads["idx"]
        idx["kspace_encode_step_1"] = block.ky
        if encoding.is_3d:
            idx["kspace_encode_step_2"] = block.kz
        for name in ("contrast", "repetition", "average"):
            idx[name] = getattr(block, name)
        place_heads(heads, encoding, block.kz)
        if block.last and count:
            heads["flags"][-1] |= np.uint64(MrdFlag.LAST_IN_MEASUREMENT)
        samples = np.ascontiguousarray(block.samples, np.complex64).reshape(count, -1).view(np.float32)
        trajectory = None
        if block.trajectory is not None:
            dimensions = block.trajectory.shape[2]
            heads["trajectory_dimensions"] = dimensions
            matrix = np.array(encoding.encoded_matrix[::-1][:dimensions], np.float32)
            trajectory = list((block.trajectory / matrix).astype(np.float32).reshape(count, -1))
        yield Lines(heads, list(samples), trajectory)
        counter += count


def _mrd_flags(flags: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    result = np.zeros(len(flags), np.uint64)
    for written, read in _FLAGS:
        result |= np.where((flags & np.uint32(read)) != 0, np.uint64(written), np.uint64(0))
    return result
