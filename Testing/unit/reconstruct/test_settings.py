"""What a person may choose is used where it is said to be used, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import KSpace
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.methods import METHODS, Options, Seen, used
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan, multi_echo_scan, radial_scan

#: Of each option a value that no method takes by itself; the same of all, so that they can be compared.
OTHER: dict[str, Any] = {
    "combination": "walsh",
    "iterations": 1,
    "weight": 0.05,
    "partial_fourier": "pocs",
    "snr_units": True,
    "delays": False,
}
ROWS = ["auto", *(name for name, method in METHODS.items() if "cartesian" in method.trajectories)]


def frame_of(plane: Any, kind: str, lost: tuple[int, ...] = ()) -> KSpace:
    mask = np.arange(96) >= (0 if kind == "whole" else 36)
    mask[list(lost)] = False
    frame: KSpace = plane.frame(mask)
    return replace(frame, whitened=kind != "coloured")


def made(frame: Any, method: str, options: Options) -> Any:
    try:
        return reconstruct(frame, method, options=options).image.array
    except ReconstructionError as error:
        return str(error)


def changed_by(frame: Any, method: str, start: Options) -> set[str]:
    """Options of which another value makes another image; those that are refused make none."""
    plain, found = made(frame, method, start), set()
    for name, value in OTHER.items():
        other = made(frame, method, replace(start, **{name: value}))
        if not isinstance(other, str) and not np.array_equal(other, plain):
            found.add(name)
    return found


@pytest.mark.parametrize("method", ROWS)
@pytest.mark.parametrize("kind", ["whole", "one side", "coloured"])
@pytest.mark.parametrize("start", [Options(), Options(combination="inati"), Options(partial_fourier="none")])
def test_rows(plane: Any, method: str, kind: str, start: Options) -> None:
    iterative = method != "auto" and METHODS[method].iterative
    # With every line there, cg-sense is done at once.
    frame = frame_of(plane, kind, (50, 60, 77) if iterative else ())
    start = replace(start, iterations=4) if iterative else start
    seen = reconstruct(frame, method, options=start).seen
    assert seen is not None
    assert changed_by(frame, method, start) == used(method, "cartesian", start, seen)
    assert used(method, "cartesian", start, seen) <= used(method, "cartesian", start), "may, until it is known"


@pytest.mark.parametrize("method", ["auto", "gridding", "iterative-sense"])
def test_spokes(method: str) -> None:
    frame = kspace(radial_scan(32, 4, 20, delays=(0.4, 0.2)))
    seen = reconstruct(frame, method).seen
    assert changed_by(frame, method, Options()) == used(method, "radial", Options(), seen)


def kspace(scan: RawScan) -> Any:
    return collected(scan).kspace()


def collected(scan: RawScan) -> Any:
    frames = collector(scan.encoding)
    for block in scan.blocks:
        frames.add(block)
    return frames


def test_spokes_in_three_directions_take_nothing() -> None:
    assert used("iterative-sense", "radial", Options(), Seen(ball=True)) == frozenset()


def test_auto_completes_as_a_person_says(plane: Any) -> None:
    frame = frame_of(plane, "one side")
    assert reconstruct(frame).method == "homodyne"
    pocs = reconstruct(frame, options=Options(partial_fourier="pocs"))
    assert pocs.method == "pocs"
    assert "chosen by hand" in pocs.reason
    np.testing.assert_array_equal(pocs.image.array, reconstruct(frame, "pocs").image.array)
    left = reconstruct(frame, options=Options(partial_fourier="none"))
    assert left.method == "fft"
    assert "left out" in left.reason
    assert any("blurred" in text for text in left.warnings)
    np.testing.assert_array_equal(left.image.array, reconstruct(frame, "fft").image.array)


def test_a_method_that_completes_by_its_name_does(plane: Any) -> None:
    frame = frame_of(plane, "one side")
    named = reconstruct(frame, "homodyne", options=Options(partial_fourier="none"))
    assert named.parameters["partial_fourier"] == "homodyne"
    np.testing.assert_array_equal(named.image.array, reconstruct(frame, "homodyne").image.array)
    assert reconstruct(frame, "sense", options=Options(partial_fourier="none")).parameters["partial_fourier"] == "none"


@pytest.mark.parametrize("quantity", ["field map", "spectral bins"])
def test_what_is_made_of_several_images_has_no_snr_units(quantity: Any) -> None:
    scan = multi_echo_scan(32, 4)
    scan = replace(scan, encoding=replace(scan.encoding, metadata={"bin_centres_hz": "-1000 0 1000"}))
    with pytest.raises(ReconstructionError, match="made of several"):
        make(collected(scan), Wanted(quantity, options=Options(snr_units=True)))
    shown = make(collected(scan), Wanted(quantity, "sense")).provenance["parameters"]
    assert "combination=low-resolution maps" in shown
