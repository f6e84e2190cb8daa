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
Completion = Literal["auto", "homodyne", "pocs", "none"]

#: Readouts that fill rows of a Cartesian matrix, and readouts that carry their own way through k-space.
ROWS: tuple[Trajectory, ...] = ("cartesian", "epi")
SHOTS: tuple[Trajectory, ...] = ("radial", "spiral")


@dataclass(frozen=True)
class Method:
    """``trajectories``: what it reconstructs. ``iterative``, ``weighted``: whether :attr:`Options.iterations` and
    :attr:`Options.weight` mean something. ``quiet``: whether the noise of its images is known, for SNR units."""

    trajectories: tuple[Trajectory, ...]
    iterative: bool = False
    weighted: bool = False
    quiet: bool = False


#: What :func:`.auto.reconstruct` accepts besides "auto".
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "fft": Method(ROWS, quiet=True),
        "homodyne": Method(ROWS),
        "pocs": Method(ROWS),
        "grappa": Method(ROWS, quiet=True),
        "sense": Method(ROWS, quiet=True),
        "cg-sense": Method(ROWS, iterative=True, weighted=True),
        "l1-wavelet": Method(ROWS, iterative=True, weighted=True),
        "tv": Method(ROWS, iterative=True, weighted=True),
        "gridding": Method(SHOTS),
        "iterative-sense": Method(SHOTS, iterative=True),
    }
)
#: Methods that are themselves a way to complete a missing side of k-space.
COMPLETING = ("homodyne", "pocs")


@dataclass(frozen=True)
class Options:
    """What a person may override. None takes the method's own value.

    ``combination``: how coils are combined by method fft. ``iterations``, ``weight``: of iterative methods, see
    :mod:`.compressed_sensing` and :mod:`.sense`. ``partial_fourier``: how a missing side is completed, after any
    method that does not say so by its name; auto is homodyne, and POCS for two sides. Of method auto it may turn
    homodyne into pocs, and none turns both into fft. ``snr_units``: scale to units of noise (needs noise lines) and add
    the g-factor where it is known. ``delays``: whether the gradient delays of a radial scan are looked for. ``ghost``:
    where the difference between forward and backward lines of an EPI scan is taken from; auto prefers navigators.
    ``deblur_view``: whether the blur of a tilted view (VAT, beside metal) is undone.
    """

    combination: Combination = "rss"
    iterations: int | None = None
    weight: float | None = None
    partial_fourier: Completion = "auto"
    snr_units: bool = False
    delays: bool = True
    ghost: Ghost = "auto"
    deblur_view: bool = True

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise ReconstructionError(f"a method needs at least one iteration, got {self.iterations}")
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise ReconstructionError(f"the weight of a method must be a number from 0, got {self.weight}")


@dataclass(frozen=True)
class Seen:
    """What lines show that no header promises. ``whitened``: the noise of the coils is known. ``one_sided``: a side of
    k-space is missing. ``ball``: spokes in all three directions. ``automatic``: what auto takes, "" when not known."""

    whitened: bool = False
    one_sided: bool = False
    ball: bool = False
    automatic: str = ""


def used(method: str, trajectory: Trajectory | None, options: Options, seen: Seen | None = None) -> frozenset[str]:
    """Names of the :class:`Options` that decide about an image made by ``method`` of such a scan.

    Those that may, while it is not known: ``trajectory`` without a scan, ``seen`` before its lines are there. Ghost and
    tilt follow from the header alone and are not looked at.
    """
    seen_or = seen or Seen(whitened=True, one_sided=True)
    names: tuple[str, ...] = (method,)
    if method == "auto":
        possible = METHODS if trajectory is None else methods_for(trajectory)
        names = (seen_or.automatic,) if seen_or.automatic else tuple(possible)
    found: set[str] = set()
    for name in names:
        # Asked for nothing to be completed, auto takes fft.
        if method == "auto" and name in COMPLETING and seen_or.one_sided:
            found.add("partial_fourier")
            if options.partial_fourier != "none":
                continue
            name = "fft"
        about = METHODS[name]
        if "cartesian" not in about.trajectories:
            if not seen_or.ball:
                found |= {"delays"} | ({"iterations"} if about.iterative else set())
            continue
        keeps_phase = name != "fft" or options.combination != "rss"
        completes = seen_or.one_sided and keeps_phase and name not in COMPLETING
        # Completing uses up what is known of the noise.
        whole = seen is None or not seen.one_sided
        quiet = whole or (about.quiet and (not completes or options.partial_fourier == "none"))
        found |= {
            option
            for option, yes in (
                ("combination", name == "fft"),
                ("iterations", about.iterative),
                ("weight", about.weighted),
                ("partial_fourier", completes),
                ("snr_units", seen_or.whitened and quiet and (about.quiet or name in COMPLETING)),
            )
            if yes
        }
    return frozenset(found)


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
