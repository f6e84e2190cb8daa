"""Signs in the lines themselves that they are not what the header says: signal out of place, lines and coils that do
not fit to the others. From the energy of each line in each coil, which is known when it arrives, and a few lines.

Only what no scan of a person shows is named: the strongest line far from the centre of k-space, a line a hundred times
stronger than those around it, a coil that falls to its noise or changes its part in the signal a hundredfold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import maximum_filter1d

from ..operators.fourier import ComplexArray

#: Below it a division means nothing.
TINY = float(np.finfo(np.float32).tiny)

Energies = npt.NDArray[np.floating[Any]]

#: Lines so much stronger (energy) than the weakest tenth show the coils' parts in the signal, not in the noise.
STRONG = 30.0
#: A coil's part in one line may be a hundredth of what is usual for it, or a hundred times as much, where coils are
#: small or partitions few; in several lines that follow one another it mostly stays within the first of these factors,
#: and always within the second. One that died to noise does not, one whose gain jumped may.
STEADY, JUMPED = 1 / 10, 1 / 100
#: So many strong lines after one another, and this part of all of them.
LEAST_STRONG, RUN_SHARE = 3, 0.1
#: A coil with nothing but noise in the strong lines, and more than so many times as much in others, died before those.
DIED_BEFORE, NOISE_ALONE = 2.0, 3.0
#: The centre of k-space is found within this part of the matrix; shim and gradient delays move it by a few samples.
ECHO_SHARE, LEAST_ECHO = 1 / 8, 3
#: Away from the centre, a line has less than so many times the energy of the strongest of its neighbours.
LOUD = 100.0
#: Neighbours on either side: as many as the largest acceleration leaves out.
NEIGHBOURS = 8
#: The gain has stepped between two runs of so many readouts through the centre of k-space, each even to within the
#: first factor (power), when the second lies between them. It happens once: what comes again was planned so.
RUN, EVEN, STEP = 5, 1.25, 1.5


def suspicions(
    energy: Energies, order: npt.NDArray[np.int32], samples: ComplexArray, is_3d: bool
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """(which coils are not to be used, what else is wrong in words) of a frame.

    ``energy``: (z, y, coils), 0 where no line is; ``order``: (z, y) of arrival; ``samples``: (coils, z, y, x).
    Slices of a 2D scan are judged one by one: coils see some of them.
    """
    energy = energy.astype(np.float64)
    total = energy.sum(axis=-1)
    unsteady = np.zeros(energy.shape[-1], dtype=bool)
    strongest = []
    for planes in [slice(None)] if is_3d else [slice(z, z + 1) for z in range(len(energy))]:
        z, y = np.nonzero(total[planes])
        arrived = np.argsort(order[planes][z, y])
        lines = energy[planes][z[arrived], y[arrived]]
        sums = lines.sum(axis=1)
        if len(sums) < LEAST_STRONG or sums.max() <= STRONG * _weak(sums):
            continue
        unsteady |= unsteady_coils(lines)
        peak = arrived[sums.argmax()]
        strongest.append((z[peak] + (planes.start or 0), y[peak]))
    words = [_loud_words(total, is_3d)]
    if strongest:
        words.append(_echo_words(total, np.array(strongest), samples, is_3d))
    return unsteady, [text for text in words if text]


def unsteady_coils(energy: Energies) -> npt.NDArray[np.bool_]:
    """Which coils (coils,) lose or gain signal against the others while the lines ``energy`` (lines, coils) come, in
    the order of their arrival. Coils that see nothing but noise are as steady as any."""
    total = energy.sum(axis=1)
    strong = energy[total > STRONG * _weak(total)]
    if len(strong) < LEAST_STRONG or energy.shape[1] < 2:
        return np.zeros(energy.shape[1], dtype=bool)
    most = strong.max(axis=0)
    noise = np.maximum(_weak(energy), TINY)
    result: npt.NDArray[np.bool_] = np.asarray((most < NOISE_ALONE * noise) & (energy.max(axis=0) > DIED_BEFORE * most))
    seeing = np.flatnonzero(most > STRONG * noise)
    if len(seeing) > 1:
        result[seeing] |= changed_parts(strong[:, seeing], noise[seeing])
    return result


def changed_parts(strong: Energies, noise: Energies | None = None) -> npt.NDArray[np.bool_]:
    """As :func:`unsteady_coils` of lines that all show signal in all coils.

    ``noise``: (coils,) energy of a line with noise alone, or at least not less; lines of Cartesian k-space show
    different parts of the object, and only a coil that falls to its noise has died. None for readouts through the
    centre of k-space, which all show the same.
    """
    least = np.full(strong.shape[1], TINY) if noise is None else noise
    common = np.maximum(np.median(strong / np.maximum(np.median(strong, axis=0), least), axis=1, keepdims=True), TINY)
    expected = common * np.median(strong / common, axis=0)
    telling = STEADY * expected > least
    lost, gained = strong < STEADY * expected, STEADY * strong > expected + least
    if noise is not None:
        lost &= (strong < NOISE_ALONE * least) | (strong < JUMPED * expected)
        gained &= (expected < NOISE_ALONE * least) | (expected < JUMPED * strong)
    return np.array([_runs(lost[telling[:, coil], coil]) or _runs(gained[:, coil]) for coil in range(strong.shape[1])])


def gain_step(power: Energies) -> tuple[int, float] | None:
    """(first readout after it, factor in power) of a step of the gain of all coils, None without one.

    ``power``: (readouts,) of the strongest sample, in the order of arrival; readouts through the centre of k-space all
    show the same there, while a contrast agent, breathing and the way to the steady state take many of them.
    """
    if len(power) < 2 * RUN or not power.all():
        return None
    runs = sliding_window_view(power, RUN)
    low, high = runs.min(axis=1), runs.max(axis=1)
    even = high < EVEN * low
    steps = even[:-RUN] & even[RUN:] & ((low[RUN:] > STEP * high[:-RUN]) | (low[:-RUN] > STEP * high[RUN:]))
    found = np.flatnonzero(steps)
    if len(found) != 1:
        return None
    first = int(found[0])
    return first + RUN, float(np.median(runs[first + RUN]) / np.median(runs[first]))


def _runs(wrong: npt.NDArray[np.bool_]) -> bool:
    """Whether so many are wrong after one another that it is no accident."""
    run = max(LEAST_STRONG, int(RUN_SHARE * len(wrong)))
    return bool(len(wrong) >= run and np.count_nonzero(wrong) >= run and _longest(wrong) >= run)


def _longest(wrong: npt.NDArray[np.bool_]) -> int:
    right = np.flatnonzero(~np.concatenate([[False], wrong, [False]]))
    return int(np.diff(right).max()) - 1


def _weak(energy: Energies) -> Any:
    """The weakest tenth of lines (lines, ...)."""
    weak = len(energy) // 10
    return np.partition(energy, weak, axis=0)[weak]


def _echo_words(total: Energies, lines: npt.NDArray[np.intp], samples: ComplexArray, is_3d: bool) -> str:
    """Where the strongest ``lines`` (n, 2) are not in the centre of k-space."""
    middle = np.array(samples.shape[1:]) // 2
    far = np.maximum(LEAST_ECHO, (ECHO_SHARE * np.array(samples.shape[1:])).astype(int))
    power = np.square(np.abs(samples[:, lines[:, 0], lines[:, 1]])).sum(axis=0)
    aside = np.column_stack([lines, power.argmax(axis=1)]) - middle
    near: npt.NDArray[np.bool_] = np.asarray(total[:, max(0, middle[1] - far[1]) : middle[1] + far[1] + 1].any(axis=1))
    if is_3d:
        near[:] = near[max(0, middle[0] - far[0]) : middle[0] + far[0] + 1].any()
    else:
        aside[:, 0] = 0
    # While the centre itself has not come, the strongest line is another.
    wrong = np.flatnonzero((np.abs(aside) > far).any(axis=1) & near[lines[:, 0]])
    if not len(wrong):
        return ""
    return (
        f"the strongest signal lies {tuple(aside[wrong[0]].tolist())} samples (z, y, x) beside the centre of k-space "
        "that the header names: a spike, lines in the wrong place, or a wrong centre"
    )


def _loud_words(total: Energies, is_3d: bool) -> str:
    """Lines that are far stronger than those around them, the centre aside."""
    centre = [size // 2 for size in total.shape]
    far = [max(LEAST_ECHO, int(ECHO_SHARE * size)) for size in total.shape]
    around = np.zeros_like(total)
    # The strongest neighbour on either side, the line itself left out.
    around[:, 1:] = maximum_filter1d(total, NEIGHBOURS, axis=1, origin=NEIGHBOURS // 2 - 1, mode="constant")[:, :-1]
    after = maximum_filter1d(total, NEIGHBOURS, axis=1, origin=-(NEIGHBOURS // 2), mode="constant")[:, 1:]
    np.maximum(around[:, :-1], after, out=around[:, :-1])
    loud: npt.NDArray[np.bool_] = np.asarray((total > LOUD * around) & (around > 0))
    z = slice(max(0, centre[0] - far[0]), centre[0] + far[0] + 1) if is_3d else slice(None)
    loud[z, max(0, centre[1] - far[1]) : centre[1] + far[1] + 1] = False
    number = int(loud.sum())
    if not number:
        return ""
    return f"{number} lines are over {LOUD:g} times stronger than those around them: spikes, or lines from elsewhere"
