"""Lines from the wire, in any order, into sorted Cartesian k-space.

Line indices are those of the header: the line ``ky`` lies at ``ky - centre + N // 2`` of the encoded matrix, so that
partial-Fourier scans, which count from their first acquired line, find their place; see :mod:`.readouts` for those
along x. Whatever needs no other line is done as a line arrives: oversampling, whitening, averaging.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..data import ECHO_TRAIN, Acquisition, Encoding, KSpace, LineFlag
from ..errors import ReconstructionError
from ..operators.sampling import begun_offset, describe, lacking_lines, planned_mask
from .arrivals import CENTRAL, CUT, MAX_AVERAGES, MAX_FRAME_BYTES, Arrivals, cut_of, flags_of, silent_of
from .consistency import fitting
from .interference import zipper_words
from .motion import motion
from .noise import mixed
from .readouts import Readouts
from .scan_input import ScanInput
from .suspicion import suspicions

#: A frame with less than this part of the lines that the header announces need not be looked at line by line.
LEAST_OF_PLAN = 0.9
#: Lines that are sorted in at a time: 8 coils x 512 samples of them take 8 MB.
CHUNK_LINES = 256


@dataclass
class _Frame:
    """Buffers of one contrast of one repetition."""

    samples: npt.NDArray[np.complex64]
    taken: npt.NDArray[np.bool_]  # (averages, z, y)
    counts: npt.NDArray[np.uint8]  # (z, y)
    calibrated: npt.NDArray[np.bool_]  # (z, y)
    energy: npt.NDArray[np.float32]  # (z, y, coils) of the newest average
    order: npt.NDArray[np.int32]  # (z, y) of arrival
    unsteady: npt.NDArray[np.bool_]  # (coils,) by the lines that were judged
    pictured: bool = False  # whether a line for the image came, though it may have been left out
    stored: int = 0  # lines
    judged: int = 0  # lines
    words: tuple[str, ...] = ()
    fits: object = None  # what was known when all lines were found to fit to one another
    utc_s: float | None = None
    calibration: npt.NDArray[np.complex64] | None = None

    @property
    def lines(self) -> int:
        """Lines that are in, over all averages; those for calibration alone count as well."""
        return int((self.taken | self.calibrated).sum())


class Assembler(Arrivals):
    """Collects the acquisitions of one Cartesian scan.

    ``fraction_acquired`` is for the screen; ``kspace`` may be called at any time, also while lines still arrive.
    Readout oversampling is removed on arrival, averages are averaged on arrival: memory is one frame of
    (coils, z, y, x) complex64 for each contrast and repetition that has begun.
    """

    def __init__(self, encoding: Encoding, taken: ScanInput | None = None) -> None:
        """``taken``: what has come, when whoever prepares the lines keeps it, and looks whether they fit together.

        Raises ReconstructionError for non-Cartesian encodings and for matrices beyond ``MAX_FRAME_BYTES``.
        """
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
        super().__init__(encoding, taken)
        self._readouts = Readouts(encoding)
        z, y, x = encoding.encoded_matrix
        centre, kept = encoding.centre_index, self._readouts.kept
        self._shift = (z // 2 - centre[0] if encoding.is_3d else 0, y // 2 - centre[1])
        size = encoding.coils * z * y * kept * 8 + encoding.averages * z * y
        if size > MAX_FRAME_BYTES:
            raise ReconstructionError(
                f"one frame of {encoding.coils} coils x {(z, y, kept)}, {encoding.averages} times, needs "
                f"{size / 2**30:.1f} GiB, at most {MAX_FRAME_BYTES / 2**30:.0f} GiB are allowed: check the header"
            )
        fov = encoding.encoded_fov_mm
        self.encoding = replace(
            encoding,
            encoded_matrix=(z, y, kept),
            encoded_fov_mm=(fov[0], fov[1], fov[2] * kept / x),
            # The same readout in fewer samples: each stands for a longer time.
            dwell_time_s=None if encoding.dwell_time_s is None else encoding.dwell_time_s * x / kept,
            centre=None,
        )
        self._frames: dict[tuple[int, int], _Frame] = {}
        #: Lines of each of them that are in: asked for with every block, and a long scan has a thousand frames.
        self._counted: dict[tuple[int, int], int] = {}
        #: The frame of each contrast that brought the newest calibration lines.
        self._calibrating: dict[int, _Frame] = {}
        #: Whitening that the stored lines have gone through, (coils, coils); None while none was known.
        self._applied: npt.NDArray[np.complex64] | None = None
        self._stored = False
        self._planned = int(planned_mask(encoding).sum())
        said = encoding.metadata.get(ECHO_TRAIN, "")
        self._train = int(said) if said.isdecimal() else 0

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs of which an image line came, sorted: calibration alone is no picture."""
        return tuple(sorted(key for key, frame in self._frames.items() if frame.pictured))

    @property
    def fraction_acquired(self) -> float:
        """Share 0..1 of the planned lines that are in, over all contrasts, repetitions and averages."""
        source = self._source
        planned = self._planned * source.contrasts * source.repetitions * source.averages
        return min(1.0, (self._released + sum(self._counted.values())) / planned)

    @property
    def missing(self) -> npt.NDArray[np.int64]:
        """(n, 4) lines (contrast, repetition, z, y) that a begun frame's sampling pattern lacks."""
        rows = [np.empty((0, 4), dtype=np.int64)]
        for key, frame in sorted(self._frames.items()):
            lines = describe(frame.counts, self._source.is_3d).missing
            rows.append(np.column_stack([np.broadcast_to(np.asarray(key, dtype=np.int64), (len(lines), 2)), lines]))
        return np.concatenate(rows)

    def add(self, acquisition: Acquisition) -> None:
        """Sort a block of readouts in.

        Lines that carry NaN, infinity or zeros in all coils are left out, coils that do so alone are dropped from the
        whole scan, and a line that is already there is not taken twice; all three are named in ``warnings``.
        Lines that calibrate as well as image count for both.

        Raises ReconstructionError, with nothing stored, for another scan's data, a wrong number of coils or samples,
        and indices outside the encoded matrix.
        """
        flags, noise, use = flags_of(acquisition)
        self._check(acquisition)
        if use.any():
            self._check_counters(acquisition)
            self._check_indices(acquisition, use)
        self._record(acquisition, flags, noise)
        if not use.any():
            return
        self._begin_whitening()
        reverse = flags & LineFlag.REVERSED > 0
        samples, good, energy = self._screened(acquisition.samples, use, reverse)
        z = acquisition.kz.astype(np.int64) + self._shift[0]
        y = acquisition.ky.astype(np.int64) + self._shift[1]
        frame = self._frame(acquisition)
        calibrates = good & (flags & (LineFlag.CALIBRATION | LineFlag.CALIBRATION_AND_IMAGE) > 0)
        for_image = (flags & LineFlag.CALIBRATION == 0) | (flags & LineFlag.CALIBRATION_AND_IMAGE > 0)
        if (use & for_image).any():
            frame.pictured = True
            self._begun.add((acquisition.contrast, acquisition.repetition))
        self._store(frame, samples, energy, z, y, good & for_image, reverse, acquisition.average)
        if calibrates.any():
            # Zeros that are never written to take no memory, so that the block may have the size of the frame; those
            # of zeros_like are written.
            if frame.calibration is None:
                frame.calibration = np.zeros(frame.samples.shape, dtype=np.complex64)
                self._calibrating[acquisition.contrast] = frame
            for lines in _chunks(np.flatnonzero(calibrates)):
                block = self._placed(samples[lines], reverse[lines])
                frame.calibration[:, z[lines], y[lines]] = np.moveaxis(block, 1, 0)
                frame.calibrated[z[lines], y[lines]] = True
        key = (acquisition.contrast, acquisition.repetition)
        # Calibration lines serve all frames of their contrast.
        for served in [other for other in self._frames if other[0] == key[0]] if calibrates.any() else [key]:
            self._counted[served] = self._lines_of(served)

    def kspace(self, contrast: int = 0, repetition: int = 0) -> KSpace:
        """Sorted, whitened (when the scan brought noise lines) k-space of one frame; dead coils are left out.

        Without noise lines and dead coils it shares memory with the assembler. Raises ReconstructionError when the
        frame has no line yet or more than half of the coils failed.
        """
        frame = self._frames.get((contrast, repetition))
        if frame is None or not frame.counts.any():
            raise ReconstructionError(
                f"contrast {contrast}, repetition {repetition} of scan '{self._source.scan_id}' has no line yet; "
                f"begun are {list(self.frames)}{''.join(f'; {text}' for text in self.warnings)}"
            )
        self._judge(frame)
        self._check_alive()
        samples, warnings = frame.samples, (*self.warnings, *frame.words)
        calibrating, other = self._calibrating_for(frame, contrast)
        warnings, calibration = (*warnings, *other), calibrating.calibration
        mixing, why = self.mixing()
        if why:
            warnings = (*warnings, why)
        rest = self._left_to_mix(mixing)
        if rest is not None:
            samples = mixed(rest, samples)
            calibration = None if calibration is None else mixed(rest, calibration, calibrating.calibrated)
        known = frame.stored, self._known
        if self._keeps and frame.fits != known:
            there, order = frame.counts > 0, self._order_in_time(frame)
            misfit = motion(samples, there, self._source.is_3d, order, self.encoding.encoded_fov_mm[2])
            if not misfit:
                samples, misfit = fitting(samples, there, self._source.is_3d, order, self._train > 1)
            frame.fits, warnings = (None, (*warnings, misfit)) if misfit else (known, warnings)
        return KSpace(
            samples=samples,
            acquired=frame.counts,
            encoding=self.encoding.with_coils(int(self._alive.sum())),
            readout=self._readouts.range,
            calibration=calibration,
            contrast=contrast,
            repetition=repetition,
            whitened=mixing is not None and self.has_noise and not why,
            input_hash=self._taken.hexdigest(),
            acquired_utc_s=frame.utc_s,
            warnings=warnings,
            left_out=self.left_out,
        )

    def _order_in_time(self, frame: _Frame) -> npt.NDArray[np.int32] | None:
        """(z, y) when each line was read, None when nobody knows: lines that come in the order of k-space were read so,
        one after each excitation, or sorted by who sent them."""
        if self._train == 1:
            return frame.order
        axes = (frame.order, frame.order.T) if self._source.is_3d else (frame.order,)
        there = frame.counts > 0
        lines = [
            row[came]
            for axis, known in zip(axes, (there, there.T), strict=False)
            for row, came in zip(axis, known, strict=True)
        ]
        return None if all((np.diff(each) > 0).all() for each in lines) else frame.order

    def _calibrating_for(self, frame: _Frame, contrast: int) -> tuple[_Frame, tuple[str, ...]]:
        """(the frame whose lines calibrate ``frame``, words where it shows another contrast).

        A scan may calibrate in its first repetition only, and in one contrast only: coils see all of them alike.
        """
        if frame.calibration is not None or contrast in self._calibrating or not self._calibrating:
            return frame if frame.calibration is not None else self._calibrating.get(contrast, frame), ()
        if describe(frame.counts, self._source.is_3d).calibration_lines[1] > 1:
            return frame, ()
        number, other = min(self._calibrating.items())
        return other, (f"calibrated by the lines of contrast {number}, since contrast {contrast} has none of its own",)

    def _judge(self, frame: _Frame) -> None:
        """Leave out coils that became unsteady, and note what speaks against the frame.

        Half a frame can deceive: more lines may acquit a coil, until the next frame begins.
        """
        if frame.judged == frame.stored:
            self._unsteady = frame.unsteady
            return
        frame.judged = frame.stored
        frame.unsteady, words = suspicions(frame.energy * self._working, frame.order, frame.samples, self._source.is_3d)
        self._unsteady = frame.unsteady
        if zipper := zipper_words(frame.samples, frame.counts > 0, self.encoding):
            words.append(zipper)
        lacking = lacking_lines(frame.counts > 0, self._source)
        if lacking:
            words.append(f"{lacking} lines that the header announces did not come")
        averages = self._source.averages
        if averages > 1 and (few := int(((frame.counts > 0) & (frame.counts < averages)).sum())):
            words.append(f"{few} lines lack some of their {averages} averages: more noise")
        frame.words = tuple(words)

    def lines(self, contrast: int, repetition: int) -> int:
        """Lines of a frame that has begun, over all averages."""
        return self._frames[contrast, repetition].lines

    def is_whole(self, contrast: int, repetition: int) -> bool:
        """Whether every line that the header announces for a frame that has begun is in."""
        frame = self._frames[contrast, repetition]
        if self._counted[contrast, repetition] < LEAST_OF_PLAN * self._planned * self._source.averages:
            return False
        offset = begun_offset(self._source, frame.counts > 0)
        planned = planned_mask(self._source, offset or (0, 0))
        calibrated = self._calibrating.get(contrast, frame).calibrated
        return not (planned & ~(frame.taken.all(axis=0) | calibrated)).any()

    def has_calibration(self, contrast: int, repetition: int, block: tuple[tuple[int, int], tuple[int, int]]) -> bool:
        """Whether all calibration lines within the half-open ranges ``block`` (z, y) of a frame are in."""
        frame = self._frames[contrast, repetition]
        z, y = (slice(*limits) for limits in block)
        there = frame.calibrated if frame.calibration is not None else np.asarray(frame.taken.all(axis=0))
        return bool(there[z, y].all())

    def release(self, contrast: int, repetition: int) -> None:
        """Forget a frame that nobody will ask for again; its lines stay counted."""
        if (contrast, repetition) in self._frames:
            self._released += self._counted.pop((contrast, repetition))
            del self._frames[contrast, repetition]

    def _lines_of(self, key: tuple[int, int]) -> int:
        """Lines of a frame that are in, with the calibration lines of another repetition that serve it as well."""
        calibrated = self._calibrating.get(key[0], self._frames[key]).calibrated
        return int((self._frames[key].taken | calibrated).sum())

    def _check(self, acquisition: Acquisition) -> None:
        self._check_scan(acquisition)
        if acquisition.trajectory is not None:
            raise ReconstructionError("lines with a trajectory cannot be sorted into a Cartesian matrix")
        self._check_coils(acquisition)

    def _check_counters(self, acquisition: Acquisition) -> None:
        self._reach(acquisition)
        source = self._source
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
        self._readouts.check(acquisition.samples.shape[2])

    def _screened(
        self, samples: npt.NDArray[np.complex64], use: npt.NDArray[np.bool_], reverse: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """(samples with broken coils and sparks set to 0, which lines may be used, energy of each in each coil)."""
        central = self._readouts.central(samples.shape[2], reverse, CENTRAL)
        values, broken, silent, energy = silent_of(self.cleaned(samples, use, central))
        lost = use & silent.all(axis=1)
        nan_lines = int((lost & broken.any(axis=1)).sum())
        if nan_lines:
            self._events["lines left out because they carry NaN or infinity"] += nan_lines
        if int(lost.sum()) > nan_lines:
            self._events["lines left out because they carry only zeros"] += int(lost.sum()) - nan_lines
        good = use & ~lost
        if number := int((good & cut_of(values)).sum()):
            self._events[CUT] += number
        self._working &= ~silent[good].any(axis=0)
        return values, good, energy

    def _frame(self, acquisition: Acquisition) -> _Frame:
        key = (acquisition.contrast, acquisition.repetition)
        frame = self._frames.get(key)
        if frame is not None and len(frame.taken) <= acquisition.average:
            more = np.zeros((self._source.averages - len(frame.taken), *frame.counts.shape), dtype=bool)
            frame.taken = np.concatenate([frame.taken, more])
        if frame is None:
            z, y, x = self.encoding.encoded_matrix
            for other in self._frames.values():
                if other.judged == other.stored:
                    self._working &= ~other.unsteady
            frame = self._frames[key] = _Frame(
                samples=np.zeros((self._source.coils, z, y, x), dtype=np.complex64),
                taken=np.zeros((self._source.averages, z, y), dtype=bool),
                counts=np.zeros((z, y), dtype=np.uint8),
                calibrated=np.zeros((z, y), dtype=bool),
                energy=np.zeros((z, y, self._source.coils), dtype=np.float32),
                unsteady=np.zeros(self._source.coils, dtype=bool),
                order=np.zeros((z, y), dtype=np.int32),
                utc_s=acquisition.received_utc_s,
            )
        return frame

    def _store(
        self,
        frame: _Frame,
        samples: npt.NDArray[np.complex64],
        energy: npt.NDArray[np.float32],
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
            self._events["lines came twice: the first was kept"] += duplicates
        full = new & (frame.counts[z * wanted, y * wanted] == MAX_AVERAGES)
        if full.any():
            self._events[f"lines left out because there are {MAX_AVERAGES} averages of them"] += int(full.sum())
            new &= ~full
        for lines in _chunks(np.flatnonzero(new)):
            at = (z[lines], y[lines])
            block = np.moveaxis(self._placed(samples[lines], reverse[lines]), 1, 0)
            frame.taken[(average, *at)] = True
            frame.counts[at] += 1
            frame.energy[at] = energy[lines]
            frame.order[at] = frame.stored + np.arange(len(lines))
            frame.stored += len(lines)
            weight = (np.float32(1) / frame.counts[at])[:, None]
            if (frame.counts[at] > 1).any():
                mean = frame.samples[(slice(None), *at)]
                block = mean + (block - mean) * weight
            frame.samples[(slice(None), *at)] = block

    def _placed(self, lines: npt.NDArray[np.complex64], reverse: npt.NDArray[np.bool_]) -> npt.NDArray[np.complex64]:
        """Lines (n, coils, x) on the grid, whitened as far as that is known."""
        block = self._readouts.on_grid(lines, reverse)
        return block if self._applied is None else np.matmul(self._applied, block)

    def _begin_whitening(self) -> None:
        """Before the first line is stored: whiten all that follow when the noise scan came first."""
        if not self._stored:
            self._stored = True
            if self.has_noise:
                self._applied = self.mixing()[0]

    def _left_to_mix(self, wanted: npt.NDArray[np.complex64] | None) -> npt.NDArray[np.complex64] | None:
        """What the stored lines still lack of the matrix ``wanted``: more noise or a coil that died came after them."""
        if self._applied is None or wanted is None:
            return wanted
        if np.array_equal(self._applied, wanted):
            return None
        undone = wanted.astype(np.complex128) @ np.linalg.inv(self._applied.astype(np.complex128))
        return np.asarray(undone, dtype=np.complex64)


def _chunks(lines: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Line numbers in parts, so that a whole file in one block needs no second copy of itself."""
    return [lines[start : start + CHUNK_LINES] for start in range(0, len(lines), CHUNK_LINES)]
