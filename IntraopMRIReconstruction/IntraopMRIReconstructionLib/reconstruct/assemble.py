"""Lines from the wire, in any order, into sorted Cartesian k-space.

Line indices are those of the header: the line ``ky`` lies at ``ky - centre + N // 2`` of the encoded matrix, so that
partial-Fourier scans, which count from their first acquired line, find their place. Readouts may be shorter than the
encoded matrix (asymmetric echo); they are placed in the same way by the centre along x.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..data import Acquisition, Encoding, KSpace, LineFlag
from ..errors import ReconstructionError
from ..operators.sampling import describe, planned_lines
from .noise import covariance_of, mixed, whitening_matrix

#: Refuse to allocate a frame beyond this: a header with a wrong matrix must not take the computer down.
MAX_FRAME_BYTES = 8 * 2**30
#: A coil whose line has less energy than this share of the others' is disconnected: receiver noise alone is stronger.
DEAD_ENERGY_SHARE = 1e-10
#: More coils lost than this share of the array, and the image is no longer the one that was planned.
MAX_DEAD_SHARE = 0.5
#: Lines that are sorted in at a time: 8 coils x 512 samples of them take 8 MB.
CHUNK_LINES = 256
#: A ratio of the fields of view counts as a whole number within this (headers carry single precision).
OVERSAMPLING_TOLERANCE = 1e-3


@dataclass
class _Frame:
    """Buffers of one contrast of one repetition."""

    samples: npt.NDArray[np.complex64]
    taken: npt.NDArray[np.bool_]  # (averages, z, y)
    counts: npt.NDArray[np.uint8]  # (z, y)
    calibrated: npt.NDArray[np.bool_]  # (z, y)
    utc_s: float | None = None
    calibration: npt.NDArray[np.complex64] | None = None


class Assembler:
    """Collects the acquisitions of one Cartesian scan.

    ``fraction_acquired`` is for the screen; ``kspace`` may be called at any time, also while lines still arrive.
    Readout oversampling is removed on arrival, averages are averaged on arrival: memory is one frame of
    (coils, z, y, x) complex64 for each contrast and repetition that has begun.
    """

    def __init__(self, encoding: Encoding) -> None:
        """Raises ReconstructionError for non-Cartesian encodings and for matrices beyond ``MAX_FRAME_BYTES``."""
        if encoding.trajectory != "cartesian":
            raise ReconstructionError(
                f"the scan '{encoding.scan_id}' has a {encoding.trajectory} trajectory, but line sorting needs a "
                "cartesian one: use the reconstruction for that trajectory"
            )
        if not encoding.is_3d and encoding.recon_matrix[0] != encoding.encoded_matrix[0]:
            raise ReconstructionError(
                f"a 2D scan must have as many encoded as reconstructed slices, got {encoding.encoded_matrix[0]} and "
                f"{encoding.recon_matrix[0]}: check the header"
            )
        self._source = encoding
        self._kept_x = _kept_samples(encoding)
        z, y, x = encoding.encoded_matrix
        centre = encoding.centre_index
        self._shift = (z // 2 - centre[0] if encoding.is_3d else 0, y // 2 - centre[1])
        self._start_x = x // 2 - centre[2]
        self._readout: tuple[int, int] | None = None
        size = encoding.coils * z * y * self._kept_x * 8
        if size > MAX_FRAME_BYTES:
            raise ReconstructionError(
                f"one frame of {encoding.coils} coils x {(z, y, self._kept_x)} needs {size / 2**30:.1f} GiB, at most "
                f"{MAX_FRAME_BYTES / 2**30:.0f} GiB are allowed: check the encoded matrix in the header"
            )
        scale = self._kept_x / x
        fov = encoding.encoded_fov_mm
        self.encoding = replace(
            encoding,
            encoded_matrix=(z, y, self._kept_x),
            encoded_fov_mm=(fov[0], fov[1], fov[2] * scale),
            centre=None,
        )
        self.complete = False
        self._frames: dict[tuple[int, int], _Frame] = {}
        self._alive = np.ones(encoding.coils, dtype=bool)
        self._noise: list[npt.NDArray[np.complex64]] = []
        self._hash = hashlib.sha256()
        self._events: Counter[str] = Counter()
        self._expected = planned_lines(encoding)

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs that have begun, sorted."""
        return tuple(sorted(self._frames))

    @property
    def fraction_acquired(self) -> float:
        """Share 0..1 of the planned lines that are in, over all contrasts, repetitions and averages."""
        planned = self._expected * self._source.contrasts * self._source.repetitions * self._source.averages
        taken = sum(int(frame.taken.sum()) for frame in self._frames.values())
        return min(1.0, taken / planned)

    @property
    def missing(self) -> npt.NDArray[np.int64]:
        """(n, 4) lines (contrast, repetition, z, y) that a begun frame's sampling pattern lacks."""
        rows = [np.empty((0, 4), dtype=np.int64)]
        for key, frame in sorted(self._frames.items()):
            lines = describe(frame.counts, self._source.is_3d).missing
            rows.append(np.column_stack([np.broadcast_to(np.asarray(key, dtype=np.int64), (len(lines), 2)), lines]))
        return np.concatenate(rows)

    @property
    def dead_coils(self) -> tuple[int, ...]:
        """Indices of coils that delivered nothing or broken numbers at least once."""
        return tuple(int(coil) for coil in np.flatnonzero(~self._alive))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the data so far, in words."""
        found = [f"{number} {what}" for what, number in self._events.items()]
        if self.dead_coils:
            found.append(f"coils dropped because they failed during the scan: {', '.join(map(str, self.dead_coils))}")
        return tuple(found)

    def add(self, acquisition: Acquisition) -> None:
        """Sort a block of readouts in.

        Lines that carry NaN, infinity or zeros in all coils are left out, coils that do so alone are dropped from the
        whole scan, and a line that is already there is not taken twice; all three are named in ``warnings``.
        Lines that calibrate as well as image count for both.

        Raises ReconstructionError, with nothing stored, for another scan's data, a wrong number of coils or samples,
        and indices outside the encoded matrix.
        """
        self._check(acquisition)
        self._hash.update(np.ascontiguousarray(acquisition.samples).data)
        self._hash.update(np.stack([acquisition.kz, acquisition.ky]).astype(np.int32).tobytes())
        flags = np.zeros(len(acquisition.ky), np.uint32) if acquisition.flags is None else acquisition.flags
        noise = flags & LineFlag.NOISE > 0
        if noise.any():
            self._noise.append(np.moveaxis(acquisition.samples[noise], 1, 0).reshape(self._source.coils, -1))
        self.complete |= acquisition.last or bool((flags & LineFlag.LAST_IN_SCAN).any())
        use = ~noise & (flags & LineFlag.NAVIGATOR == 0)
        if not use.any():
            return
        self._check_indices(acquisition, use)
        samples, good = self._screened(acquisition.samples, use)
        z = acquisition.kz.astype(np.int64) + self._shift[0]
        y = acquisition.ky.astype(np.int64) + self._shift[1]
        frame = self._frame(acquisition)
        reverse = flags & LineFlag.REVERSED > 0
        calibrates = good & (flags & (LineFlag.CALIBRATION | LineFlag.CALIBRATION_AND_IMAGE) > 0)
        for_image = good & ((flags & LineFlag.CALIBRATION == 0) | (flags & LineFlag.CALIBRATION_AND_IMAGE > 0))
        self._store(frame, samples, z, y, for_image, reverse, acquisition.average)
        if calibrates.any():
            # Zeros that are never written to take no memory, so that the block may have the size of the frame.
            if frame.calibration is None:
                frame.calibration = np.zeros_like(frame.samples)
            for lines in _chunks(np.flatnonzero(calibrates)):
                block = self._readouts(samples[lines], reverse[lines])
                frame.calibration[:, z[lines], y[lines]] = np.moveaxis(block, 1, 0)
                frame.calibrated[z[lines], y[lines]] = True

    def kspace(self, contrast: int = 0, repetition: int = 0) -> KSpace:
        """Sorted, whitened (when the scan brought noise lines) k-space of one frame; dead coils are left out.

        Without noise lines and dead coils it shares memory with the assembler. Raises ReconstructionError when the
        frame has no line yet or more than half of the coils failed.
        """
        frame = self._frames.get((contrast, repetition))
        if frame is None or not frame.counts.any():
            raise ReconstructionError(
                f"contrast {contrast}, repetition {repetition} of scan '{self._source.scan_id}' has no line yet; "
                f"begun are {list(self.frames)}"
            )
        dead = len(self.dead_coils)
        if dead > MAX_DEAD_SHARE * len(self._alive):
            raise ReconstructionError(
                f"{dead} of {len(self._alive)} coils failed during the scan (NaN or no signal): check the coil "
                "connection and scan again"
            )
        samples, calibration, warnings = frame.samples, frame.calibration, self.warnings
        mixing, why = self._mixing()
        if why:
            warnings = (*warnings, why)
        if mixing is not None:
            samples = mixed(mixing, samples)
            calibration = None if calibration is None else mixed(mixing, calibration, frame.calibrated)
        return KSpace(
            samples=samples,
            acquired=frame.counts,
            encoding=replace(self.encoding, coils=len(self._alive) - dead),
            readout=self._readout or (0, self._kept_x),
            calibration=calibration,
            contrast=contrast,
            repetition=repetition,
            whitened=mixing is not None and bool(self._noise) and not why,
            input_hash=self._hash.hexdigest(),
            acquired_utc_s=frame.utc_s,
            warnings=warnings,
        )

    def _check(self, acquisition: Acquisition) -> None:
        source = self._source
        if acquisition.scan_id != source.scan_id:
            raise ReconstructionError(
                f"lines of scan '{acquisition.scan_id}' came to scan '{source.scan_id}': send its header first"
            )
        if acquisition.trajectory is not None:
            raise ReconstructionError("lines with a trajectory cannot be sorted into a Cartesian matrix")
        if acquisition.samples.shape[1] != source.coils:
            raise ReconstructionError(
                f"a readout has {acquisition.samples.shape[1]} coils, the header says {source.coils}"
            )
        for name, value, limit in (
            ("contrast", acquisition.contrast, source.contrasts),
            ("repetition", acquisition.repetition, source.repetitions),
            ("average", acquisition.average, source.averages),
        ):
            if not 0 <= value < limit:
                raise ReconstructionError(f"{name} must be within 0..{limit - 1} by the header, got {value}")

    def _check_indices(self, acquisition: Acquisition, use: npt.NDArray[np.bool_]) -> None:
        for name, lines, shift, size in (
            ("kz", acquisition.kz, self._shift[0], self._source.encoded_matrix[0]),
            ("ky", acquisition.ky, self._shift[1], self._source.encoded_matrix[1]),
        ):
            outside = lines[use & ((lines + shift < 0) | (lines + shift >= size))]
            if len(outside):
                raise ReconstructionError(
                    f"{name} must be within {-shift}..{size - 1 - shift} by the header, got {outside[:5].tolist()}"
                )
        length, full = acquisition.samples.shape[2], self._source.encoded_matrix[2]
        start = self._start_x
        if length == full and start:
            raise ReconstructionError(
                f"a full readout of {full} samples must have its centre at {full // 2}, the header says "
                f"{full // 2 - start}"
            )
        if length != full and (not start or length + start > full or start < 0):
            raise ReconstructionError(
                f"a readout has {length} samples, the header's encoded matrix {full} with the centre at "
                f"{full // 2 - start}: they do not fit"
            )
        scale = self._kept_x / full
        found = (int(np.ceil(start * scale)), int((start + length) * scale))
        if self._readout not in (None, found):
            raise ReconstructionError(f"readouts of one scan must have one length, got {length} samples now")
        self._readout = found

    def _screened(
        self, samples: npt.NDArray[np.complex64], use: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_]]:
        """(samples with broken coils set to 0, which lines may be used)."""
        values = np.ascontiguousarray(samples, dtype=np.complex64)
        parts = values.view(np.float32)
        energy = np.einsum("lcx,lcx->lc", parts, parts)
        broken = ~np.isfinite(energy)
        if broken.any():
            energy = np.where(broken, 0.0, energy)
        strongest = energy.max(axis=1, keepdims=True)
        silent = energy <= DEAD_ENERGY_SHARE * strongest
        lost = use & silent.all(axis=1)
        nan_lines = int((lost & broken.any(axis=1)).sum())
        if nan_lines:
            self._events["lines left out because they carry NaN or infinity"] += nan_lines
        if int(lost.sum()) > nan_lines:
            self._events["lines left out because they carry only zeros"] += int(lost.sum()) - nan_lines
        good = use & ~lost
        self._alive &= ~silent[good].any(axis=0)
        if broken.any():
            values = np.where(broken[:, :, None], np.complex64(0), values)
        return values, good

    def _frame(self, acquisition: Acquisition) -> _Frame:
        key = (acquisition.contrast, acquisition.repetition)
        frame = self._frames.get(key)
        if frame is None:
            z, y, x = self.encoding.encoded_matrix
            frame = self._frames[key] = _Frame(
                samples=np.zeros((self._source.coils, z, y, x), dtype=np.complex64),
                taken=np.zeros((self._source.averages, z, y), dtype=bool),
                counts=np.zeros((z, y), dtype=np.uint8),
                calibrated=np.zeros((z, y), dtype=bool),
                utc_s=acquisition.received_utc_s,
            )
        return frame

    def _store(
        self,
        frame: _Frame,
        samples: npt.NDArray[np.complex64],
        z: npt.NDArray[np.int64],
        y: npt.NDArray[np.int64],
        wanted: npt.NDArray[np.bool_],
        reverse: npt.NDArray[np.bool_],
        average: int,
    ) -> None:
        first = np.zeros(len(z), dtype=bool)
        chosen = np.flatnonzero(wanted)
        first[chosen[np.unique(z[chosen] * frame.counts.shape[1] + y[chosen], return_index=True)[1]]] = True
        new = first & ~frame.taken[average, z * wanted, y * wanted]
        duplicates = int((wanted & ~new).sum())
        if duplicates:
            self._events["lines came twice; the first was kept"] += duplicates
        for lines in _chunks(np.flatnonzero(new)):
            at = (z[lines], y[lines])
            block = np.moveaxis(self._readouts(samples[lines], reverse[lines]), 1, 0)
            frame.taken[(average, *at)] = True
            frame.counts[at] += 1
            weight = (np.float32(1) / frame.counts[at])[:, None]
            if (frame.counts[at] > 1).any():
                mean = frame.samples[(slice(None), *at)]
                block = mean + (block - mean) * weight
            frame.samples[(slice(None), *at)] = block

    def _readouts(self, lines: npt.NDArray[np.complex64], reverse: npt.NDArray[np.bool_]) -> npt.NDArray[np.complex64]:
        """Lines (n, coils, x) in forward order, centred, oversampling removed."""
        x = self._source.encoded_matrix[2]
        if reverse.any():
            lines = np.where(reverse[:, None, None], lines[..., ::-1], lines)
        if lines.shape[2] != x:
            full = np.zeros((*lines.shape[:2], x), dtype=np.complex64)
            full[..., self._start_x : self._start_x + lines.shape[2]] = lines
            lines = full
        return lines if self._kept_x == x else _cropped_readout(lines, self._kept_x)

    def _mixing(self) -> tuple[npt.NDArray[np.complex64] | None, str]:
        """(matrix (live, coils) that drops dead coils and whitens, or None for neither; why it cannot whiten)."""
        live = np.flatnonzero(self._alive)
        why = ""
        matrix = np.eye(len(self._alive), dtype=np.complex64)[live]
        if self._noise:
            try:
                matrix[:, live] = whitening_matrix(covariance_of(np.concatenate(self._noise, axis=1)[live]))
                return matrix, ""
            except ReconstructionError as error:
                why = f"the noise lines are not used: {error}"
        return (None if self._alive.all() else matrix), why


def _kept_samples(encoding: Encoding) -> int:
    """Samples of a readout that remain when oversampling is removed; all of them when the ratio is not whole."""
    x = encoding.encoded_matrix[2]
    ratio = encoding.encoded_fov_mm[2] / encoding.recon_fov_mm[2]
    kept = round(x / ratio)
    if ratio > 1.0 and abs(x / ratio - kept) < OVERSAMPLING_TOLERANCE * x / ratio and kept >= 1:
        return kept
    return x


def _cropped_readout(lines: npt.NDArray[np.complex64], kept: int) -> npt.NDArray[np.complex64]:
    """Keep the middle ``kept`` pixels of the readout (..., x) in image space, orthonormal and centred."""
    x = lines.shape[-1]
    image = scipy.fft.fftshift(scipy.fft.ifft(scipy.fft.ifftshift(lines, -1), norm="ortho"), -1)
    start = x // 2 - kept // 2
    inner = scipy.fft.ifftshift(image[..., start : start + kept], -1)
    result: npt.NDArray[np.complex64] = scipy.fft.fftshift(scipy.fft.fft(inner, norm="ortho"), -1)
    return result


def _chunks(lines: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Line numbers in parts, so that a whole file in one block needs no second copy of itself."""
    return [lines[start : start + CHUNK_LINES] for start in range(0, len(lines), CHUNK_LINES)]
