"""The proposal of what is left of non-enhancing tumour, on heads made from distance functions with known truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from peers.low_grade import dice, operated


@pytest.mark.parametrize(
    ("left", "kind", "way", "spacing"),
    [
        (1.0, "FLAIR", "RAS", (1.6, 1.6, 1.6)),
        (0.5, "FLAIR", "oblique", (1.6, 1.6, 1.6)),
        (0.5, "FLAIR", "LPS", (1.0, 1.0, 4.0)),
        (0.5, "T2", "LAS", (1.6, 1.6, 1.6)),
    ],
)
def test_what_is_left_is_found_in_any_orientation(left: float, kind: str, way: str, spacing: Any) -> None:
    head = operated(left, kind, way, spacing=spacing)
    found = head.propose()
    assert found.sequence == kind
    assert dice(found.label.array > 0, head.left) > 0.85
    low, high = found.volume.interval or (np.nan, np.nan)
    assert low <= head.left_cm3 <= high
    assert found.volume.value == pytest.approx(head.left_cm3, rel=0.15)
    assert "not reviewed" in found.volume.name
    assert "cannot be told" in found.rests_on


@pytest.mark.parametrize("kind", ["FLAIR", "T2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_after_a_complete_resection_nothing_is_proposed_and_the_rim_is_open(kind: str, seed: int) -> None:
    head = operated(0.0, kind, seed=seed, swollen_mm=3.0)
    found = head.propose()
    assert float((found.label.array > 0).sum()) * head.scan.voxel_volume_ml < 0.1
    assert found.volume.interval is not None
    assert found.volume.interval[0] == 0.0
    assert found.open.array.any()
    assert found.volume.interval[1] > 0.5, "what surgery made bright cannot be told from tumour"


def test_a_small_residual_lies_in_the_interval() -> None:
    head = operated(0.1)
    found = head.propose()
    low, high = found.volume.interval or (np.nan, np.nan)
    assert low <= head.left_cm3 <= high
    assert dice(found.label.array > 0, head.left) > 0.7


def test_without_a_flair_from_before_the_scan_alone_tells_and_says_so() -> None:
    head = operated(0.5)
    found = head.propose(flair=None)
    assert dice(found.label.array > 0, head.left) > 0.85
    assert "in the scan alone" in found.rests_on
    itself = head.propose(preop=head.flair, flair=None)
    assert "'FLAIR before'" in itself.rests_on


@pytest.mark.parametrize("factor", [1.0, 300.0])
@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_neither_gain_nor_shading_matters(factor: float, bias: float) -> None:
    head = operated(0.5, bias=bias, noise=0.05)
    found = head.propose(scan=head.scan.with_array(head.scan.array * np.float32(factor)))
    assert dice(found.label.array > 0, head.left) > 0.85


def test_other_scans_give_no_proposal() -> None:
    t1 = operated(0.5, "T1")
    with pytest.raises(AssessmentError, match="does not look like T2 or FLAIR beside 'FLAIR before'"):
        t1.propose()
    with pytest.raises(AssessmentError, match="does not look like T2 or FLAIR beside 'T1 before'"):
        t1.propose(flair=None)
    head = operated(0.5)
    flat = np.random.default_rng(0).normal(500, 20, head.scan.array.shape).astype(np.float32)
    with pytest.raises(AssessmentError, match="cannot be told"):
        head.propose(scan=head.scan.with_array(flat))
    with pytest.raises(AssessmentError, match="not 16 % brighter than its surroundings"):
        head.propose(flair=head.preop)
    with pytest.raises(AssessmentError, match="outside the scan 'FLAIR now'"):
        head.propose(scan=replace(head.scan, array=head.scan.array[:40]))
    with pytest.raises(AssessmentError, match="finite"):
        head.propose(scan=head.scan.with_array(np.full(head.scan.array.shape, np.nan, np.float32)))


def test_an_outline_or_a_registration_that_cannot_be_gives_no_proposal() -> None:
    head = operated(0.5)
    plain = head.tumour.with_array((head.tumour.array > 0).astype(np.uint8))
    with pytest.raises(AssessmentError, match="no non-enhancing part"):
        head.propose(tumour=plain)
    for beside, words in ((-45.0, "neither bright|correlate"), (-95.0, "outside")):
        with pytest.raises(AssessmentError, match=words):
            head.propose(intraop_from_preop=lambda points, mm=beside: head.carried(points) + np.array([0, mm, 0]))
    with pytest.raises(AssessmentError, match="error_mm"):
        head.propose(error_mm=np.nan)
    with pytest.raises(Cancelled):
        head.propose(progress=lambda _fraction, _what: False)
