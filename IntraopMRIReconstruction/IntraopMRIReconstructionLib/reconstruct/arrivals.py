"""What every scan needs as its lines arrive, whatever its way through k-space: whose lines, which coils, what noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..data import ASSUMED, READ_AS, Acquisition, Encoding, LineFlag, assumed_geometry
from ..errors import ReconstructionError
from ..operators.sampling import PARTIAL_SHARE
from .grid import full_matrix
from .interference import spikes
from .noise import NoiseSums, whitening_matrix
from .scan_input import ScanInput

#: Refuse to allocate a frame beyond this: a header with a wrong matrix must not take the computer down.
MAX_FRAME_BYTES = 8 * 2**30
#: A coil whose line has less energy than this share of the others' is disconnected: receiver noise alone is stronger.
DEAD_ENERGY_SHARE = 1e-10
#: Samples of a readout that are compared to see whether a receiver stands still.
STUCK_SAMPLES = 8
#: A line with less than this carries nothing: its square is at the end of single precision.
LEAST_ENERGY = 1e-30
#: What the count of a line's averages can hold.
MAX_AVERAGES = int(np.iinfo(np.uint8).max)
#: What is said of readouts that :func:`cut_of` finds.
CUT = "readouts begin or end in zeros, discarded or lost: blurred"
#: What is said of samples that :func:`.interference.spikes` finds.
SPIKES = "samples were sparks from outside the patient, far stronger than those around them, and count as zero"
#: Cycles per field of view from the centre of k-space within which no sample is taken for a spark.
CENTRAL = 3
#: More coils lost than this share of the array, and the image is no longer the one that was planned.
MAX_DEAD_SHARE = 0.5


class Arrivals:
    """Base of the collectors. They keep their own frames by (contrast, repetition) in ``_frames``."""

    encoding: Encoding
    _frames: Mapping[tuple[int, int], object]

    def __init__(self, encoding: Encoding, taken: ScanInput | None = None) -> None:
        """``taken``: what has come, when somebody else keeps it.

        Raises ReconstructionError, before a line has come, for matrices and fields of view without an image.
        """
        full_matrix(encoding)
        self._source = encoding
        self.complete = False
        #: Coils that have never failed, and those that lose or gain signal in the frame that was looked at last.
        self._working = np.ones(encoding.coils, dtype=bool)
        self._unsteady = np.zeros(encoding.coils, dtype=bool)
        self._noise = NoiseSums(encoding.coils)
        self._taken, self._keeps = taken or ScanInput(encoding), taken is None
        self._events: Counter[str] = Counter()
        #: Of the line that came last, see :func:`stuck_of`.
        self._before: npt.NDArray[np.complex64] | None = None
        self._released = 0
        #: (contrast, repetition) of every frame that has begun, released ones as well.
        self._begun: set[tuple[int, int]] = set()
        self._known: tuple[int, bytes] | None = None
        self._mixed: tuple[npt.NDArray[np.complex64] | None, str] = (None, "")

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs that have begun, sorted."""
        return tuple(sorted(self._frames))

    @property
    def _alive(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self._working & ~self._unsteady)

    @property
    def dead_coils(self) -> tuple[int, ...]:
        """Indices of coils that delivered nothing or broken numbers at least once."""
        return tuple(int(coil) for coil in np.flatnonzero(~self._alive))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the data so far, in words."""
        found = [f"{number} {what}" for what, number in self._events.items()]
        if assumed := assumed_geometry(self._source.metadata):
            found.append(f"where the image lies is {assumed}")
        if (read_as := self._source.metadata.get(READ_AS, "")).startswith(ASSUMED):
            found.append(f"how the scan is read is {read_as}")
        if missing := self._source.metadata.get("slices_missing"):
            found.append(f"{missing} slices that the header announces did not come")
        announced = self._source.contrasts * self._source.repetitions
        if self.complete and len(self._begun) < announced:
            found.append(f"of {announced} frames that the header announces {len(self._begun)} came")
        if self.dead_coils:
            found.append(f"coils dropped because they failed during the scan: {', '.join(map(str, self.dead_coils))}")
        return tuple(found)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Readouts that are in no image, with their number and why."""
        unused = {what: number for what, number in self._events.items() if what not in (CUT, SPIKES)}
        return tuple(f"{number} {what}" for what, number in {**self._taken.left_out, **unused}.items())

    @property
    def has_noise(self) -> bool:
        """Whether noise lines have come."""
        return self._noise.number > 0

    def mixing(self) -> tuple[npt.NDArray[np.complex64] | None, str]:
        """(matrix (live, coils) that drops dead coils and whitens, or None for neither; why it cannot whiten).

        It may change with every block: noise lines are added up, and coils die.
        """
        known = self._noise.number, self._alive.tobytes()
        if self._known != known:
            self._known, self._mixed = known, self._new_mixing()
        return self._mixed

    def _new_mixing(self) -> tuple[npt.NDArray[np.complex64] | None, str]:
        live = np.flatnonzero(self._alive)
        why = ""
        matrix = np.eye(len(self._alive), dtype=np.complex64)[live]
        if self.has_noise:
            try:
                matrix[:, live] = whitening_matrix(self._noise.covariance(live))
                return matrix, ""
            except ReconstructionError as error:
                why = f"the noise lines are not used: {error}"
        return (None if self._alive.all() else matrix), why

    def _check_scan(self, acquisition: Acquisition) -> None:
        """Raises ReconstructionError for the data of another scan."""
        if acquisition.scan_id != self._source.scan_id:
            raise ReconstructionError(
                f"lines of scan '{acquisition.scan_id}' came to scan '{self._source.scan_id}': send its header first"
            )

    def _reach(self, acquisition: Acquisition) -> None:
        """Let counters whose end the header does not name grow."""
        contrasts, repetitions = acquisition.contrast + 1, acquisition.repetition + 1
        averages = min(acquisition.average + 1, MAX_AVERAGES)
        self._source = self._source.reaching(contrasts, repetitions, averages)
        self.encoding = self.encoding.reaching(contrasts, repetitions, averages)

    def _check_coils(self, acquisition: Acquisition) -> None:
        """Raises ReconstructionError for another number of coils than the header's."""
        if acquisition.samples.shape[1] != self._source.coils:
            raise ReconstructionError(
                f"a readout has {acquisition.samples.shape[1]} coils, the header says {self._source.coils}"
            )

    def _record(self, acquisition: Acquisition, flags: npt.NDArray[np.uint32], noise: npt.NDArray[np.bool_]) -> None:
        """What has come, noise lines aside, and whether the scan has ended."""
        if self._keeps:
            self._taken.add(acquisition)
        if noise.any():
            self._noise.add(np.moveaxis(acquisition.samples[noise], 1, 0).reshape(self._source.coils, -1))
        self.complete |= acquisition.last or bool((flags & LineFlag.LAST_IN_SCAN).any())

    def cleaned(
        self, samples: npt.NDArray[np.complex64], use: npt.NDArray[np.bool_], central: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.complex64]:
        """``samples`` (lines, coils, readout) with what no patient sent set to 0: coils whose receiver stands still,
        and the sparks of the lines to ``use``, which are counted.

        ``central`` as for :func:`.interference.spikes`.
        """
        stuck, self._before = stuck_of(samples, self._before)
        if stuck.any():
            samples = np.where(stuck[:, :, None], np.complex64(0), samples)
        found = spikes(samples, central) & use[:, None]
        if found.any():
            self._events[SPIKES] += int(found.sum())
            samples = np.where(found[:, None], np.complex64(0), samples)
        return samples

    def _check_alive(self) -> None:
        """Raises ReconstructionError when more than half of the coils failed."""
        dead = len(self.dead_coils)
        if dead > MAX_DEAD_SHARE * len(self._alive):
            raise ReconstructionError(
                f"{dead} of {len(self._alive)} coils failed during the scan (NaN or no signal): check the coil "
                "connection and scan again"
            )


def flags_of(acquisition: Acquisition) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(flags, which lines are noise, which are to be used) of a block: (lines,) each."""
    flags = np.zeros(len(acquisition.ky), np.uint32) if acquisition.flags is None else acquisition.flags
    noise = flags & LineFlag.NOISE > 0
    return flags, noise, ~noise & (flags & LineFlag.NAVIGATOR == 0)


def stuck_of(
    samples: npt.NDArray[np.complex64], before: npt.NDArray[np.complex64] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.complex64]]:
    """(which coils (lines, coils) of ``samples`` (lines, coils, readout) give the same number all along a readout, or
    the same readout again, while others do not; what to compare the next block with).

    Noise is never the same twice: such a receiver stands still. A line that comes twice is the same in all coils.
    """
    some = samples[:, :, :: max(1, samples.shape[2] // STUCK_SAMPLES)]
    if before is None or before.shape != some.shape[1:]:
        before = np.full(some.shape[1:], np.nan, np.complex64)
    if samples.shape[2] < STUCK_SAMPLES or not len(some):
        return np.zeros(some.shape[:2], dtype=bool), before
    same = (some == some[:, :, :1]).all(axis=2) | (some == np.concatenate([before[None], some[:-1]])).all(axis=2)
    nothing: npt.NDArray[np.bool_] = ~np.asarray(some.any(axis=2))
    stuck: npt.NDArray[np.bool_] = np.asarray(same & ~nothing)
    return np.asarray(stuck & ~(stuck | nothing).all(axis=1, keepdims=True)), some[-1].copy()


def silent_of(
    samples: npt.NDArray[np.complex64],
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """(samples with broken coils set to 0; broken, silent, and energy, (lines, coils) each): broken ones are silent."""
    values = np.ascontiguousarray(samples, dtype=np.complex64)
    parts = values.view(np.float32)
    energy = np.einsum("lcx,lcx->lc", parts, parts)
    broken = ~np.isfinite(energy)
    if broken.any():
        energy = np.where(broken, np.float32(0), energy)
        values = np.where(broken[:, :, None], np.complex64(0), values)
    silent = energy <= np.maximum(DEAD_ENERGY_SHARE * energy.max(axis=1, keepdims=True), LEAST_ENERGY)
    return values, broken, silent, energy


def cut_of(values: npt.NDArray[np.complex64]) -> npt.NDArray[np.bool_]:
    """Which lines (lines,) of ``values`` (lines, coils, readout) lack samples: zeros in all coils, more than a few, at
    their beginning or end, whether discarded or lost."""
    ends: npt.NDArray[np.bool_] = np.asarray(values[:, :, [0, -1]].any(axis=1))
    cut: npt.NDArray[np.bool_] = ~np.asarray(ends.all(axis=1))
    if cut.any():
        silent: npt.NDArray[np.bool_] = np.asarray(values[cut] == 0)
        zeros = np.asarray(silent.all(axis=1)).sum(axis=1)
        cut[cut] = zeros > PARTIAL_SHARE * values.shape[2]
    return cut
