"""What the sequence itself does to the lines of k-space: trains of echoes, the way to the steady state, flowing blood.

Tissues are ellipses in closed form; each has a signal of its own at each readout, so that lines differ by nature, with
nothing wrong. Sources: Hennig, Nauerth and Friedburg, Magn Reson Med 3:823 (1986) for echo trains; Bernstein, King and
Zhou, Handbook of MRI Pulse Sequences (2004), chapters 14 (gradient echo, balanced), 16.4 (turbo spin echo) and 11.5
(view orders).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .analytic import Coil, Ellipsoid, cartesian_kspace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
#: Signal of a tissue at each line, (lines,) complex.
Signal = Callable[["Tissue"], npt.NDArray[np.complex128]]


@dataclass(frozen=True)
class Tissue:
    """``density`` against water; relaxation times; ``ppm`` of its protons against water; ``flows`` with the pulse."""

    density: float
    t1_s: float
    t2_s: float
    t2_star_s: float
    ppm: float = 0.0
    flows: bool = False


#: At 1.5 T: Stanisz et al., Magn Reson Med 54:507 (2005), and the Handbook.
FAT = Tissue(0.9, 0.26, 0.085, 0.04, -3.5)
MUSCLE = Tissue(0.8, 1.0, 0.044, 0.028)
WHITE = Tissue(0.7, 0.88, 0.072, 0.06)
GREY = Tissue(0.82, 1.12, 0.095, 0.07)
CSF = Tissue(1.0, 4.0, 1.8, 0.8)
TUMOUR = Tissue(0.85, 1.4, 0.13, 0.08)
BLOOD = Tissue(0.9, 1.4, 0.25, 0.15, flows=True)
TISSUES = (FAT, MUSCLE, WHITE, GREY, CSF, TUMOUR, BLOOD)


@dataclass(frozen=True, eq=False)
class Views:
    """When each line (lines,) is read: ``shot``, ``echo`` within it, ``order`` of all readouts in time."""

    shot: Ints
    echo: Ints

    @property
    def order(self) -> Ints:
        """Number (lines,) of each readout in time."""
        return np.asarray(self.shot * (int(self.echo.max()) + 1) + self.echo)


def views(lines: int, train: int, way: str, centre_echo: int = 0) -> Views:
    """Echo trains over ``lines``: ``way`` "linear": each echo fills a band, in order of k-space, so that
    ``centre_echo`` lies in the middle (the bands wrap round); "centric": bands from the middle outward; "interleaved":
    neighbours are neighbouring echoes, which makes ghosts and nobody uses for pictures. A ``train`` of 1: line by line
    in that way, each a shot of its own; of all ``lines``: a single shot."""
    row = np.arange(lines)
    away = row - lines // 2
    rank = (
        np.argsort(np.argsort(np.abs(away) * 2 - (away < 0), kind="stable"), kind="stable") if way == "centric" else row
    )
    shots = -(-lines // train)
    if way == "interleaved":
        return Views(row // train, row % train)
    echo, shot = rank // shots, rank % shots
    if way == "linear":
        echo = (echo - (lines // 2) // shots + centre_echo) % train
    return Views(shot, echo)


def turbo_spin_echo(seen: Views, spacing_s: float, repetition_s: float) -> Signal:
    """Spin echoes of a train, ``spacing_s`` apart."""
    return lambda tissue: (
        tissue.density * (1 - np.exp(-repetition_s / tissue.t1_s)) * np.exp(-(seen.echo + 1) * spacing_s / tissue.t2_s)
    ).astype(complex)


def echo_planar(seen: Views, spacing_s: float, first_s: float, off_hz: float) -> Signal:
    """Gradient echoes of a train, the first at ``first_s``, ``off_hz`` beside the centre frequency."""

    def signal(tissue: Tissue) -> npt.NDArray[np.complex128]:
        time = first_s + seen.echo * spacing_s
        return np.asarray(tissue.density * np.exp(-time / tissue.t2_star_s + 2j * np.pi * off_hz * time))

    return signal


def gradient_echo(
    seen: Views, repetition_s: float, flip_deg: float, prepared: float = 1.0, wait_s: float = np.inf
) -> Signal:
    """Spoiled gradient echoes on the way to their steady state. ``prepared``: longitudinal magnetisation before each
    shot, -1 after an inversion, which ``wait_s`` follows; 1 for none."""

    def signal(tissue: Tissue) -> npt.NDArray[np.complex128]:
        turned, relaxed = np.cos(np.radians(flip_deg)), np.exp(-repetition_s / tissue.t1_s)
        steady = (1 - relaxed) / (1 - turned * relaxed)
        first = 1 - (1 - prepared) * np.exp(-wait_s / tissue.t1_s)
        along = steady + (first - steady) * (turned * relaxed) ** seen.echo
        return np.asarray(tissue.density * np.sin(np.radians(flip_deg)) * along, dtype=complex)

    return signal


def balanced(seen: Views, repetition_s: float, flip_deg: float, off_hz: float, dummies: int = 0) -> Signal:
    """Balanced gradient echoes with alternating pulses, the receiver turned along, from rest: by Bloch's equations."""

    def signal(tissue: Tissue) -> npt.NDArray[np.complex128]:
        flip = np.radians(flip_deg)
        e1, e2 = np.exp(-repetition_s / 2 / tissue.t1_s), np.exp(-repetition_s / 2 / tissue.t2_s)
        turn = np.exp(1j * np.pi * off_hz * repetition_s)
        across, along, found = 0j, 1.0, []
        for number in range(dummies + int(seen.echo.max()) + 1):
            sign = -1.0 if number % 2 else 1.0
            y, z = across.imag, along
            across = across.real + 1j * (y * np.cos(flip) + sign * z * np.sin(flip))
            along = z * np.cos(flip) - sign * y * np.sin(flip)
            across, along = across * e2 * turn, 1 + (along - 1) * e1
            found.append(sign * across)
            across, along = across * e2 * turn, 1 + (along - 1) * e1
        return np.asarray(tissue.density * np.array(found)[dummies + seen.echo])

    return signal


def pulsing(signal: Signal, seen: Views, period: float, depth: float) -> Signal:
    """``signal`` whose flowing tissues come and go (``depth`` 0..1, with phase) every ``period`` readouts."""
    beat = np.exp(2j * np.pi * seen.order / period)
    return lambda tissue: signal(tissue) * (1 + depth * beat if tissue.flows else 1)


def breathing(signal: Signal, seen: Views, period: float, radians: float) -> Signal:
    """``signal`` with a field that rises and falls every ``period`` readouts."""
    phase = np.exp(1j * radians * np.sin(2 * np.pi * seen.order / period))
    return lambda tissue: signal(tissue) * phase


def random_head(rng: np.random.Generator) -> dict[Tissue, tuple[Ellipsoid, ...]]:
    """An axial slice: scalp, muscle, grey and white matter, ventricles, a tumour or cavity, vessels; (x, y) mm."""
    wide, long = rng.uniform(66, 80), rng.uniform(82, 100)

    def oval(scale: float, value: float = 1.0) -> Ellipsoid:
        return Ellipsoid((0.0, 0.0), (wide * scale, long * scale), value)

    def spot(x: float, y: float, a: float, b: float, value: float = 1.0, angle: float = 0.0) -> Ellipsoid:
        return Ellipsoid((x, y), (a, b), value, angle)

    horns = [(side * 14.0, 8.0, rng.uniform(5, 9), rng.uniform(18, 28), side * -15.0) for side in (-1, 1)]
    mass = (rng.uniform(-25, 25), -38.0, rng.uniform(5, 18), rng.uniform(5, 16))
    vessels = [(side * 0.84 * wide * 0.8, rng.uniform(-20, 20), 2.5, 2.5) for side in (-1, 1)]
    thick = rng.uniform(0.02, 0.06)
    parts: dict[Tissue, tuple[Ellipsoid, ...]] = {
        FAT: (oval(1.0), oval(1 - thick, -1.0)),
        MUSCLE: (oval(1 - thick), oval(0.93 - thick, -1.0)),
        GREY: (oval(0.88), oval(0.8, -1.0)),
        WHITE: (
            oval(0.8),
            *(spot(x, y, a, b, -1.0, angle) for x, y, a, b, angle in horns),
            spot(*mass, -1.0),
            *(spot(*vessel, -1.0) for vessel in vessels),
        ),
        CSF: tuple(spot(x, y, a, b, 1.0, angle) for x, y, a, b, angle in horns),
        BLOOD: tuple(spot(*vessel) for vessel in vessels),
    }
    what = TUMOUR if rng.random() < 0.5 else CSF
    parts[what] = (*parts.get(what, ()), spot(*mass))
    return parts


def moved(
    parts: dict[Tissue, tuple[Ellipsoid, ...]], shift_mm: tuple[float, float], turn_deg: float = 0.0
) -> dict[Tissue, tuple[Ellipsoid, ...]]:
    """The slice turned about the centre of the field of view, then shifted along (x, y); coils stay where they are."""
    turn = np.radians(turn_deg)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def new(part: Ellipsoid) -> Ellipsoid:
        x, y = axes @ part.centre_mm + shift_mm
        return replace(part, centre_mm=(float(x), float(y)), angle_deg=part.angle_deg + turn_deg)

    return {tissue: tuple(new(part) for part in shapes) for tissue, shapes in parts.items()}


class Slice:
    """A head whose tissues are seen by coils one by one, so that many sequences can read it."""

    def __init__(
        self,
        matrix: tuple[int, int],
        field_mm: tuple[float, float],
        parts: dict[Tissue, tuple[Ellipsoid, ...]],
        coils: tuple[Coil, ...],
        bandwidth_hz: float = 200.0,
        field_t: float = 1.5,
    ) -> None:
        """``bandwidth_hz`` of a pixel along the readout: what is not water is moved along it."""
        along = np.arange(matrix[1]) - matrix[1] // 2
        self._tissues = {}
        for tissue, shapes in parts.items():
            moved = tissue.ppm * 42.577 * field_t / bandwidth_hz
            shift = np.exp(-2j * np.pi * along * moved / matrix[1]).astype(np.complex64)
            self._tissues[tissue] = cartesian_kspace(matrix, field_mm, shapes, coils) * shift

    def read(self, signal: Signal) -> npt.NDArray[np.complex64]:
        """K-space (coils, lines, readout) without noise."""
        parts = (kspace * signal(tissue)[:, None] for tissue, kspace in self._tissues.items())
        return np.asarray(sum(parts), dtype=np.complex64)
