"""What a person may choose: the methods with the trajectories that each of them reconstructs, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ..data import Trajectory
from ..errors import ReconstructionError

Combination = Literal["rss", "walsh", "inati", "espirit"]
Ghost = Literal["auto", "navigators", "entropy", "none"]

#: Readouts that fill rows of a Cartesian matrix, and readouts that carry their own way through k-space.
ROWS: tuple[Trajectory, ...] = ("cartesian", "epi")
SHOTS: tuple[Trajectory, ...] = ("radial", "spiral")


@dataclass(frozen=True)
class Method:
    """``trajectories``: what it reconstructs. ``iterative``: whether :attr:`Options.iterations` means something."""

    trajectories: tuple[Trajectory, ...]
    iterative: bool = False


#: What :func:`.auto.reconstruct` accepts besides "auto".
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "fft": Method(ROWS),
        "homodyne": Method(ROWS),
        "pocs": Method(ROWS),
        "grappa": Method(ROWS),
        "sense": Method(ROWS),
        "cg-sense": Method(ROWS, iterative=True),
        "l1-wavelet": Method(ROWS, iterative=True),
        "tv": Method(ROWS, iterative=True),
        "gridding": Method(SHOTS),
        "iterative-sense": Method(SHOTS, iterative=True),
    }
)


@dataclass(frozen=True)
class Options:
    """What a person may override. None takes the method's own value.

    ``combination``: how coils are combined by method fft. ``iterations``, ``weight``: of iterative methods, see
    :mod:`.compressed_sensing` and :mod:`.sense`. ``partial_fourier``: how a missing side is completed, after any
    method. ``snr_units``: scale to units of noise (needs noise lines) and add the g-factor where it is known.
    ``delays``: whether the gradient delays of a radial scan are looked for. ``ghost``: where the difference between
    forward and backward lines of an EPI scan is taken from; auto prefers navigators. ``deblur_view``: whether the
    blur of a tilted view (VAT, beside metal) is undone.
    """

    combination: Combination = "rss"
    iterations: int | None = None
    weight: float | None = None
    partial_fourier: Literal["homodyne", "pocs", "none"] = "homodyne"
    snr_units: bool = False
    delays: bool = True
    ghost: Ghost = "auto"
    deblur_view: bool = True

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise ReconstructionError(f"a method needs at least one iteration, got {self.iterations}")
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise ReconstructionError(f"the weight of a method must be a number from 0, got {self.weight}")


def methods_for(trajectory: Trajectory) -> tuple[str, ...]:
    """Names of the methods that reconstruct a trajectory."""
    return tuple(name for name, method in METHODS.items() if trajectory in method.trajectories)


def check(method: str, trajectory: Trajectory) -> None:
    """Raise ReconstructionError when ``method`` is unknown or not for this trajectory."""
    if method == "auto":
        return
    if method not in METHODS:
        raise ReconstructionError(f"method must be auto or one of {', '.join(METHODS)}, got '{method}'")
    if trajectory not in METHODS[method].trajectories:
        raise ReconstructionError(
            f"method '{method}' does not reconstruct a {trajectory} scan: choose auto or one of "
            f"{', '.join(methods_for(trajectory))}"
        )
