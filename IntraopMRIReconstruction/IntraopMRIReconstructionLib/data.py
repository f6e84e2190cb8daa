"""Frozen types that travel between the rooms.

One frame inside: RAS, millimetres, seconds, arrays indexed k, j, i (slowest first). A name such as
``ras_from_ijk`` says which frame a matrix leads to and from. Constructors refuse what no stage may work on.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntFlag
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import DataError

FloatArray = npt.NDArray[np.floating[Any]]
AnyArray = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

#: Called with (fraction 0..1, what is being done). Returns False to stop the work.
Progress = Callable[[float, str], bool]

#: Rotation columns may be off by this much (float32 matrices from the wire keep about 1e-6).
ORTHONORMAL_TOLERANCE = 1e-3

#: A pose older than this is not shown as a position: by then a hand at 100 mm/s is 20 mm further than the picture
#: shows. Ibis takes the same; the 1.0 s of SlicerIGT is a long way for a hand.
POSE_STALE_S = 0.2
#: A sender's clock that was set back is believed again when its time stamps have advanced for so long.
CLOCK_BELIEVED_AFTER_S = 2.0


#: Labels of a resection cavity: fluid or air; clot or packing, as bright as tissue, whose border is not seen.
FLUID, FILLED = 1, 2

#: Entries of the metadata of a scan and of its images: where it lies and how its counters were read, in words, and what
#: a person has chosen of it. A text that begins with ``ASSUMED`` is in no header.
GEOMETRY, READ_AS, READ_ONLY, ASSUMED = "geometry", "read_as", "read_only", "assumed"
#: Entry of a scan's metadata: counters (contrast, repetition, average) whose end no header names, separated by commas.
#: They grow with what comes.
OPEN_COUNTERS = "open_counters"
#: Entry of a scan's metadata: how many lines are read after each excitation, "" when the header does not say.
ECHO_TRAIN = "echo_train"


def assumed_geometry(metadata: Mapping[str, str]) -> str:
    """What was assumed of where a scan or its image lies in the patient, "" when nothing was."""
    said = metadata.get(GEOMETRY, "")
    return said if said.startswith(ASSUMED) else ""


def no_progress(_fraction: float, _what: str) -> bool:
    """Go on, tell nobody."""
    return True


def _new_uid() -> str:
    return os.urandom(16).hex()


def _frozen_mapping(mapping: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(mapping))


def checked_affine(matrix: npt.ArrayLike, name: str) -> Matrix:
    """Return ``matrix`` as a read-only (4, 4) float64 affine.

    Raises DataError when the shape, the last row or a value is wrong, or the 3 x 3 part is singular.
    """
    result: Matrix = np.array(matrix, dtype=np.float64)
    if result.shape != (4, 4):
        raise DataError(f"{name} must have shape (4, 4), got {result.shape}")
    # In plain numbers: numpy takes ten times as long for so few, and every pose and every live frame comes here.
    rows: list[list[float]] = result.tolist()
    if not all(map(math.isfinite, itertools.chain.from_iterable(rows))):
        raise DataError(f"{name} must be finite, got {rows}")
    if rows[3] != [0.0, 0.0, 0.0, 1.0]:
        raise DataError(f"{name} must end in the row 0 0 0 1, got {rows[3]}")
    if abs(_determinant(rows)) < 1e-12:
        raise DataError(f"{name} must be invertible, its 3 x 3 part is singular: {result[:3, :3].tolist()}")
    result.setflags(write=False)
    return result


def _determinant(rows: list[list[float]]) -> float:
    """Of the 3 x 3 part."""
    (a, b, c, _), (d, e, f, _), (g, h, i, _), _ = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def checked_rigid(matrix: npt.ArrayLike, name: str) -> Matrix:
    """Return ``matrix`` as a read-only (4, 4) rigid transform: rotation with determinant +1 and translation (mm)."""
    result = checked_affine(matrix, name)
    rotation = result[:3, :3]
    deviation = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if deviation > ORTHONORMAL_TOLERANCE:
        raise DataError(f"{name} must be rigid, its columns deviate from orthonormal by {deviation:.3g}")
    if np.linalg.det(rotation) < 0:
        raise DataError(f"{name} must not mirror, its determinant is negative")
    return result


@dataclass(frozen=True, eq=False)
class Image:
    """A volume in RAS.

    ``array``: shape (k, j, i) or (k, j, i, components), any real dtype.
    ``ras_from_ijk``: (4, 4), mm; maps the index (i, j, k) of a voxel centre to RAS.
    ``acquired_utc_s``: when the picture was taken (POSIX seconds), None when unknown.
    ``uid``: changes with every new content; registrations are tied to it.
    """

    array: AnyArray
    ras_from_ijk: Matrix
    name: str = ""
    acquired_utc_s: float | None = None
    patient_id: str = ""
    uid: str = field(default_factory=_new_uid)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4) or 0 in self.array.shape:
            raise DataError(f"image array must have shape (k, j, i) or (k, j, i, components), got {self.array.shape}")
        object.__setattr__(self, "ras_from_ijk", checked_affine(self.ras_from_ijk, "ras_from_ijk"))
        object.__setattr__(self, "metadata", _frozen_mapping(self.metadata))

    @property
    def spacing_mm(self) -> npt.NDArray[np.float64]:
        """Voxel size along i, j, k in mm, shape (3,)."""
        return np.asarray(np.linalg.norm(self.ras_from_ijk[:3, :3], axis=0))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres (cm3)."""
        return float(abs(np.linalg.det(self.ras_from_ijk[:3, :3]))) / 1000.0

    def with_array(self, array: AnyArray, name: str | None = None) -> Image:
        """Same grid and origin of data, new content and a new uid. ``array`` keeps the grid (k, j, i)."""
        if array.shape[:3] != self.array.shape[:3]:
            raise DataError(f"array must keep the grid {self.array.shape[:3]}, got {array.shape[:3]}")
        return replace(self, array=array, name=self.name if name is None else name, uid=_new_uid())


@dataclass(frozen=True, eq=False)
class Pose:
    """A tracked tool at one moment. ``ras_from_tool``: (4, 4) rigid, mm; the tool's tip is its origin, +z its shaft.

    ``valid`` False means that the tracker says it does not see the tool: such a pose is never shown as a position.
    ``sent_utc_s``: when it was sent, None when that is not known. ``stamp_s``: what the sender has stamped it with, by
    a clock that may be wrong by years; only that it advances means something.
    """

    ras_from_tool: Matrix
    tool: str
    received_monotonic_s: float
    received_utc_s: float
    sent_utc_s: float | None = None
    valid: bool = True
    stamp_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ras_from_tool", checked_rigid(self.ras_from_tool, f"pose of tool '{self.tool}'"))

    @property
    def tip_ras_mm(self) -> npt.NDArray[np.float64]:
        """Tip of the tool, shape (3,), RAS, mm."""
        return np.asarray(self.ras_from_tool[:3, 3])

    @property
    def progress_s(self) -> float | None:
        """What advances from one pose to the next of a sender that is alive; None when it stamps nothing."""
        return self.sent_utc_s if self.stamp_s is None else self.stamp_s

    def age_s(self, now_monotonic_s: float | None = None) -> float:
        """Seconds since the pose was received, by the monotonic clock."""
        return (time.monotonic() if now_monotonic_s is None else now_monotonic_s) - self.received_monotonic_s


class Heartbeat:
    """When a source of poses last gave a sign of life: only an advancing time stamp is one.

    A stamp that stands still, goes back or jumps to and fro is none. A clock that was set back is believed again when
    its stamps have advanced for ``CLOCK_BELIEVED_AFTER_S``. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._alive_s = float("-inf")
        self._newest: float | None = None
        self._run: tuple[float, float] | None = None

    def note(self, stamp: float | None, received_monotonic_s: float) -> float:
        """Take in a pose; returns when (monotonic seconds) the source was last alive.

        ``stamp``: in any unit; None when the sender sets none, then every pose is a sign of life.
        """
        if stamp is None or self._newest is None or stamp > self._newest:
            return self._alive(stamp, received_monotonic_s)
        if self._run is None or stamp <= self._run[0]:
            self._run = stamp, received_monotonic_s
        else:
            self._run = stamp, self._run[1]
            if received_monotonic_s - self._run[1] >= CLOCK_BELIEVED_AFTER_S:
                return self._alive(stamp, received_monotonic_s)
        return self._alive_s

    def _alive(self, stamp: float | None, received_monotonic_s: float) -> float:
        self._newest = self._newest if stamp is None else stamp
        self._run, self._alive_s = None, received_monotonic_s
        return received_monotonic_s


@dataclass(frozen=True)
class Status:
    """What a device says of itself. ``code``: OpenIGTLink STATUS code, 1 is OK."""

    device: str
    code: int
    text: str = ""
    subcode: int = 0
    error_name: str = ""

    @property
    def ok(self) -> bool:
        """Whether the device reports no error."""
        return self.code == 1


class LineFlag(IntFlag):
    """What a readout is for. A plain image line has no flag."""

    NONE = 0
    NOISE = 1
    CALIBRATION = 2
    CALIBRATION_AND_IMAGE = 4
    REVERSED = 8
    NAVIGATOR = 16
    LAST_IN_SCAN = 32


Trajectory = Literal["cartesian", "radial", "spiral", "epi"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """How a scan is encoded and where its image lies. Tuples are (z, y, x) = (partition or slice, phase, readout).

    ``ras_from_ijk`` (4, 4, mm) belongs to the recon matrix, voxel centres.
    ``is_3d``: z is Fourier encoded; otherwise z counts slices.
    ``centre``: index of the k-space centre line along (z, y, x); default N // 2.
    ``calibration_lines``: fully sampled centre lines (z, y), 0 when none.
    """

    scan_id: str
    trajectory: Trajectory
    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float]
    recon_fov_mm: tuple[float, float, float]
    coils: int
    ras_from_ijk: Matrix
    is_3d: bool = True
    acceleration: tuple[int, int] = (1, 1)
    calibration_lines: tuple[int, int] = (0, 0)
    centre: tuple[int, int, int] | None = None
    contrasts: int = 1
    repetitions: int = 1
    averages: int = 1
    protocol: str = ""
    patient_id: str = ""
    field_t: float | None = None
    echo_times_s: tuple[float, ...] = ()
    dwell_time_s: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("encoded_matrix", "recon_matrix"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise DataError(f"{name} must be three positive numbers (z, y, x), got {value}")
        for name in ("encoded_fov_mm", "recon_fov_mm"):
            value = getattr(self, name)
            if len(value) != 3 or not all(np.isfinite(value)) or min(value) <= 0:
                raise DataError(f"{name} must be three positive lengths (z, y, x) in mm, got {value}")
        if self.coils < 1:
            raise DataError(f"coils must be at least 1, got {self.coils}")
        if min(self.acceleration) < 1:
            raise DataError(f"acceleration must be at least 1, got {self.acceleration}")
        object.__setattr__(self, "ras_from_ijk", checked_affine(self.ras_from_ijk, "ras_from_ijk"))
        object.__setattr__(self, "metadata", _frozen_mapping(self.metadata))

    @property
    def centre_index(self) -> tuple[int, int, int]:
        """Index (z, y, x) of the centre of k-space in the encoded matrix."""
        if self.centre is not None:
            return self.centre
        z, y, x = self.encoded_matrix
        return z // 2, y // 2, x // 2

    def reaching(self, contrasts: int, repetitions: int, averages: int) -> Encoding:
        """The same scan with at least so many of what its header left open (:data:`OPEN_COUNTERS`); this very object
        when nothing grows."""
        grown = {
            name: count
            for name, counter, count in (
                ("contrasts", "contrast", contrasts),
                ("repetitions", "repetition", repetitions),
                ("averages", "average", averages),
            )
            if count > getattr(self, name) and counter in self.metadata.get(OPEN_COUNTERS, "").split(",")
        }
        return replace(self, **grown) if grown else self  # type: ignore[arg-type]

    def with_coils(self, coils: int) -> Encoding:
        """The same scan with so many coils: this very object when it has them, since facts are kept by object."""
        return self if coils == self.coils else replace(self, coils=coils)


@dataclass(frozen=True, eq=False)
class Acquisition:
    """A block of readouts of one scan as it came from the wire.

    ``samples``: (lines, coils, readout) complex64. ``ky``, ``kz``: (lines,) integer line indices in the encoded
    matrix (for 2D scans ``kz`` is the slice). ``flags``: (lines,) of LineFlag values.
    ``trajectory``: (lines, readout, 2 or 3) in cycles per encoded field of view, None for Cartesian data.
    ``left_out``: how many readouts that came before it belong to no image of this scan, by what they are.
    """

    scan_id: str
    samples: npt.NDArray[np.complex64]
    ky: npt.NDArray[np.int32]
    kz: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint32] | None = None
    contrast: int = 0
    repetition: int = 0
    average: int = 0
    trajectory: npt.NDArray[np.float32] | None = None
    received_monotonic_s: float | None = None
    received_utc_s: float | None = None
    last: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples.ndim != 3:
            raise DataError(f"samples must have shape (lines, coils, readout), got {self.samples.shape}")
        lines = self.samples.shape[0]
        for name in ("ky", "kz", "flags"):
            value = getattr(self, name)
            if value is not None and value.shape != (lines,):
                raise DataError(f"{name} must have shape ({lines},), one a line, got {value.shape}")


@dataclass(frozen=True, eq=False)
class KSpace:
    """Cartesian k-space of one frame (one contrast of one repetition), sorted.

    ``samples``: (coils, z, y, x) complex64, the centre of k-space at index N // 2 of every Fourier-encoded axis
    (z is one, when ``encoding.is_3d``, else the slice); lines that were not acquired are 0. May share memory with
    the assembler that made it: valid until the assembler's next ``add``.
    ``encoding``: matches ``samples`` (readout oversampling removed, ``coils`` the live ones, centre None).
    ``acquired``: (z, y) uint8, how many averages of each line are in ``samples``, 0 where none.
    ``readout``: first and last + 1 sample of a readout that was acquired (asymmetric echoes have fewer than x).
    ``calibration``: (coils, z, y, x) complex64 calibration-only lines on the same grid, None when there are none.
    ``whitened``: noise of unit variance and no correlation between coils.
    ``left_out``: readouts of the scan that are not in it, with their number and why, in words.
    """

    samples: npt.NDArray[np.complex64]
    acquired: npt.NDArray[np.uint8]
    encoding: Encoding
    readout: tuple[int, int]
    calibration: npt.NDArray[np.complex64] | None = None
    contrast: int = 0
    repetition: int = 0
    whitened: bool = False
    input_hash: str = ""
    acquired_utc_s: float | None = None
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = (self.encoding.coils, *self.encoding.encoded_matrix)
        if self.samples.shape != expected:
            raise DataError(f"k-space must have shape (coils, z, y, x) = {expected}, got {self.samples.shape}")
        if self.samples.dtype != np.complex64:
            raise DataError(f"k-space must be complex64, got {self.samples.dtype}")
        if self.acquired.shape != expected[1:3]:
            raise DataError(f"acquired must have shape (z, y) = {expected[1:3]}, got {self.acquired.shape}")
        if not 0 <= self.readout[0] < self.readout[1] <= expected[3]:
            raise DataError(f"readout must be a range within 0..{expected[3]}, got {self.readout}")
        if self.calibration is not None and self.calibration.shape != expected:
            raise DataError(f"calibration must have shape {expected}, got {self.calibration.shape}")


class Level(Enum):
    """How far a result may be trusted."""

    GOOD = "good"
    CHECK = "check"
    REFUSED = "refused"


@dataclass(frozen=True)
class Reason:
    """One measured sign of trust: ``name``, ``value`` with ``unit``, the ``expected`` range in words, and its level."""

    name: str
    value: float
    unit: str
    expected: str
    level: Level


@dataclass(frozen=True)
class Verdict:
    """Good, check or refused, with the measured reasons. Level is that of the worst reason."""

    reasons: tuple[Reason, ...]

    @property
    def level(self) -> Level:
        """Worst level among the reasons; refused when there is none, since nothing was verified."""
        levels = {reason.level for reason in self.reasons}
        for level in (Level.REFUSED, Level.CHECK, Level.GOOD):
            if level in levels:
                return level
        return Level.REFUSED

    @property
    def text(self) -> str:
        """The verdict and what speaks against it, in one line."""
        against = [r for r in self.reasons if r.level is not Level.GOOD]
        parts = [f"{r.name} {r.value:.3g} {r.unit}".rstrip() + f" (expected {r.expected})" for r in against]
        return self.level.value + (": " + "; ".join(parts) if parts else "")


@dataclass(frozen=True)
class Measurement:
    """A number for a person: value, unit, definition, interval, and what it was measured on.

    ``value`` None means that it may not be shown, and ``missing_because`` says why in words for a person.
    ``interval``: lower and upper bound in the same unit, None when no interval can be given.
    ``source``: paper or standard of the definition. ``based_on``: uids of the images and transforms it rests on.
    """

    name: str
    value: float | None
    unit: str
    definition: str
    source: str = ""
    interval: tuple[float, float] | None = None
    missing_because: str = ""
    based_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.value is None and not self.missing_because:
            raise DataError(f"measurement '{self.name}' has no value and must say why")
        if self.value is not None and not np.isfinite(self.value):
            raise DataError(f"measurement '{self.name}' must be finite, got {self.value}")
        if self.interval is not None and not self.interval[0] <= self.interval[1]:
            raise DataError(f"interval of '{self.name}' must be (lower, upper), got {self.interval}")


@dataclass(frozen=True)
class MetalShift:
    """How far a scan may show a straight implant from where its metal is, mm, as far as that is known.

    ``across_mm``: its axis, in any direction across it. ``along_mm``: its ends, along it, either way.
    ``void_radius_mm``: how far from the axis the same physics takes signal away. ``readout_mm``, ``slice_mm``: largest
    shift of the void along the readout and across slices. ``assumed``: what the scan does not say and was taken at its
    worst. ``readout_void_mm``, ``slice_void_mm``: width of the void along the readout and across slices, 0 when nobody
    said. ``basis``: what all this rests on, in words. ``end_void_mm``: how far beyond an end signal may be too thin to
    be seen, whatever the shaft looks like.
    """

    across_mm: float
    along_mm: float
    void_radius_mm: float
    readout_mm: float
    slice_mm: float
    assumed: tuple[str, ...] = ()
    readout_void_mm: float = 0.0
    slice_void_mm: float = 0.0
    basis: str = ""
    end_void_mm: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "across_mm", "along_mm", "void_radius_mm", "readout_mm", "slice_mm", "readout_void_mm", "slice_void_mm",
            "end_void_mm",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < np.inf:
                raise DataError(f"{name} of a shift must be finite and not negative, got {getattr(self, name)}")

    def within(self, void_radius_mm: float) -> MetalShift:
        """The same when a void of ``void_radius_mm`` was seen: its middle moves by at most half of that."""
        limit = void_radius_mm / 2
        shifts = {name: min(getattr(self, name), limit) for name in ("across_mm", "readout_mm", "slice_mm")}
        voids = {name: min(getattr(self, name), 2 * void_radius_mm) for name in ("readout_void_mm", "slice_void_mm")}
        return replace(self, **shifts, **voids, void_radius_mm=min(self.void_radius_mm, void_radius_mm))
