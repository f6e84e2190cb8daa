"""Cartesian planes to images: what each method does with one plane."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from ..operators import sensitivity
from ..operators.fourier import ComplexArray, image_from_kspace
from . import compressed_sensing, grappa, sense
from .methods import COMPLETING, Options
from .partial_fourier import Method, completed, method_for
from .planes import Plane, Planes, Solver
from .result import Parameter, Step
from .unmixing import Ahead, Calibrations, Lattice, Unmixing, combination

#: Methods whose images rest on coil maps where lines are missing.
UNFOLDING = ("sense", "cg-sense", "l1-wavelet", "tv")
#: Calibration lines below which maps leave a third to a half of the aliases, and from which more help by less than
#: half: errors of R2, R3 with 8 coils are 0.29, 0.45 with 2 lines, 0.13, 0.34 with 4, 0.02, 0.07 with 12.
LEAST_MAP_LINES, GOOD_MAP_LINES = 4, 12


def solver_for(
    planes: Planes,
    method: str,
    options: Options,
    parameters: dict[str, Parameter],
    step: Step,
    calibrations: Calibrations | Ahead | None,
) -> Solver:
    """What makes an image of one plane by ``method``; notes in ``parameters`` what it will use.

    Method fft with combination rss, which has no phase, is combined by low-resolution maps.
    """
    lattice = planes.lattice
    if method in ("grappa", "sense") or (method == "fft" and options.combination == "rss"):
        parameters["acceleration"] = "x".join(map(str, lattice.step))
        parameters["calibration"] = "x".join(map(str, planes.calibration_shape))
        solver = _unmixing(method, lattice, parameters, calibrations)
    elif method in ("fft", "homodyne", "pocs"):
        solver = _combining(options.combination if method == "fft" else "low-resolution", parameters)
    else:
        solver = _iterating(planes, method, options, parameters, step)
    if not planes.one_sided:
        return solver
    if options.partial_fourier == "none" and method not in COMPLETING:
        parameters["partial_fourier"] = "none"
        return solver
    asked: Method = "pocs" if "pocs" in (method, options.partial_fourier) and method != "homodyne" else "homodyne"
    completing = method_for(planes.one_sided, asked)
    parameters["partial_fourier"] = completing + (" in both directions" if len(planes.one_sided) > 1 else "")

    def both(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        return completed(solver(plane, threads)[0], planes.one_sided, completing), None

    return both


def _combining(name: str, parameters: dict[str, Parameter]) -> Solver:
    parameters["combination"] = name

    def solver(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        if name in ("walsh", "inati"):
            images = image_from_kspace(plane.kspace, (-2, -1), threads)
            maps = sensitivity.walsh(images) if name == "walsh" else sensitivity.inati(images)
            return sensitivity.combined(images, maps), np.ones(images.shape[1:], np.float32)
        maps = _maps(plane.calibration, plane.shape, espirit=name == "espirit")
        weights = combination(maps)
        return weights.image(plane.kspace, threads), weights.g_factor

    return solver


def doubts(planes: Planes, method: str) -> list[str]:
    """What calibration lines that were lost, or are few, mean for an image by ``method``, in words.

    Raises ReconstructionError for maps that tell no coil from another.
    """
    found = [planes.lost] if planes.lost else []
    steps = planes.lattice.step
    for lines, size, step in zip(planes.calibration_shape, planes.shape, steps, strict=True):
        words = f"{lines} calibration lines are few"
        if method == "grappa" and step > 1 and lines < (enough := grappa.enough_calibration(step)):
            found.append(f"{words} for an acceleration of {step}, {enough} or more are good: expect noise and aliases")
        if method not in UNFOLDING or size < LEAST_MAP_LINES:
            continue
        if 0 < lines < LEAST_MAP_LINES:
            raise ReconstructionError(
                f"{lines} calibration lines are too few for the coil maps of method {method}, at least "
                f"{LEAST_MAP_LINES} are needed and {GOOD_MAP_LINES} are good: acquire more calibration lines"
                + (f" ({planes.lost})" if planes.lost else "")
            )
        if lines < min(size, GOOD_MAP_LINES):
            found.append(f"{words} for coil maps, {GOOD_MAP_LINES} or more are good: expect aliases and shading")
    return found


def begin_weights(planes: Planes, method: str, ahead: Ahead, most: int) -> None:
    """Begin the weights of the first ``most`` planes. ``planes`` may lack lines, but none that calibrate."""
    make = partial(_weights_from, method, planes.lattice)
    for index, block in zip(range(most), planes.calibrations(), strict=False):
        ahead.begin((method, planes.lattice, index), block, make)


def _unmixing(
    method: str, lattice: Lattice, parameters: dict[str, Parameter], calibrations: Calibrations | Ahead | None
) -> Solver:
    parameters["combination"] = "low-resolution maps"
    make = partial(_weights_from, method, lattice)

    def solver(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        if calibrations is None:
            weights = make(plane.calibration)
        elif isinstance(calibrations, Ahead):
            weights = calibrations.weights((method, lattice, plane.index), plane.calibration, make)
        else:
            # The next lines may overwrite a live frame while a renewal still reads it: the block is copied.
            kept = plane.calibration.copy()
            weights = calibrations.weights((method, lattice, len(plane.kspace), plane.index), lambda: make(kept))
        return weights.image(plane.kspace, threads), weights.g_factor

    return solver


def _weights_from(method: str, lattice: Lattice, calibration: ComplexArray) -> Unmixing:
    maps = _maps(calibration, lattice.shape, espirit=False)
    if method == "fft":
        return combination(maps)
    return sense.unmixing(maps, lattice) if method == "sense" else grappa.calibrate(calibration, lattice, maps)


def _iterating(planes: Planes, method: str, options: Options, parameters: dict[str, Parameter], step: Step) -> Solver:
    iterations = options.iterations or sense.ITERATIONS
    if method != "cg-sense" and options.iterations is None:
        iterations = compressed_sensing.enough_iterations(planes.sampled_share)
    weight = options.weight
    if weight is None:
        weights = {"l1-wavelet": compressed_sensing.WAVELET_WEIGHT, "tv": compressed_sensing.VARIATION_WEIGHT}
        weight = weights.get(method, 0.0)
    parameters.update(iterations=iterations, weight=weight, maps="espirit")

    def solver(plane: Plane, threads: int) -> tuple[ComplexArray, npt.NDArray[np.float32] | None]:
        maps = _maps(plane.calibration, plane.shape, espirit=True)
        encoding = sense.Encoding(plane.kspace, planes.sampled(plane.index), maps, threads)

        def tick(fraction: float) -> None:
            # From every plane, so that a person's stop is seen within one iteration.
            step(0.2 + 0.75 * (plane.index + fraction) / planes.count, f"{method} iterations")

        if method == "cg-sense":
            return sense.conjugate_gradients(encoding, iterations, weight, tick), None
        if method == "tv":
            return compressed_sensing.total_variation(encoding, weight, iterations, tick), None
        return compressed_sensing.l1_wavelet(encoding, weight, iterations, tick), None

    return solver


def _maps(calibration: ComplexArray, shape: tuple[int, int], espirit: bool) -> ComplexArray:
    """Maps of a plane; low-resolution ones where the block is too small for ESPIRiT."""
    if min(calibration.shape) == 0:
        raise ReconstructionError(
            "coil maps need a fully sampled centre of k-space, and none was acquired: send calibration lines"
        )
    if espirit and min(calibration.shape[1:]) >= sensitivity.ESPIRIT_SIDE:
        return sensitivity.espirit(calibration, shape)
    return sensitivity.low_resolution(calibration, shape)
