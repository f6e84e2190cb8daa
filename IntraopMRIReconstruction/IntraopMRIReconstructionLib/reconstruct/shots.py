"""Readouts that carry their own way through k-space, collected as they arrive: radial and spiral scans.

What a scan does not say is not guessed: without a trajectory only golden-angle spokes, whose header names them so, are
placed by their number.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..data import Acquisition, Encoding
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray
from ..operators.trajectory import GOLDEN_ANGLE_RAD, in_all_directions, radial
from .arrivals import CENTRAL, CUT, MAX_FRAME_BYTES, Arrivals, cut_of, flags_of, silent_of
from .stack import is_flat, slices_of
from .suspicion import changed_parts, gain_step

#: Entry of the encoding's metadata that says in which order the spokes of a radial scan are turned.
RADIAL_ORDER, GOLDEN = "radial_order", "golden"
#: Entry of the encoding's metadata that says how many readouts one image has.
SHOTS_PER_IMAGE = "shots"


#: Frames of a running scan are kept, for methods that compare them, until they take this much memory.
MAX_KEPT_BYTES = 2 * 2**30


@dataclass(frozen=True, eq=False)
class Shots:
    """Readouts of one frame (one contrast of one repetition).

    ``samples``: (coils, shots, readout) complex64. ``k``: (shots, readout, 2) = (kx, ky) float32 in cycles per field
    of view of ``encoding``, from which readout oversampling is taken away; (kx, ky, kz) of spokes in all directions of
    space. ``slices``: (shots,) the slice of each; of a stack too, whose transform across the partitions has been done.
    Other fields as in KSpace.
    """

    samples: ComplexArray
    k: npt.NDArray[np.float32]
    slices: npt.NDArray[np.int32]
    encoding: Encoding
    contrast: int = 0
    repetition: int = 0
    whitened: bool = False
    input_hash: str = ""
    acquired_utc_s: float | None = None
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Block:
    """Readouts of one block; ``energy``: (readouts, coils), others as in Shots."""

    samples: ComplexArray
    k: npt.NDArray[np.float32]
    slices: npt.NDArray[np.int32]
    energy: npt.NDArray[np.float32]

    @property
    def size(self) -> int:
        """Bytes of the samples, which take most of them."""
        return self.samples.nbytes


@dataclass
class _Frame:
    utc_s: float | None
    blocks: deque[_Block] = field(default_factory=deque)
    size: int = 0  # bytes
    came: int = 0  # readouts
    kept: int = 0  # readouts


class ShotAssembler(Arrivals):
    """Collects the readouts of one radial or spiral scan, of slices, of a stack (:mod:`.stack`) or of spokes in all
    directions of space (:mod:`.koosh`); used as :class:`.assemble.Assembler` is."""

    def __init__(self, encoding: Encoding) -> None:
        """Raises ReconstructionError for other trajectories."""
        if encoding.trajectory not in ("radial", "spiral"):
            raise ReconstructionError(f"shots are radial or spiral, the scan '{encoding.scan_id}' is neither")
        super().__init__(encoding)
        z, y, x = encoding.encoded_matrix
        fov, recon = encoding.encoded_fov_mm, encoding.recon_fov_mm
        shares = [min(1.0, recon[axis] / fov[axis]) for axis in (1, 2)]
        kept = [max(2, round(size * share)) for size, share in zip((y, x), shares, strict=True)]
        #: From cycles per encoded field of view to cycles per kept field of view, (x, y, z).
        self._scale = np.array([kept[1] / x, kept[0] / y, 1.0], dtype=np.float32)
        #: Whether a 3D scan has spokes in all directions; None while no readout has shown it.
        self._koosh: bool | None = None if encoding.is_3d else False
        self.encoding = replace(
            encoding,
            encoded_matrix=(z, kept[0], kept[1]),
            encoded_fov_mm=(fov[0], fov[1] * kept[0] / y, fov[2] * kept[1] / x),
            centre=None,
        )
        said = encoding.metadata.get(SHOTS_PER_IMAGE, "")
        self._announced = int(said) if said.isdecimal() else None
        self._frames: dict[tuple[int, int], _Frame] = {}
        self._kept_bytes = 0

    @property
    def fraction_acquired(self) -> float:
        """Share 0..1 of the planned shots that are in; of one radial image at the Nyquist distance if none are."""
        source = self._source
        each = self._announced or round(np.pi / 2 * max(self.encoding.encoded_matrix[1:]))
        planned = each * self._repeated * source.contrasts * source.repetitions
        taken = self._released + sum(frame.came for frame in self._frames.values())
        return min(1.0, taken / max(1, planned))

    def add(self, acquisition: Acquisition) -> None:
        """Take in a block of readouts. Lines that carry NaN, infinity or zeros are left out and named in ``warnings``.

        Raises ReconstructionError, with nothing stored, for another scan's data, a wrong number of coils, and lines
        whose way through k-space is not known.
        """
        self._check_scan(acquisition)
        self._check_coils(acquisition)
        self._reach(acquisition)
        source = self._source
        flags, noise, use = flags_of(acquisition)
        k = self.positions(acquisition, use)
        wrong = acquisition.kz[use][(acquisition.kz[use] < 0) | (acquisition.kz[use] >= source.encoded_matrix[0])]
        if len(wrong):
            raise ReconstructionError(
                f"the slice must be within 0..{source.encoded_matrix[0] - 1} by the header, got {wrong[:5].tolist()}"
            )
        self._record(acquisition, flags, noise)
        samples, good, energy = self._screened(acquisition.samples[use], k)
        if not good.any():
            return
        self._koosh = k.shape[-1] == 3
        key = acquisition.contrast, acquisition.repetition
        frame = self._frames.get(key) or _Frame(acquisition.received_utc_s)
        block = _Block(
            np.ascontiguousarray(np.moveaxis(samples[good], 1, 0)),
            k[good],
            acquisition.kz[use][good].astype(np.int32),
            energy[good],
        )
        if frame.size + block.size > MAX_FRAME_BYTES:
            raise ReconstructionError(
                f"one frame of scan '{source.scan_id}' has more than {MAX_FRAME_BYTES / 2**30:.0f} GiB: check the "
                "repetition counter of its readouts"
            )
        self._frames[key] = frame
        self._begun.add(key)
        frame.blocks.append(block)
        frame.size += block.size
        frame.came += len(block.slices)
        frame.kept += len(block.slices)
        self._kept_bytes += block.size
        self._forget(key)

    def lines(self, contrast: int, repetition: int) -> int:
        """Readouts of a frame that has begun."""
        return self._frames[contrast, repetition].came

    def is_whole(self, contrast: int, repetition: int) -> bool:
        """Whether as many readouts of a frame that has begun are in as the header announces; False when it does not."""
        return self._announced is not None and self.lines(contrast, repetition) >= self._announced * self._repeated

    def kspace(self, contrast: int = 0, repetition: int = 0) -> Shots:
        """One frame, whitened when the scan brought noise lines, without dead coils.

        Raises ReconstructionError when the frame has no readout yet, readouts of different lengths, or more than half
        of the coils failed.
        """
        frame = self._frames.get((contrast, repetition))
        if frame is None:
            raise ReconstructionError(
                f"contrast {contrast}, repetition {repetition} of scan '{self._source.scan_id}' has no readout yet; "
                f"begun are {list(self.frames)}"
            )
        k, slices = (np.concatenate([getattr(block, name) for block in frame.blocks]) for name in ("k", "slices"))
        self._drop_unsteady(np.concatenate([block.energy for block in frame.blocks]), slices)
        self._check_alive()
        lengths = {block.samples.shape[2] for block in frame.blocks}
        if len(lengths) > 1:
            raise ReconstructionError(f"readouts of one image must have one length, got {sorted(lengths)} samples")
        samples = np.concatenate([block.samples for block in frame.blocks], axis=1)
        mixing, why = self.mixing()
        if mixing is not None:
            samples = np.tensordot(mixing, samples, axes=1)
        warnings = [*self.warnings, why, self._count_words(frame), _with_one_gain(samples, slices)]
        if self.encoding.is_3d and not self._koosh:
            centre = self._source.centre_index[0]
            samples, k, slices, lost = slices_of(samples, k, slices, self.encoding, centre)
            warnings.append(lost)
        return Shots(
            samples=np.ascontiguousarray(samples, dtype=np.complex64),
            k=k,
            slices=slices,
            encoding=self.encoding.with_coils(int(self._alive.sum())),
            contrast=contrast,
            repetition=repetition,
            whitened=self.has_noise and not why,
            input_hash=self._taken.hexdigest(),
            acquired_utc_s=frame.utc_s,
            warnings=tuple(text for text in warnings if text),
            left_out=self.left_out,
        )

    def positions(self, acquisition: Acquisition, use: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """k (lines, readout, 2) of the lines to use, in cycles per kept field of view; 3 of spokes in all directions.

        Raises as :meth:`add`.
        """
        source = self._source
        if not use.any():
            return np.zeros((0, acquisition.samples.shape[2], 2), np.float32)
        if acquisition.trajectory is not None:
            k = acquisition.trajectory[use]
            if not np.isfinite(k).all():
                raise ReconstructionError(f"the trajectory of scan '{source.scan_id}' has NaN or infinite positions")
            if source.is_3d and k.shape[-1] == 3 and self._is_koosh(k, acquisition.kz[use]):
                return np.asarray(k * self._scale, dtype=np.float32)
            return np.asarray(k[..., :2] * self._scale[:2], dtype=np.float32)
        if source.trajectory != "radial" or source.metadata.get(RADIAL_ORDER) != GOLDEN:
            raise ReconstructionError(
                f"the readouts of the {source.trajectory} scan '{source.scan_id}' carry no trajectory, and its header "
                "does not name a golden-angle order: write the trajectory with the readouts"
            )
        readout, width = acquisition.samples.shape[2], source.encoded_matrix[2]
        k = radial(acquisition.ky[use] * GOLDEN_ANGLE_RAD, readout, width)
        # Spokes are round in space, not in cycles per field of view.
        round_ = (1.0, source.encoded_fov_mm[1] / source.encoded_fov_mm[2])
        return np.asarray(k * self._scale[:2] * round_, np.float32)

    def _drop_unsteady(self, energy: npt.NDArray[np.float32], slices: npt.NDArray[np.int32]) -> None:
        """Of coils that lose or gain signal on the way; every readout of a slice or partition shows the same object."""
        for number in np.unique(slices):
            lines = energy[slices == number].astype(np.float64)
            if self._working.sum() > 1 and len(lines) > 1:
                self._working[self._working] = ~changed_parts(lines[:, self._working])

    def _count_words(self, frame: _Frame) -> str:
        came = frame.came
        if frame.kept < came:
            return f"of {came} readouts of a scan without an announced end only the newest {frame.kept} are kept"
        planned = came if self._announced is None else self._announced * self._repeated * self._source.averages
        return "" if came == planned else f"{came} readouts came of {planned} that the header announces"

    @property
    def _repeated(self) -> int:
        """How often each shot comes: in every slice or partition."""
        return 1 if self._koosh else self._source.encoded_matrix[0]

    def _is_koosh(self, k: npt.NDArray[np.float32], partition: npt.NDArray[np.int32]) -> bool:
        """Whether readouts (lines, readout, 3) go in all directions. Raises ReconstructionError for what is no stack
        either, and when the scan has been the other kind so far."""
        source = self._source
        flat = is_flat(k, partition, source)
        found = source.trajectory == "radial" and in_all_directions(k) and not (flat and not self._koosh)
        if not (found or flat) or (self._koosh is not None and found != self._koosh):
            raise ReconstructionError(
                f"the readouts of the {source.trajectory} scan '{source.scan_id}' leave their partition: of 3D scans "
                "stacks, with the same readouts in every partition, and straight spokes through the centre of k-space "
                "in all directions can be reconstructed"
            )
        return found

    def _forget(self, newest: tuple[int, int]) -> None:
        """A scan that runs for hours keeps its newest frames; the oldest go, and their readouts stay counted.

        So do the oldest readouts of slices that are all of one frame, when the header does not say how many there are.
        """
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._frames) > 1:
            frame = self._frames.pop(min((key for key in self._frames if key != newest), key=lambda key: key[1]))
            self._released += frame.came
            self._kept_bytes -= frame.size
        frame = self._frames[newest]
        endless = not self._source.is_3d and self._announced is None
        while endless and frame.size > MAX_KEPT_BYTES and len(frame.blocks) > 1:
            gone = frame.blocks.popleft()
            frame.size -= gone.size
            frame.kept -= len(gone.slices)
            self._kept_bytes -= gone.size

    def _screened(
        self, samples: npt.NDArray[np.complex64], k: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """(samples with broken coils and sparks set to 0, which lines may be used, energy (lines, coils))."""
        central = np.linalg.norm(k, axis=-1) <= CENTRAL
        values, _broken, silent, energy = silent_of(self.cleaned(samples, np.ones(len(k), bool), central))
        lost = np.asarray(silent.all(axis=1))
        if lost.any():
            self._events["readouts left out because they carry only zeros, NaN or infinity"] += int(lost.sum())
        if number := int((~lost & cut_of(values)).sum()):
            self._events[CUT] += number
        self._working &= ~silent[~lost].any(axis=0)
        return values, ~lost, energy


def _with_one_gain(samples: ComplexArray, slices: npt.NDArray[np.int32]) -> str:
    """Undo, in place, steps of the gain in ``samples`` (coils, readouts, samples); what was done, in words."""
    words = ""
    for number in np.unique(slices):
        chosen = np.flatnonzero(slices == number)
        power = np.square(np.abs(samples[:, chosen])).sum(axis=0).max(axis=-1)
        if step := gain_step(power.astype(np.float64)):
            samples[:, chosen[step[0] :]] /= np.float32(np.sqrt(step[1]))
            words = f"the gain of all coils changed by {10 * np.log10(step[1]):.1f} dB after {step[0]} readouts: undone"
    return words
