"""Echo-planar imaging: samples taken on gradient ramps, and the ghost of lines read forwards and backwards.

Sources: Bruder et al., Magn Reson Med 23:311 (1992) for ramp sampling; Ahn and Cho, IEEE Trans Med Imaging 6:32 (1987)
for the linear phase from its autocorrelation; Clare, ISMRM 2003, 1041 for the entropy of the image, which is blind to a
shift of the ghost by half the field of view: :func:`ghost_from_entropy` says how it was decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace, kspace_from_image

#: Tikhonov weight of regridding relative to its largest singular value: ramps sample the middle more densely.
REGRID_WEIGHT = 1e-3
#: The slope is searched within so many radians over the field of view, a delay of one sample between both directions.
MAX_SLOPE = 2 * np.pi
#: Grid of the entropy search over offset (0..pi) and slope.
OFFSETS, SLOPES = 16, 33
#: Channels that carry the search; more only take time.
SEARCH_CHANNELS = 4
#: Share of the field of view at each end of the phase encoding that shows air when the object lies inside it.
RIM_SHARE = 1 / 24
#: The better of the two positions must fit by so much more to be called sure: correlation with a reference, or
#: brightness at the rim over that of the whole, which is about 1 where an object lies across the rim.
SURE_MARGIN, SURE_RIM = 0.05, 0.5


#: Readouts sample at least this part of their gradient; most of them all of it, or its flat top.
LEAST_SAMPLED = 0.4


@dataclass(frozen=True)
class Trapezoid:
    """Readout gradient: ``ramp_s`` up, ``flat_s`` at full strength, ``ramp_s`` down; sampling starts ``delay_s`` after
    the ramp begins, one sample every ``dwell_s``."""

    ramp_s: float
    flat_s: float
    dwell_s: float
    samples: int
    delay_s: float = 0.0

    def positions(self, matrix: int) -> npt.NDArray[np.float64]:
        """k of each sample in cycles per field of view, centre of the gradient at 0, for a readout that reaches
        ``matrix`` / 2 at the ends of the sampling. Raises ReconstructionError when it samples beyond the gradient."""
        times = self.delay_s + (np.arange(self.samples) + 0.5) * self.dwell_s
        whole = 2 * self.ramp_s + self.flat_s
        if min(self.ramp_s, self.flat_s, self.delay_s) < 0 or times[-1] > whole or self.samples < 2:
            raise ReconstructionError(
                f"{self.samples} samples of {self.dwell_s} s from {self.delay_s} s do not fit a gradient of {whole} s"
            )
        if self.samples * self.dwell_s < LEAST_SAMPLED * whole:
            raise ReconstructionError(
                f"{self.samples} samples of {self.dwell_s} s are only a part of a gradient of {whole} s: check "
                "rampUpTime, flatTopTime and dwellTime in the header"
            )
        area = self._area(np.asarray(times)) - self._area(np.array([whole / 2]))
        edges = self._area(self.delay_s + np.array([0, self.samples]) * self.dwell_s)
        return np.asarray(area * (matrix / (edges[1] - edges[0])))

    def _area(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Gradient area up to ``times``, in seconds at full strength."""
        ramp, end = self.ramp_s, self.ramp_s + self.flat_s
        up = np.clip(times, 0, ramp)
        down = np.clip(times - end, 0, ramp)
        rise = up**2 / (2 * ramp) if ramp > 0 else 0 * times
        fall = down - (down**2 / (2 * ramp) if ramp > 0 else 0 * times)
        return np.asarray(rise + np.clip(times - ramp, 0, self.flat_s) + fall)


def regridding(positions: npt.NDArray[np.float64], matrix: int) -> ComplexArray:
    """(matrix, samples) that brings readout samples at ``positions`` (cycles per field of view) onto the grid.

    The image that explains the samples best, transformed to the grid. Raises ReconstructionError when there are fewer
    samples than voxels or they leave gaps.
    """
    distance = np.diff(np.sort(positions)).max() if len(positions) > 1 else np.inf
    if len(positions) < matrix or distance > 1.5:
        raise ReconstructionError(
            f"{len(positions)} samples, at most {distance:.2g} cycles apart, cannot make {matrix} voxels: sample longer"
        )
    n = np.arange(matrix) - matrix // 2
    encode = np.exp(-2j * np.pi * np.outer(positions, n) / matrix) / np.sqrt(matrix)
    left, values, right = np.linalg.svd(encode, full_matrices=False)
    decode = (right.conj().T * (values / (values**2 + (REGRID_WEIGHT * values[0]) ** 2))) @ left.conj().T
    return np.asarray(kspace_from_image(decode, (0,)), dtype=np.complex64)


@dataclass(frozen=True)
class Ghost:
    """Phase ``offset_rad + slope_rad * x`` of backward against forward lines, x from -1/2 to 1/2 across the readout.

    ``sure``: False when nothing decided between ``offset_rad`` and a ghost shifted by half the field of view;
    ``how`` says in words what decided."""

    offset_rad: float
    slope_rad: float
    sure: bool
    how: str

    def phase(self, size: int) -> npt.NDArray[np.float64]:
        """The phase at each of ``size`` voxels of the readout."""
        return self.offset_rad + self.slope_rad * ((np.arange(size) - size // 2) / size)


def ghost_from_navigators(forward: ComplexArray, backward: ComplexArray) -> Ghost:
    """Ghost from lines at ky = 0 (coils, lines, x), on the grid and with backward lines already turned round.

    Lines of one direction are averaged, so that of three (forward, backward, forward) the drift between cancels.
    Raises ReconstructionError when shapes disagree or there is no signal.
    """
    if forward.ndim != 3 or forward.shape[::2] != backward.shape[::2] or 0 in (*forward.shape, *backward.shape):
        raise ReconstructionError(
            f"navigators must have shape (coils, lines, x) with the same coils and x, got {forward.shape} and "
            f"{backward.shape}"
        )
    ahead, back = (image_from_kspace(lines.mean(axis=1), (-1,)) for lines in (forward, backward))
    product = np.sum(back * ahead.conj(), axis=0)
    if not np.isfinite(product).all() or not np.any(product):
        raise ReconstructionError("the navigators carry no signal: use the entropy search")
    x = (np.arange(len(product)) - len(product) // 2) / len(product)
    slope = float(np.angle(np.sum(product[1:] * product[:-1].conj()))) * len(product)
    offset = float(np.angle(np.sum(product * np.exp(-1j * slope * x))))
    for _ in range(3):  # the autocorrelation is quick and rough; least squares on what it leaves
        left = np.angle(product * np.exp(-1j * (offset + slope * x)))
        strength = np.abs(product)
        more = np.linalg.lstsq(np.stack([strength, strength * x], axis=1), strength * left, rcond=None)[0]
        offset, slope = offset + float(more[0]), slope + float(more[1])
    return Ghost(float(np.angle(np.exp(1j * offset))), slope, True, "navigators")


def ghost_from_entropy(
    kspace: ComplexArray, backward: npt.NDArray[np.bool_], reference: npt.NDArray[Any] | None = None
) -> Ghost:
    """Ghost of ``kspace`` (coils, ky, x) whose lines ``backward`` (ky,) were read backwards and turned round.

    Takes the sharpest image. Two offsets, pi apart, are equally sharp and show the object half a field of view apart:
    ``reference``, a magnitude (y, x) of the same plane, decides; without, the one with less signal at the ends of the
    phase encoding, where air is. ``sure`` is False when the two hardly differ. Raises ReconstructionError for
    wrong shapes.
    """
    _check(kspace, backward)
    _, ky, x = kspace.shape
    if reference is not None and reference.shape != (ky, x):
        raise ReconstructionError(f"the reference image must have shape {(ky, x)}, got {reference.shape}")
    strongest = np.argsort(-np.sum(np.abs(kspace) ** 2, axis=(1, 2)))[:SEARCH_CHANNELS]
    chosen = kspace[strongest]
    ahead = image_from_kspace(chosen * ~backward[:, None], (-2, -1))
    back = image_from_kspace(chosen * backward[:, None], (-2, -1))
    where = (np.arange(x) - x // 2) / x

    def magnitude(offset: float, slope: float) -> npt.NDArray[np.float64]:
        image = ahead + back * np.exp(-1j * (offset + slope * where)).astype(np.complex64)
        return np.asarray(np.sqrt(np.sum(image.real**2 + image.imag**2, axis=0)), np.float64)

    def entropy(parameters: npt.NDArray[np.float64]) -> float:
        share = magnitude(parameters[0], parameters[1])
        share = share / np.sqrt(np.sum(share**2)) + 1e-12
        return -float(np.sum(share * np.log(share)))

    grid = [
        (entropy(np.array([a, b])), a, b)
        for a in np.arange(OFFSETS) * np.pi / OFFSETS
        for b in np.linspace(-MAX_SLOPE, MAX_SLOPE, SLOPES)
    ]
    _, a, b = min(grid)
    found = minimize(entropy, np.array([a, b]), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9})
    a, b = (float(value) for value in found.x)
    fits = [_fit(magnitude(offset, b), reference) for offset in (a, a + np.pi)]
    offset = a if fits[0] >= fits[1] else a + np.pi
    by = "the air at the ends of the field of view" if reference is None else "the reference image"
    sure = abs(fits[0] - fits[1]) > (SURE_RIM if reference is None else SURE_MARGIN)
    how = f"entropy, position by {by}" + ("" if sure else ", which hardly decides: it may be off by half the field")
    return Ghost(float(np.angle(np.exp(1j * offset))), b, sure, how)


def without_ghost(kspace: ComplexArray, backward: npt.NDArray[np.bool_], ghost: Ghost) -> ComplexArray:
    """``kspace`` (coils, ky, x) whose lines ``backward`` (ky,) agree with the forward ones."""
    _check(kspace, backward)
    lines = image_from_kspace(kspace[:, backward], (-1,))
    lines *= np.exp(-1j * ghost.phase(kspace.shape[2])).astype(np.complex64)
    result = kspace.copy()
    result[:, backward] = kspace_from_image(lines, (-1,))
    return result


def _fit(magnitude: npt.NDArray[np.float64], reference: npt.NDArray[Any] | None) -> float:
    """How well a picture lies where the object is known to be: at most 1."""
    if reference is not None:
        return float(np.corrcoef(magnitude.ravel(), np.abs(reference).ravel())[0, 1])
    along = (magnitude**2).sum(axis=1)
    rim = max(1, round(len(along) * RIM_SHARE))
    return 1.0 - float(np.concatenate([along[:rim], along[-rim:]]).mean() / max(float(along.mean()), 1e-30))


def _check(kspace: ComplexArray, backward: npt.NDArray[np.bool_]) -> None:
    if kspace.ndim != 3 or backward.shape != (kspace.shape[1],):
        raise ReconstructionError(
            f"EPI k-space must have shape (coils, ky, x) with a direction for each ky, got {kspace.shape} and "
            f"{backward.shape}"
        )
    if not backward.any() or backward.all():
        raise ReconstructionError("all EPI lines have one direction: there is no ghost to correct, check the flags")
    if not np.isfinite(kspace).all():
        raise ReconstructionError("EPI k-space has NaN or infinite values")
