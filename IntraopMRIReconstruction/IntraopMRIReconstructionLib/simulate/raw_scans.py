"""Raw data of scans that are not plain Cartesian: radial, spiral, echo-planar, several echoes, heating.

Every sample is the closed-form Fourier integral of the object where the gradients are at that moment (or, for EPI in a
curved field, a sum over fine points), so that nothing is shared with what turns it back into an image. What the scans
contain that a reconstruction must find (delays, ghosts, fields, temperatures) is in :class:`Truth`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data import Acquisition, Encoding, LineFlag, Trajectory
from ..errors import DataError
from ..geometry import corner_from_fourier_centre
from .analytic import HEAD_2D, Ellipsoid, kspace_at, object_at, ring_of_coils

Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.complex128]

FIELD_MM, THICKNESS_MM = 240.0, 5.0
FIELD_T = 1.5
#: Phase of one degree: -0.01 ppm of the proton's frequency, radians for each second of echo time and tesla.
RADIANS_PER_C_S_T = -0.01e-6 * 2 * np.pi * 42.577478518e6
GOLDEN_RAD = np.pi * (np.sqrt(5.0) - 1) / 2
#: Rings of equal temperature that make up a hot spot.
RINGS = 12
#: Points for each voxel side where a scan has no closed form.
FINE = 3


@dataclass(frozen=True, eq=False)
class Truth:
    """What was put into a scan. ``hz``: (2,) gradient of the field in Hz per mm along (x, y) about ``hz_centre``.
    ``temperature_c``: rise (frames, y, x). ``picture``, ``hz``: brightness and off-resonance (z, y, x). What a scan has
    no use for is left as it is."""

    delays: Array | None = None
    hz_per_mm: tuple[float, float] = (0.0, 0.0)
    hz_centre: float = 0.0
    temperature_c: Array | None = None
    shift_voxels: Array | None = None
    picture: Array | None = None
    hz: Array | None = None


@dataclass(frozen=True, eq=False)
class RawScan:
    """How a scan is encoded, its blocks in the order of time, and the truth."""

    encoding: Encoding
    blocks: tuple[Acquisition, ...]
    truth: Truth = field(default_factory=Truth)


class Plane:
    """One axial slice of the head, seen by coils."""

    def __init__(self, matrix: int, coils: int, noise: float, seed: int) -> None:
        if matrix < 8 or coils < 1:
            raise DataError(f"a scan needs a matrix of at least 8 and a coil, got {matrix} and {coils}")
        self.matrix, self.coils = matrix, ring_of_coils(coils, FIELD_MM)
        self._noise, self._rng = noise, np.random.default_rng(seed)

    def signal(self, k: Array, parts: tuple[Ellipsoid, ...] = HEAD_2D) -> npt.NDArray[np.complex64]:
        """(lines, coils, readout) at ``k`` (lines, readout, 2) in cycles per field of view."""
        clean = kspace_at(k / FIELD_MM, parts, self.coils) * (self.matrix / FIELD_MM**2)
        return self.noisy(np.moveaxis(clean, 0, 1))

    def noisy(self, clean: Samples) -> npt.NDArray[np.complex64]:
        """With noise of the coils, in units of the head's brightness in an image of one coil."""
        parts = self._rng.standard_normal((*clean.shape, 2)) * (self._noise / np.sqrt(2))
        return (clean + parts[..., 0] + 1j * parts[..., 1]).astype(np.complex64)

    def encoding(self, name: str, trajectory: Trajectory, oversampling: int = 1, **more: object) -> Encoding:
        """Of this slice; ``more`` are further fields."""
        n, voxel = self.matrix, FIELD_MM / self.matrix
        axes = np.diag([-voxel, -voxel, THICKNESS_MM])
        plain = Encoding(
            scan_id=f"simulated-{name.lower().replace(' ', '-')}",
            trajectory=trajectory,
            encoded_matrix=(1, n, oversampling * n),
            recon_matrix=(1, n, n),
            encoded_fov_mm=(THICKNESS_MM, FIELD_MM, oversampling * FIELD_MM),
            recon_fov_mm=(THICKNESS_MM, FIELD_MM, FIELD_MM),
            coils=len(self.coils),
            ras_from_ijk=corner_from_fourier_centre(axes, (0.0, 0.0, 0.0), (n, n, 1)),
            is_3d=False,
            protocol=name,
            patient_id="SIMULATED",
            field_t=FIELD_T,
            dwell_time_s=5e-6,
        )
        return replace(plain, **more)  # type: ignore[arg-type]


def radial_scan(
    matrix: int = 96,
    coils: int = 8,
    spokes: int = 144,
    repetitions: int = 1,
    noise: float = 0.005,
    delays: tuple[float, float] = (0.0, 0.0),
    with_trajectory: bool = True,
    seed: int = 0,
) -> RawScan:
    """Golden-angle spokes with twofold oversampling, ``spokes`` for each repetition; angles go on over repetitions.

    ``delays``: of the gradients along x and y, cycles per field of view: the planned trajectory does not have them.
    """
    plane = Plane(matrix, coils, noise, seed)
    readout = 2 * matrix
    numbers = np.arange(spokes * repetitions)
    direction = np.stack([np.cos(numbers * GOLDEN_RAD), np.sin(numbers * GOLDEN_RAD)], axis=-1)
    planned = (np.arange(readout) - readout // 2)[:, None] / 2.0 * direction[:, None, :]
    samples = plane.signal(planned + (direction * delays)[:, None, :])
    # An oversampled field of view along x is twice as long: twice the cycles.
    trajectory = (planned * (2.0, 1.0)).astype(np.float32) if with_trajectory else None
    encoding = plane.encoding(
        "Radial golden angle",
        "radial",
        2,
        repetitions=repetitions,
        metadata={"shots": str(spokes), "radial_order": "golden", "frame_interval_s": "1.0"},
    )
    blocks = _blocks(encoding, samples, numbers, spokes, trajectory)
    return RawScan(encoding, blocks, Truth(delays=np.diag(delays)))


def spiral_scan(
    matrix: int = 96, coils: int = 8, interleaves: int = 24, taken: int | None = None, noise: float = 0.005
) -> RawScan:
    """Archimedean spirals at the Nyquist distance; only the first ``taken`` of them, evenly turned, are acquired."""
    plane = Plane(matrix, coils, noise, 0)
    used = interleaves if taken is None else taken
    turns = matrix / 2 / interleaves
    # Constant speed: even steps along r = a theta, whose length is a / 2 (theta sqrt(1 + theta^2) + asinh theta).
    theta = np.linspace(0, 2 * np.pi * turns, 10001)
    length = theta * np.sqrt(1 + theta**2) + np.arcsinh(theta)
    even = np.linspace(0, length[-1], int(2.2 * np.pi * turns * matrix / 2))
    share = np.interp(even, length, theta) / theta[-1]
    start = 2 * np.pi * np.arange(used) / used
    angle = start[:, None] + 2 * np.pi * turns * share
    k = (matrix / 2 * share)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    encoding = plane.encoding("Spiral", "spiral", metadata={"shots": str(used)})
    return RawScan(encoding, _blocks(encoding, plane.signal(k), np.arange(used), used, k.astype(np.float32)))


def epi_scan(
    matrix: int = 64,
    coils: int = 8,
    navigators: bool = True,
    ramps: bool = True,
    delay: float = 0.35,
    phase_rad: float = 0.9,
    shift_voxels: float = 0.0,
    blips: int = 1,
    noise: float = 0.005,
) -> RawScan:
    """One shot with every other line backwards: those are ``delay`` cycles late and turned by ``phase_rad``.

    ``ramps``: sampled while the gradient rises and falls. ``shift_voxels``: how far along the phase encoding a curved
    field moves the middle of the head; ``blips`` -1 moves it the other way.
    """
    plane = Plane(matrix, coils, noise, 3 if blips < 0 else 2)
    ramp, flat, dwell = (1.0e-4, 2.4e-4, 2.5e-6) if ramps else (0.0, 2.4e-4, 2.4e-4 / matrix)
    readout = round((2 * ramp + flat) / dwell)
    kx = _trapezoid(ramp, flat, np.asarray((np.arange(readout) + 0.5) * dwell), matrix) if ramps else _steps(matrix)
    lines = _steps(matrix)
    backward = np.arange(matrix) % 2 == 1
    late, turn = backward * delay, np.exp(1j * phase_rad * backward)
    if shift_voxels:
        seen, shift = _curved(plane, kx, late, lines, blips * shift_voxels)
    else:
        seen, shift = plane.signal(_grid(kx[None] + late[:, None], lines)), None
    samples = (seen * turn[:, None, None]).astype(np.complex64)
    samples[backward] = samples[backward][..., ::-1]
    flags = np.where(backward, int(LineFlag.REVERSED), 0).astype(np.uint32)
    metadata = {"epi_ramp_s": repr(ramp), "epi_flat_s": repr(flat), "epi_delay_s": "0.0"} if ramps else {}
    name = "EPI" if blips > 0 else "EPI opposite blips"
    encoding = plane.encoding(name, "epi", dwell_time_s=dwell, metadata=metadata)
    blocks = []
    if navigators:
        ways = np.array([False, True, False])
        k = _grid(kx[None] + (ways * delay)[:, None], np.zeros(3))
        navs = (plane.signal(k) * np.exp(1j * phase_rad * ways)[:, None, None]).astype(np.complex64)
        navs[ways] = navs[ways][..., ::-1]
        marks = np.where(ways, int(LineFlag.REVERSED), 0).astype(np.uint32) | np.uint32(LineFlag.NAVIGATOR)
        nothing = np.zeros(3, np.int32)
        blocks.append(Acquisition(encoding.scan_id, navs, nothing + matrix // 2, nothing, marks))
    ky = np.arange(matrix, dtype=np.int32)
    blocks.append(Acquisition(encoding.scan_id, samples, ky, np.zeros_like(ky), flags, last=True))
    return RawScan(encoding, tuple(blocks), Truth(shift_voxels=shift))


def multi_echo_scan(
    matrix: int = 64,
    coils: int = 8,
    echo_times_s: tuple[float, ...] = (4.6e-3, 6.9e-3, 11.5e-3),
    hz_per_mm: tuple[float, float] = (0.6, -0.4),
    hz_centre: float = 25.0,
    noise: float = 0.005,
) -> RawScan:
    """A gradient-echo scan with several echoes in a field that rises evenly: each echo's k-space is shifted by it."""
    plane = Plane(matrix, coils, noise, 4)
    k = _grid(_steps(matrix)[None], _steps(matrix))
    encoding = plane.encoding("Multi-echo", "cartesian", contrasts=len(echo_times_s), echo_times_s=tuple(echo_times_s))
    blocks: list[Acquisition] = []
    for number, echo_s in enumerate(echo_times_s):
        moved = k - np.asarray(hz_per_mm) * echo_s * FIELD_MM
        samples = plane.signal(moved) * np.complex64(np.exp(2j * np.pi * hz_centre * echo_s))
        blocks += _blocks(encoding, samples, np.arange(matrix), matrix, contrast=number)
    return RawScan(encoding, _ended(blocks), Truth(hz_per_mm=hz_per_mm, hz_centre=hz_centre))


def heating_scan(
    matrix: int = 64,
    coils: int = 8,
    frames: int = 8,
    peak_c: float = 25.0,
    spot_mm: tuple[float, float] = (0.0, -60.0),
    radius_mm: float = 14.0,
    drift_c: float = 2.0,
    interval_s: float = 4.0,
    noise: float = 0.002,
) -> RawScan:
    """A spot that is heated to ``peak_c`` above the body while the field drifts by as much as ``drift_c`` would.

    The first frame is not heated. The spot is a bell of rings of equal temperature, inside the brain's even part.
    """
    plane = Plane(matrix, coils, noise, 5)
    echo_s = 15e-3
    per_c = RADIANS_PER_C_S_T * FIELD_T * echo_s
    k = _grid(_steps(matrix)[None], _steps(matrix))
    encoding = plane.encoding(
        "Thermometry",
        "cartesian",
        repetitions=frames,
        echo_times_s=(echo_s,),
        metadata={"frame_interval_s": repr(interval_s)},
    )
    brightness = complex(object_at(np.array(spot_mm), HEAD_2D))
    points = (np.stack(np.meshgrid(_steps(matrix), _steps(matrix)), axis=-1)) * (FIELD_MM / matrix)
    blocks: list[Acquisition] = []
    rises = np.zeros((frames, matrix, matrix))
    for frame in range(frames):
        share = frame / max(1, frames - 1)
        parts, before = list(HEAD_2D), 1.0 + 0j
        for ring in range(RINGS, 0, -1):
            rise = peak_c * share * np.exp(-(((ring - 0.5) / RINGS * 2) ** 2))
            size = radius_mm * ring / RINGS
            now = complex(np.exp(1j * per_c * rise))
            parts.append(Ellipsoid(spot_mm, (size, size), brightness * (now - before)))
            rises[frame][np.hypot(*np.moveaxis(points - spot_mm, -1, 0)) <= size] = rise
            before = now
        drift = np.complex64(np.exp(1j * per_c * drift_c * share))
        samples = plane.signal(k, tuple(parts)) * drift
        blocks += _blocks(encoding, samples, np.arange(matrix), matrix, repetition=frame)
    return RawScan(encoding, _ended(blocks), Truth(temperature_c=rises))


def interleaved_scan(
    matrix: int = 64, coils: int = 8, acceleration: int = 2, frames: int = 6, noise: float = 0.005
) -> RawScan:
    """A live Cartesian slice: each frame takes every ``acceleration``-th line, the next frame those beside them."""
    plane = Plane(matrix, coils, noise, 6)
    encoding = plane.encoding("Live interleaved", "cartesian", repetitions=frames, acceleration=(1, acceleration))
    blocks: list[Acquisition] = []
    for frame in range(frames):
        lines = np.arange(frame % acceleration, matrix, acceleration)
        samples = plane.signal(_grid(_steps(matrix)[None], _steps(matrix)[lines]))
        blocks += _blocks(encoding, samples, lines, len(lines), repetition=frame)
    return RawScan(encoding, _ended(blocks))


def _semac_scan() -> RawScan:
    from .metal_scans import metal_scan

    return metal_scan()


#: Name and scan of each example; made when asked for.
EXAMPLES = {
    "radial": lambda: radial_scan(delays=(0.4, 0.25)),
    "radial-live": lambda: radial_scan(spokes=34, repetitions=12, with_trajectory=False),
    "interleaved-live": interleaved_scan,
    "spiral": spiral_scan,
    "epi": lambda: epi_scan(shift_voxels=2.5),
    "epi-opposite-blips": lambda: epi_scan(shift_voxels=2.5, blips=-1),
    "multi-echo": multi_echo_scan,
    "thermometry": heating_scan,
    "semac": _semac_scan,
}


def write_examples(folder: Path, names: tuple[str, ...] = tuple(EXAMPLES)) -> list[Path]:
    """Write examples as ``NAME.h5`` (MRD). Raises DataError for an unknown name, WireError where one exists."""
    from ..wire.mrd_file import write_mrd

    paths = []
    for name in names:
        if name not in EXAMPLES:
            raise DataError(f"examples are {', '.join(EXAMPLES)}, got '{name}'")
        scan = EXAMPLES[name]()
        paths.append(folder / f"{name}.h5")
        write_mrd(paths[-1], scan.encoding, scan.blocks)
    return paths


def _blocks(
    encoding: Encoding,
    samples: npt.NDArray[np.complex64],
    numbers: npt.NDArray[np.int_],
    each: int,
    trajectory: npt.NDArray[np.float32] | None = None,
    contrast: int = 0,
    repetition: int = 0,
) -> tuple[Acquisition, ...]:
    """One block for each repetition of ``each`` lines; the last says so."""
    return _ended(
        [
            Acquisition(
                encoding.scan_id,
                samples[start : start + each],
                numbers[start : start + each].astype(np.int32),
                np.zeros(len(numbers[start : start + each]), np.int32),
                contrast=contrast,
                repetition=repetition + start // each,
                trajectory=None if trajectory is None else trajectory[start : start + each],
            )
            for start in range(0, len(numbers), each)
        ]
    )


def _ended(blocks: list[Acquisition]) -> tuple[Acquisition, ...]:
    return tuple(replace(block, last=number == len(blocks) - 1) for number, block in enumerate(blocks))


def in_small_blocks(scan: RawScan, lines: int) -> Iterator[Acquisition]:
    """The scan as a scanner sends it: at most ``lines`` readouts in a block."""
    for block in scan.blocks:
        for start in range(0, len(block.ky), lines):
            cut = slice(start, start + lines)
            yield replace(
                block,
                samples=block.samples[cut],
                ky=block.ky[cut],
                kz=block.kz[cut],
                flags=None if block.flags is None else block.flags[cut],
                trajectory=None if block.trajectory is None else block.trajectory[cut],
                last=block.last and start + lines >= len(block.ky),
            )


def _steps(matrix: int) -> Array:
    return np.arange(matrix, dtype=np.float64) - matrix // 2


def _grid(kx: Array, ky: Array) -> Array:
    """(lines, readout, 2) from ``kx`` (lines or 1, readout) and ``ky`` (lines,)."""
    return np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1)


def _trapezoid(ramp_s: float, flat_s: float, times_s: Array, matrix: int) -> Array:
    """k at times of a gradient pulse that goes from -matrix / 2 to matrix / 2, summed up in fine steps."""
    fine = np.linspace(0, 2 * ramp_s + flat_s, 20001)
    strength = np.minimum(1.0, np.minimum(fine, fine[-1] - fine) / ramp_s)
    area = np.concatenate([[0], np.cumsum((strength[1:] + strength[:-1]) / 2)])
    return np.interp(times_s, fine, area) / area[-1] * matrix - matrix / 2


def _curved(plane: Plane, kx: Array, late: Array, ky: Array, shift: float) -> tuple[npt.NDArray[np.complex64], Array]:
    """((lines, coils, readout), shift (y, x) in voxels): a field that is strongest in the middle of the head.

    A point off resonance turns further with each line: the same as lying ``shift`` voxels further.
    """
    fine = plane.matrix * FINE
    at = (np.arange(fine) - fine // 2) * (FIELD_MM / fine)
    points = np.stack(np.meshgrid(at, at), axis=-1)
    head = object_at(points, HEAD_2D) * (FIELD_MM / fine) ** 2 * (plane.matrix / FIELD_MM**2)
    moved = shift * np.exp(-(np.square(points) / 60.0**2).sum(axis=-1))
    where = at / FIELD_MM
    result = np.empty((len(ky), len(plane.coils), len(kx)), dtype=np.complex128)
    for number, coil in enumerate(plane.coils):
        seen = head * coil.at(points)
        for line, (step, behind) in enumerate(zip(ky, late, strict=True)):
            wave = np.exp(-2j * np.pi * step * (where[:, None] + moved / plane.matrix))
            result[line, number] = (seen * wave).sum(axis=0) @ np.exp(-2j * np.pi * np.outer(where, kx + behind))
    return plane.noisy(result), moved[::FINE, ::FINE]
