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
