from __future__ import annotations

from typing import Any

import pytest
from IntraopMRILib.assess.resection import extent_of_resection, rano_class
from IntraopMRIReconstructionLib.errors import AssessmentError


@pytest.mark.parametrize(
    ("ce", "nce", "expected"),
    [
        (0.0, 5.0, "1"),
        (0.0, 5.1, "2A"),
        (0.0, None, "1 or 2A"),
        (0.01, None, "2B"),
        (1.0, 9.0, "2B"),
        (1.01, None, "3A"),
        (5.0, None, "3A"),
        (5.01, None, "3B"),
        (30.0, None, "4"),
        (31.0, None, "4"),
    ],
)
def test_rano_classes_at_their_limits(ce: Any, nce: Any, expected: Any) -> None:
    assert rano_class(ce, 30.0, nce_cm3=nce).value == expected


def test_rano_names_the_range_that_the_interval_allows() -> None:
    rano = rano_class(0.9, 30.0, (0.0, 1.4))
    assert (rano.value, rano.best, rano.worst) == ("2B", "1 or 2A", "3A")
    assert "1 or 2A to 3A" in rano.text
    assert rano_class(0.9, 30.0, (0.5, 1.0)).text == "RANO class 2B"


def test_extent_of_resection_turns_the_interval_round() -> None:
    eor = extent_of_resection(20.0, 1.0, (0.5, 2.0))
    assert eor.value == pytest.approx(95.0)
    assert eor.interval == pytest.approx((90.0, 97.5))


def test_extent_of_the_non_enhancing_part_is_named() -> None:
    eor = extent_of_resection(40.0, 10.0, None, of="non-enhancing tumour (FLAIR)")
    assert eor.name == "Extent of resection, non-enhancing tumour (FLAIR)"
    assert "non-enhancing tumour (FLAIR)" in eor.definition
    assert eor.value == pytest.approx(75.0)


def test_nothing_to_resect_is_an_error() -> None:
    with pytest.raises(AssessmentError, match="segment the tumour"):
        extent_of_resection(0.0, 0.0, None)
    with pytest.raises(AssessmentError, match="negative"):
        rano_class(-0.1, 10.0)
