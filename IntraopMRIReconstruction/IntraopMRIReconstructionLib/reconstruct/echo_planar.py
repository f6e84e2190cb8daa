"""Echo-planar scans as they arrive: lines turned round and brought from the gradient's ramps onto the grid, then freed
from the ghost and reconstructed as Cartesian k-space. The numerics are in :mod:`.epi`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..data import Acquisition, Encoding, KSpace, LineFlag
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace, kspace_from_image, resized
from ..operators.sampling import describe
from .arrivals import CENTRAL
from .assemble import Assembler
from .consistency import misfits
from .epi import Ghost, Trapezoid, ghost_from_entropy, ghost_from_navigators, regridding, without_ghost
from .methods import Ghost as GhostChoice
from .result import Parameter, Step
from .scan_input import ScanInput

#: Entries of the encoding's metadata that describe the readout gradient of an EPI scan, seconds.
RAMP_S, FLAT_S, DELAY_S = "epi_ramp_s", "epi_flat_s", "epi_delay_s"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class EpiFrame:
    """One frame whose backward lines still differ from the forward ones.

    ``kspace``: sorted lines on the grid. ``backward``: (z, y) lines that were read backwards; of its calibration
    lines ``backward_calibration``. ``navigators``: (forward, backward) lines at ky = 0 of a slice, (coils, lines, x).
    """

    kspace: KSpace
    backward: Mask
    backward_calibration: Mask
    navigators: Mapping[int, tuple[ComplexArray, ComplexArray]]

    @property
    def encoding(self) -> Encoding:
        """As it was sent, oversampling removed."""
        return replace(self.kspace.encoding, trajectory="epi")

    @property
    def input_hash(self) -> str:
        """SHA-256 of what arrived."""
        return self.kspace.input_hash

    @property
    def left_out(self) -> tuple[str, ...]:
        """Readouts that are not in it."""
        return self.kspace.left_out

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person must know of it."""
        return self.kspace.warnings

    @property
    def acquired_utc_s(self) -> float | None:
        """When the frame began."""
        return self.kspace.acquired_utc_s

    @property
    def contrast(self) -> int:
        """Counted from 0."""
        return self.kspace.contrast

    @property
    def repetition(self) -> int:
        """Counted from 0."""
        return self.kspace.repetition


@dataclass
class Notes:
    """What was done to the lines, for the provenance."""

    reason: str = ""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Directions:
    image: Mask
    calibration: Mask
    navigators: dict[int, list[tuple[ComplexArray, bool]]] = field(default_factory=dict)


class EpiAssembler:
    """Collects the lines of one EPI scan; used as :class:`.assemble.Assembler` is."""

    def __init__(self, encoding: Encoding) -> None:
        """Raises ReconstructionError for other trajectories and a gradient that cannot be."""
        if encoding.trajectory != "epi":
            raise ReconstructionError(f"the scan '{encoding.scan_id}' is {encoding.trajectory}, not echo-planar")
        z, y, x = encoding.encoded_matrix
        fov = encoding.encoded_fov_mm
        kept = max(2, round(x * min(1.0, encoding.recon_fov_mm[2] / fov[2])))
        cz, cy, _ = encoding.centre_index
        self._encoded = x
        self._gradient = _gradient(encoding)
        self._taken = ScanInput(encoding)
        self._lines = Assembler(
            replace(
                encoding,
                trajectory="cartesian",
                encoded_matrix=(z, y, kept),
                encoded_fov_mm=(fov[0], fov[1], fov[2] * kept / x),
                centre=(cz, cy, kept // 2),
            ),
            self._taken,
        )
        self.encoding = replace(self._lines.encoding, trajectory="epi")
        self._shift_y = y // 2 - cy
        self._shift_z = z // 2 - cz if encoding.is_3d else 0
        self._directions: dict[tuple[int, int], _Directions] = {}
        self._matrices: dict[int, tuple[ComplexArray, ComplexArray]] = {}

    @property
    def complete(self) -> bool:
        """Whether the last line has come."""
        return self._lines.complete

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """The (contrast, repetition) pairs that have begun, sorted."""
        return self._lines.frames

    @property
    def fraction_acquired(self) -> float:
        """Share 0..1 of the planned lines that are in."""
        return self._lines.fraction_acquired

    @property
    def dead_coils(self) -> tuple[int, ...]:
        """Indices of coils that delivered nothing or broken numbers at least once."""
        return self._lines.dead_coils

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the data so far, in words."""
        return self._lines.warnings

    @property
    def left_out(self) -> tuple[str, ...]:
        """Readouts that are in no image, with their number and why."""
        return self._lines.left_out

    def add(self, acquisition: Acquisition) -> None:
        """Take in a block of lines. Raises ReconstructionError as the Cartesian assembler does, and for readouts whose
        length fits neither the matrix nor the readout gradient in the header."""
        self._sort_in(acquisition)
        self._taken.add(acquisition)

    def _sort_in(self, acquisition: Acquisition) -> None:
        flags = np.zeros(len(acquisition.ky), np.uint32) if acquisition.flags is None else acquisition.flags
        noise = flags & LineFlag.NOISE > 0
        if noise.any() or not len(flags):
            self._lines.add(_part(acquisition, flags, noise))
            if not noise.all():
                self._sort_in(_part(acquisition, flags, ~noise))
            return
        backward = flags & LineFlag.REVERSED > 0
        # Before the readouts are made even: that would spread a spark.
        length, kept = acquisition.samples.shape[2], self._lines.encoding.encoded_matrix[2]
        middle = np.abs(np.arange(length) - (length - 1) / 2) <= CENTRAL * length / kept
        clean = self._lines.cleaned(acquisition.samples, np.ones(len(flags), bool), middle)
        samples = self._on_grid(clean, backward)
        navigator = flags & LineFlag.NAVIGATOR > 0
        # The assembler would turn round what already is.
        plain = (flags & ~np.uint32(LineFlag.REVERSED)).astype(np.uint32)
        sorted_in = replace(acquisition, samples=samples, flags=plain)
        if navigator.any():
            # Some scanners number navigators as averages of their own; the assembler leaves them alone.
            self._lines.add(replace(_part(sorted_in, plain, navigator), average=0))
        if not navigator.all():
            self._lines.add(_part(sorted_in, plain, ~navigator))
        reached = self._lines.encoding
        self.encoding = self.encoding.reaching(reached.contrasts, reached.repetitions, reached.averages)
        size = self.encoding.encoded_matrix[:2]
        found = self._directions.setdefault(
            (acquisition.contrast, acquisition.repetition), _Directions(np.zeros(size, bool), np.zeros(size, bool))
        )
        for line in np.flatnonzero(navigator):
            if np.isfinite(samples[line]).all():
                found.navigators.setdefault(int(acquisition.kz[line]) + self._shift_z, []).append(
                    (samples[line], bool(backward[line]))
                )
        z, y = acquisition.kz + self._shift_z, acquisition.ky + self._shift_y
        image = ~navigator & ((flags & LineFlag.CALIBRATION == 0) | (flags & LineFlag.CALIBRATION_AND_IMAGE > 0))
        calibrates = ~navigator & (flags & (LineFlag.CALIBRATION | LineFlag.CALIBRATION_AND_IMAGE) > 0)
        found.image[z[image], y[image]] = backward[image]
        found.calibration[z[calibrates], y[calibrates]] = backward[calibrates]

    def lines(self, contrast: int, repetition: int) -> int:
        """Lines of a frame that has begun."""
        return self._lines.lines(contrast, repetition)

    def is_whole(self, contrast: int, repetition: int) -> bool:
        """Whether every line that the header announces for a frame that has begun is in."""
        return self._lines.is_whole(contrast, repetition)

    def release(self, contrast: int, repetition: int) -> None:
        """Forget a frame that nobody will ask for again; its lines stay counted."""
        self._lines.release(contrast, repetition)
        self._directions.pop((contrast, repetition), None)

    def kspace(self, contrast: int = 0, repetition: int = 0) -> EpiFrame:
        """One frame. Raises ReconstructionError as the Cartesian assembler does."""
        kspace = self._lines.kspace(contrast, repetition)
        found = self._directions[contrast, repetition]
        navigators = {}
        for z, lines in found.navigators.items():
            pair = [[line for line, reverse in lines if reverse is way] for way in (False, True)]
            if all(pair):
                navigators[z] = (np.stack(pair[0], axis=1), np.stack(pair[1], axis=1))
        return EpiFrame(kspace, found.image.copy(), found.calibration.copy(), navigators)

    def _on_grid(self, samples: npt.NDArray[np.complex64], backward: Mask) -> npt.NDArray[np.complex64]:
        """Lines (n, coils, readout) in forward order, on the grid, oversampling removed."""
        readout, kept = samples.shape[2], self.encoding.encoded_matrix[2]
        turned = np.where(backward[:, None, None], samples[..., ::-1], samples)
        with np.errstate(invalid="ignore", over="ignore"):
            if self._gradient is not None:
                forth, back = self._regridding(readout)
                result = np.where(backward[:, None, None], turned @ back.T, turned @ forth.T)
                return np.ascontiguousarray(result, dtype=np.complex64)
            if readout != self._encoded:
                raise ReconstructionError(
                    f"an EPI readout has {readout} samples, the encoded matrix {self._encoded}, and the header does "
                    "not describe a readout gradient with ramps: write rampUpTime, flatTopTime and dwellTime into it"
                )
            if kept == readout:
                return np.ascontiguousarray(turned)
            inner = resized(image_from_kspace(turned, (-1,)), (*turned.shape[:2], kept))
            return kspace_from_image(inner, (-1,))

    def _regridding(self, readout: int) -> tuple[ComplexArray, ComplexArray]:
        """Matrices (kept, readout) for forward and for turned backward lines."""
        if readout not in self._matrices:
            assert self._gradient is not None
            positions = replace(self._gradient, samples=readout).positions(self._encoded)
            kept = self.encoding.encoded_matrix[2]
            scaled = positions * (kept / self._encoded)
            self._matrices[readout] = regridding(scaled, kept), regridding(-scaled[::-1], kept)
        return self._matrices[readout]


def _part(acquisition: Acquisition, flags: npt.NDArray[np.uint32], chosen: Mask) -> Acquisition:
    """Some lines of a block; the end of the scan goes with each."""
    return replace(
        acquisition,
        samples=acquisition.samples[chosen],
        ky=acquisition.ky[chosen],
        kz=acquisition.kz[chosen],
        flags=flags[chosen],
        trajectory=None,
    )


def deghosted(frame: EpiFrame, ghost: GhostChoice, step: Step) -> tuple[KSpace, Notes]:
    """The frame as Cartesian k-space whose backward lines agree with the forward ones, and what was done.

    ``ghost`` "auto" takes navigators where they came, else the sharpest image. Raises ReconstructionError where
    navigators are asked for and missing, and where the sharpest image cannot be found since lines are missing.
    """
    kspace, notes = frame.kspace, Notes()
    acquired = kspace.acquired > 0
    if ghost == "none" or not (frame.backward & acquired).any():
        done = "left in by choice" if ghost == "none" else "no line was read backwards"
        notes.reason, notes.parameters["ghost"] = f"ghost: {done}", "none"
        if ghost == "none":
            notes.warnings.append("the ghost of backward lines is not corrected")
        return kspace, notes
    if ghost == "navigators" and not frame.navigators:
        raise ReconstructionError(
            "the EPI scan has no navigators of both directions: choose the entropy search, or scan with navigators"
        )
    by_navigators = ghost != "entropy" and bool(frame.navigators)
    if not by_navigators:
        _check_for_entropy(kspace)
    samples = kspace.samples.copy()
    calibration = None if kspace.calibration is None else kspace.calibration.copy()
    found: list[Ghost] = []
    for z in np.flatnonzero(acquired.any(axis=1)):
        step(0.0, f"ghost, slice {z + 1} of {len(acquired)}")
        backward = frame.backward[z] & acquired[z]
        both = backward.any() and not (backward | ~acquired[z]).all()
        if by_navigators:
            one = ghost_from_navigators(*_navigators(frame, int(z)))
        elif both:
            one = ghost_from_entropy(samples[:, z], backward)
        else:
            continue
        found.append(one)
        if both:
            samples[:, z] = without_ghost(samples[:, z], backward, one)
        calibrating = frame.backward_calibration[z]
        if calibration is not None and calibrating.any() and not calibrating.all():
            calibration[:, z] = without_ghost(calibration[:, z], calibrating, one)
    notes.reason = f"ghost removed by {found[0].how if found else 'nothing'}"
    notes.parameters["ghost"] = "navigators" if by_navigators else "entropy"
    if found:
        notes.parameters["ghost_offset_rad"] = " ".join(f"{one.offset_rad:.3f}" for one in found)
        notes.parameters["ghost_slope_rad"] = " ".join(f"{one.slope_rad:.3f}" for one in found)
    if not all(one.sure for one in found):
        notes.warnings.append(f"the ghost is not sure: {next(one.how for one in found if not one.sure)}")
    elif misfit := misfits(samples, acquired, kspace.encoding.is_3d).words:
        notes.warnings.append(f"{misfit} without their ghost: expect others")
    return replace(kspace, samples=samples, calibration=calibration), notes


def _navigators(frame: EpiFrame, z: int) -> tuple[ComplexArray, ComplexArray]:
    """Those of the slice, or of the nearest one that has some."""
    return frame.navigators[min(frame.navigators, key=lambda other: abs(other - z))]


def _check_for_entropy(kspace: KSpace) -> None:
    sampling = describe(kspace.acquired, kspace.encoding.is_3d)
    if kspace.encoding.is_3d or sampling.acceleration != (1, 1):
        raise ReconstructionError(
            "the EPI scan has no navigators, and the entropy search works on 2D slices without acceleration only: scan "
            "with navigators, or choose ghost 'none' and see it"
        )


def _gradient(encoding: Encoding) -> Trapezoid | None:
    """The readout gradient that the header describes, None when samples are even."""
    texts = [encoding.metadata.get(name) for name in (RAMP_S, FLAT_S, DELAY_S)]
    if texts[0] is None and texts[1] is None:
        return None
    try:
        ramp, flat, delay = (float(text or 0.0) for text in texts)
    except ValueError as error:
        raise ReconstructionError(f"the readout gradient of EPI must be numbers in seconds, got {texts}") from error
    if not encoding.dwell_time_s:
        raise ReconstructionError("the header describes ramps of an EPI readout but no dwell time: add dwellTime")
    return None if ramp == 0 else Trapezoid(ramp, flat, encoding.dwell_time_s, 2, delay)
