"""Scans beside metal from raw data to picture: slices put in place, tilted views, bins, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import Cancelled, ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.collect import Collector, collector
from IntraopMRIReconstructionLib.reconstruct.corrections import Corrections
from IntraopMRIReconstructionLib.reconstruct.methods import Options
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make, quantity_of
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.simulate.metal_scans import INSERTS, metal_scan
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan
from IntraopMRIReconstructionLib.wire.mrd_file import MrdReader, write_mrd


def collected(scan: RawScan, **changes: Any) -> Collector:
    made = collector(replace(scan.encoding, **changes))
    for block in scan.blocks:
        made.add(block)
    return made


@cache
def scanned(steps: int = 8, tilted: bool = True, acceleration: int = 1) -> RawScan:
    return metal_scan(steps=steps, tilted=tilted, acceleration=acceleration)


@cache
def without_metal() -> Reconstruction:
    inserts = tuple(replace(insert, hz=0.0) for insert in INSERTS)
    return make(collected(metal_scan(steps=1, tilted=False, inserts=inserts)), Wanted())


def error(result: Reconstruction) -> float:
    """Against the picture without any off-resonance; the brightness of the whole is free."""
    found, truth = result.image.array, without_metal().image.array
    found = found * float((found * truth).sum() / (found**2).sum())
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def test_each_remedy_takes_its_part_of_the_error_away() -> None:
    plain, tilted, encoded, both = (
        error(make(collected(scanned(steps, tilted)), Wanted()))
        for steps, tilted in ((1, False), (1, True), (8, False), (8, True))
    )
    assert plain > 0.19
    assert tilted < 0.98 * plain
    assert encoded < 0.5 * plain
    assert both < 0.25 * plain


def test_the_header_chooses_and_the_reason_says_so() -> None:
    result = make(collected(scanned()), Wanted())
    assert result.method == "SEMAC (fft)"
    assert "the header names 8 steps of slice encoding" in result.reason
    assert "a view tilted by 27°, whose blur of 2.0 mm was undone" in result.reason
    assert result.warnings == ()
    assert result.parameters["covered_mm"] == 14.0
    assert float(result.image.metadata["slice_covered_mm"]) == 14.0
    assert result.image.metadata["quantity"] == "magnitude"
    assert result.image.metadata["slice_hz_per_mm"] == "250"


def test_signal_lies_in_the_slices_of_its_truth() -> None:
    result, plain = (make(collected(scanned(steps)), Wanted()).image.array for steps in (8, 1))
    hz, ideal = scanned().truth.hz, without_metal().image.array
    assert hz is not None
    on_resonance = (hz == 0).all(axis=0) & (ideal > 0.3 * ideal.max()).all(axis=0)
    for insert in INSERTS:
        inside = hz == insert.hz
        disc = inside.any(axis=0)
        errors = []
        for array in (result, plain):
            # As bright, against what is on resonance, as it is without metal; in its slices and in those beside.
            ratio = array / np.median(array[:, on_resonance] / ideal[:, on_resonance]) / ideal
            errors.append([abs(float(np.median(ratio[number][disc])) - 1) for number in range(1, 7)])
        put_back, moved = np.array(errors)
        # Signal that was moved by half a plane comes in two halves, whose root of squares is 0.7 of the whole.
        assert put_back.max() < 0.35
        assert moved.max() > 0.5
        assert put_back.mean() < 0.3 * moved.mean()


def test_accelerated_steps_share_their_weights() -> None:
    result = make(collected(scanned(acceleration=2)), Wanted())
    assert result.method == "SEMAC (grappa)"
    assert error(result) < 0.08


def test_one_step_alone_is_chosen_by_hand_and_says_that_it_is_none() -> None:
    scan = collected(scanned())
    assert quantity_of(Wanted(contrast=4), scan.encoding) == "image"
    alone = make(scan, Wanted(contrast=4))
    assert any("one of 8 steps of slice encoding alone" in text for text in alone.warnings)
    assert quantity_of(Wanted("temperature"), scan.encoding) == "temperature"


def test_the_blur_is_left_when_asked_and_said() -> None:
    quiet = make(collected(metal_scan(steps=1, inserts=())), Wanted(options=Options(deblur_view=False)))
    sharp = make(collected(metal_scan(steps=1, inserts=())), Wanted())
    straight = make(collected(metal_scan(steps=1, tilted=False, inserts=())), Wanted())
    left, undone = (float(np.linalg.norm(each.image.array - straight.image.array)) for each in (quiet, sharp))
    assert undone < 0.3 * left
    assert any("blurred by 2.0 mm along the readout" in text for text in quiet.warnings)
    assert not any("blurred" in text for text in sharp.warnings)
    with pytest.raises(ReconstructionError, match="tilted view"):
        make(collected(scanned(1)), Wanted(options=Options(snr_units=True)))


def test_from_a_file_as_it_is_live(tmp_path: Path, directions: np.ndarray) -> None:
    """What the header says of metal survives MRD; the picture is the same in every orientation."""
    scan = scanned()
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([3.75, 3.75, 4.0])
    turned = replace(scan, encoding=replace(scan.encoding, ras_from_ijk=matrix))
    write_mrd(tmp_path / "semac.h5", turned.encoding, turned.blocks)
    with MrdReader(tmp_path / "semac.h5") as reader:
        read = collector(reader.encoding)
        for block in reader.blocks(64):
            read.add(block)
    result = make(read, Wanted())
    live = make(collected(turned), Wanted())
    assert result.reason == live.reason
    assert result.image.metadata["readout_hz_per_mm"] == live.image.metadata["readout_hz_per_mm"]
    # A stack that is stored the other way round is turned round by the reader.
    flip = float(result.image.ras_from_ijk[:3, 2] @ matrix[:3, 2]) < 0
    array = result.image.array[::-1] if flip else result.image.array
    np.testing.assert_allclose(array, live.image.array, rtol=1e-3, atol=1e-3)


def test_corrections_of_a_combined_picture() -> None:
    result = make(collected(scanned()), Wanted(corrections=Corrections(bias="quick")))
    assert "bias field" in result.provenance["corrections"]
    assert result.method == "SEMAC (fft)"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"semac_fov_mm": "wide"}, "must be a length in mm, got 'wide'"),
        ({"semac_fov_mm": "0"}, "must be a length"),
        ({"semac_fov_mm": "48"}, "planes as far apart as the slices"),
        ({"vat_tilt_deg": "95"}, "tilted by less than 80"),
        ({"bin_centres_hz": "a b c d e f g h", "semac_fov_mm": ""}, "must be numbers in Hz"),
    ],
)
def test_headers_that_cannot_be(changed: dict[str, str], message: str) -> None:
    metadata = {k: v for k, v in {**scanned().encoding.metadata, **changed}.items() if v}
    with pytest.raises(ReconstructionError, match=message):
        make(collected(scanned(), metadata=metadata), Wanted())


def test_steps_that_did_not_come_and_methods_without_phase() -> None:
    scan = scanned()
    half = replace(scan, blocks=scan.blocks[: len(scan.blocks) // 2])
    with pytest.raises(ReconstructionError, match="has no line yet"):
        make(collected(half), Wanted())
    with pytest.raises(ReconstructionError, match="keeps no phase"):
        make(collected(scan), Wanted(method="l1-wavelet"))


def test_stops_when_told() -> None:
    with pytest.raises(Cancelled):
        make(collected(scanned()), Wanted(), lambda fraction, _what: fraction < 0.5)


def spoiled(number: int, lines: Any, value: float) -> RawScan:
    """The scan with ``value`` in some lines of one of its blocks."""
    scan = scanned()
    samples = scan.blocks[number].samples.copy()
    samples[lines] = value
    return replace(
        scan, blocks=tuple(replace(b, samples=samples) if n == number else b for n, b in enumerate(scan.blocks))
    )


def test_lost_lines_of_a_step_are_said_and_cost_little() -> None:
    result = make(collected(spoiled(3, [2, 60], np.nan)), Wanted())
    assert any("2 lines left out because they carry NaN" in text for text in result.warnings)
    assert error(result) < error(make(collected(scanned()), Wanted())) + 0.02
    with pytest.raises(ReconstructionError, match="keeps no phase"):
        make(collected(spoiled(3, 32, np.nan)), Wanted())


def test_lines_that_come_twice_and_steps_that_are_none() -> None:
    scan = scanned()
    twice = collected(replace(scan, blocks=(scan.blocks[0], *scan.blocks)))
    result = make(twice, Wanted())
    assert any("lines came twice: the first was kept" in text for text in result.warnings)
    np.testing.assert_allclose(result.image.array, make(collected(scan), Wanted()).image.array, rtol=1e-4, atol=1e-5)
    with pytest.raises(ReconstructionError, match=r"contrast must be within 0\.\.7"):
        collected(replace(scan, blocks=(*scan.blocks, replace(scan.blocks[0], contrast=8))))
