"""Known balls at the wall of a cavity whose enhancement climbs, stays and falls between two contrast scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import ORIENTATIONS
from IntraopMRILib.assess.course import Course, Trend, courses
from IntraopMRILib.assess.residual import ResidualAssessment, assess_residual
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from IntraopMRIReconstructionLib.geometry import apply

SIZE, TISSUE = 72, 75.0
#: Where the head lies in the scanner, RAS mm, and when the first scan was taken, POSIX seconds.
MIDDLE, BEGUN_S = np.array([12.0, -7.0, 31.0]), 1_700_000_000.0
#: Middle beside that of the cavity (RAS mm) and radius: tumour, a thick piece of wall, a vessel that was cut.
BALLS = (((0.0, -14.0, 0.0), 6.0), ((10.5, 0.0, 9.5), 4.5), ((-14.5, 0.0, 0.0), 4.0))
#: Signal that the agent adds to each in the two scans, and to a vessel through the head.
CURVES, BLOOD = ((36.0, 54.0), (36.0, 36.0), (66.0, 42.0)), (90.0, 75.0)
TRENDS = (Trend.CLIMBS, Trend.STAYS, Trend.FALLS)
Vector = tuple[float, float, float]


class Head:
    """Two contrast scans with gains of their own; ``moved``: how the patient lay in the first one beside the others."""

    def __init__(
        self,
        orientation: str = "oblique",
        curves: Sequence[tuple[float, float]] = CURVES,
        blood: tuple[float, float] = BLOOD,
        moved: Vector = (0.0, 0.0, 0.0),
        noise: float = 1.5,
        bias: float = 0.0,
        seed: int = 5,
    ) -> None:
        self.grid = np.eye(4)
        self.grid[:3, :3] = ORIENTATIONS[orientation]
        self.grid[:3, 3] = MIDDLE - self.grid[:3, :3] @ np.full(3, (SIZE - 1) / 2.0)
        k, j, i = np.indices((SIZE,) * 3)
        self.places = apply(self.grid, np.stack([i, j, k], axis=-1).astype(float)) - MIDDLE
        self._rng, self._noise, self._bias = np.random.default_rng(seed), noise, bias
        self.native = self.scan("native", (0.0, 0.0, 0.0), 0.0, 1.0, 0.0)
        self.first = self.scan("first", [c[0] for c in curves], blood[0], 1.3, 120.0, moved)
        self.newest = self.scan("newest", [c[1] for c in curves], blood[1], 0.8, 480.0)

    def scan(
        self, name: str, added: Sequence[float], blood: float, gain: float, taken_s: float, moved: Vector = (0.0,) * 3
    ) -> Image:
        at = self.places - moved
        parts = [ball(at, *one) for one in BALLS]
        head = ball(at, (0.0, 0.0, 0.0), 34.0)
        way = np.clip(0.5 - np.maximum(np.hypot(at[..., 0], at[..., 2]) - 5.0, -at[..., 1]), 0.0, 1.0)
        cavity = np.clip(np.maximum(ball(at, (0.0, 0.0, 0.0), 14.0), way) * head - np.max(parts, axis=0), 0.0, 1.0)
        grain = TISSUE * (1.0 + 0.06 * np.sin(0.5 * at[..., 0]) * np.sin(0.4 * at[..., 1]) * np.sin(0.6 * at[..., 2]))
        signal = (grain * (1.0 - cavity) + 25.0 * cavity) * head
        signal += blood * (np.hypot(at[..., 0] - 24.0, at[..., 2]) < 1.5) * head
        signal += sum(level * part for level, part in zip(added, parts, strict=True))
        signal *= np.exp(self._bias * (self.places @ self._rng.normal(size=3)) / 40.0)
        noise = self._rng.normal(size=signal.shape) + 1j * self._rng.normal(size=signal.shape)
        array = (gain * np.abs(signal + self._noise * noise)).astype(np.float32)
        return Image(array, self.grid, name, BEGUN_S + taken_s)

    def found(self) -> ResidualAssessment:
        """The residual on the newest scan."""
        lies = [ball(self.places, at, radius + 1.0) for at, radius in BALLS]
        mask = np.max([ball(self.places, (0.0, 0.0, 0.0), 15.5), *lies], axis=0) > 0.5
        tumour = Image(mask.astype(np.uint8), self.grid, "tumour")
        return assess_residual(self.newest, self.native, tumour, np.eye(4), 0.5)

    def courses(self) -> list[Course]:
        """Of each of BALLS."""
        pieces = self.found().listed
        made = courses(pieces, self.native, (self.first, self.newest))
        middles = [np.array(at) + MIDDLE for at, _ in BALLS]
        nearest = [min(pieces, key=lambda piece: float(np.linalg.norm(piece.at_ras_mm - at))) for at in middles]
        assert len({piece.number for piece in nearest}) == len(BALLS)
        return [made[piece.number] for piece in nearest]


def ball(places: np.ndarray, at: Vector, radius: float) -> np.ndarray:
    return np.asarray(np.clip(0.5 - (np.linalg.norm(places - at, axis=-1) - radius), 0.0, 1.0))


def check_truth(made: Sequence[Course]) -> None:
    """The change of each piece as part of its newest enhancement, which partial volume leaves as it is."""
    for course, (before, now) in zip(made, CURVES, strict=True):
        newest, change = course.enhancement[-1].value, course.change
        assert change.value is not None
        assert change.interval is not None
        assert newest is not None
        assert newest == pytest.approx(100.0 * now / TISSUE, rel=0.12)
        true = newest * (now - before) / now
        assert change.interval[0] < true < change.interval[1]
        assert change.value == pytest.approx(newest - (course.enhancement[0].value or 0.0))


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_tumour_climbs_the_wall_stays_a_vessel_falls(orientation: str) -> None:
    made = Head(orientation).courses()
    assert tuple(course.trend for course in made) == TRENDS
    check_truth(made)
    assert made[0].minutes == (0.0, 6.0)
    assert made[0].text.startswith("enhancement climbs: ")


def test_the_gain_of_the_scanner_and_its_coils_are_no_course() -> None:
    made = Head(bias=0.3).courses()
    assert tuple(course.trend for course in made) == TRENDS
    check_truth(made)


def test_a_motion_that_is_small_is_followed_and_widens_the_interval() -> None:
    still, made = Head().courses(), Head(moved=(0.3, -0.4, 0.2)).courses()
    check_truth(made)
    assert tuple(course.trend for course in made) == TRENDS
    for course, before in zip(made, still, strict=True):
        assert width(course) > 1.3 * width(before)


def test_a_scan_that_is_brought_over_is_blurred_and_that_is_no_climb() -> None:
    """Nothing changes; half a voxel away an interpolation takes most."""
    made = Head("RAS", ((45.0, 45.0),) * 3, (80.0, 80.0), (0.5, -0.5, 0.5), noise=0.3).courses()
    for course in made:
        assert course.trend is Trend.STAYS
        assert course.change.value == pytest.approx(0.0, abs=1.0)


def test_after_a_larger_motion_nothing_is_told() -> None:
    for course in Head(moved=(0.0, 1.6, 0.0)).courses():
        assert course.trend is Trend.OPEN
        assert course.change.value is None
        assert "moved 1." in course.change.missing_because
        assert not course.enhancement


@pytest.mark.parametrize(("minutes", "trend", "caution"), [
    (6.0, Trend.CLIMBS, ""), (12.0, Trend.CLIMBS, "after 10 min a climb is no sign of tumour"), (12.0, Trend.FALLS, ""),
])  # fmt: skip
def test_what_it_does_comes_first_and_a_late_climb_says_what_it_is_not(
    minutes: float, trend: Trend, caution: str
) -> None:
    at = tuple(Measurement("", value, "%", "") for value in (41.0, 55.0))
    course = Course((0.0, minutes), at, Measurement("", 14.0, "%", ""), trend)
    told = f"enhancement {trend.value}: 41 %, 55 % after {minutes:.0f} min"
    assert course.caution == caution
    assert course.text == (f"{told}; {caution}" if caution else told)


def test_where_noise_hides_the_change_it_cannot_be_told() -> None:
    """A tenth more of the enhancement: neither a change nor none."""
    made = Head(curves=((36.0, 40.0), (36.0, 36.0), (66.0, 42.0)), noise=4.0).courses()
    assert made[0].trend is Trend.OPEN
    assert made[0].change.value is not None
    assert made[0].text.startswith("change of enhancement cannot be told: ")


def test_agent_that_was_given_again_gives_no_course() -> None:
    """Everything climbs then, a wall as well."""
    for blood in ((75.0, 110.0), (0.0, 90.0)):
        head = Head(curves=((36.0, 54.0),) * 3, blood=blood)
        with pytest.raises(AssessmentError, match=r"agent was given again, or was still arriving"):
            head.courses()
    with pytest.raises(AssessmentError, match=r"agent was given again"):
        Head(curves=((36.0, 54.0),) * 3, blood=(75.0, 110.0), moved=(0.0, 0.9, 0.0)).courses()
    with pytest.raises(AssessmentError, match="too little enhances elsewhere"):
        courses(Head().found().listed, (bare := Head(blood=(0.0, 0.0))).native, (bare.first, bare.newest))


def test_scans_that_are_no_series_are_refused() -> None:
    head = Head()
    pieces = head.found().listed

    def refused(first: Image, newest: Image, words: str) -> None:
        with pytest.raises(AssessmentError, match=words):
            courses(pieces, head.native, (first, newest))

    refused(replace(head.first, acquired_utc_s=None), head.newest, "not known when 'first' was taken")
    refused(replace(head.first, acquired_utc_s=head.newest.acquired_utc_s), head.newest, "not taken after 'first'")
    refused(replace(head.first, acquired_utc_s=BEGUN_S - 4000.0), head.newest, "75 min apart")
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    refused(
        replace(head.first, array=head.first.array[::2, ::2, ::2], ras_from_ijk=head.grid @ coarse),
        head.newest,
        "other voxels",
    )
    assert courses((), head.native, (head.first, head.newest)) == {}


def test_it_tells_how_far_it_is_and_may_be_stopped_at_each_piece() -> None:
    head = Head()
    pieces, told = head.found().listed, list[float]()

    def progress(fraction: float, _what: str) -> bool:
        told.append(fraction)
        return len(told) < 5

    with pytest.raises(Cancelled):
        courses(pieces, head.native, (head.first, head.newest), progress)
    assert told == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])


def width(course: Course) -> float:
    assert course.change.interval is not None
    return course.change.interval[1] - course.change.interval[0]
