"""The residual as a list: known pieces of known volume and place, in every orientation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import ORIENTATIONS
from IntraopMRILib.assess.pieces import Sure, bed_of, listed
from IntraopMRILib.assess.residual import assess_residual, excluding
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about

SIZE, ENHANCES = 84, 60.0
#: Where the head lies in the scanner, RAS mm.
MIDDLE = np.array([12.0, -7.0, 31.0])
RADIUS = 14.0
#: Centre beside the middle of the cavity (RAS mm), radius, and the side in words; as far away as the cavity is wide.
LARGE, SECOND = ((0.0, -14.0, 0.0), 6.0), ((10.5, 0.0, 9.5), 4.5)
SMALL = ((-14.0, 0.0, 0.0), 1.8)
SIDES = ("posterior wall of the cavity", "right superior wall of the cavity")
Ball = tuple[tuple[float, float, float], float]


class Head:
    """Balls of residual at the wall of a cavity that reaches the surface of the brain toward anterior."""

    def __init__(self, orientation: str, left: tuple[Ball, ...], error_mm: float = 0.5, known: bool = True) -> None:
        self.grid = np.eye(4)
        self.grid[:3, :3] = ORIENTATIONS[orientation]
        self.grid[:3, 3] = MIDDLE - self.grid[:3, :3] @ np.full(3, (SIZE - 1) / 2.0)
        k, j, i = np.indices((SIZE,) * 3)
        self.places = apply(self.grid, np.stack([i, j, k], axis=-1).astype(float)) - MIDDLE
        residual = np.max([self.ball(*one) for one in left], axis=0) if left else np.zeros((SIZE,) * 3)
        way = np.hypot(self.places[..., 0], self.places[..., 2]) - 5.0
        way = np.clip(0.5 - np.maximum(way, -self.places[..., 1]), 0.0, 1.0)
        head = self.ball((0.0, 0.0, 0.0), 37.0)
        cavity = np.clip(np.maximum(self.ball((0.0, 0.0, 0.0), RADIUS), way) * head - residual, 0.0, 1.0)
        native = (75.0 * (1.0 - cavity) + 25.0 * cavity) * head
        vessel = 90.0 * (np.abs(self.places[..., 0] - 27.0) < 1.0) * (np.abs(self.places[..., 2]) < 1.0) * head
        rng = np.random.default_rng(5)

        def scan(signal: np.ndarray, name: str) -> Image:
            noise = rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
            return Image(np.abs(signal + 1.5 * noise).astype(np.float32), self.grid, name)

        self.contrast = scan(native + vessel + ENHANCES * residual, "contrast")
        self.native = scan(native, "native")
        self.cavity = self.native.with_array((cavity > 0.5).astype(np.uint8))
        self.brain = self.native.with_array((head > 0.5).astype(np.uint8))
        self.before = np.eye(4)
        self.before[:3, :3], self.before[:3, 3] = rotation_about((1, 2, 3), 25.0), (4.0, -9.0, 2.0)
        lies = self.ball((0.0, 0.0, 0.0), RADIUS + 1.5)
        if known:
            lies = np.max([lies, *(self.ball(at, r + 1) for at, r in left)], axis=0)
        tumour = Image((lies > 0.5).astype(np.uint8), invert(self.before) @ self.grid, "tumour")
        self.found = assess_residual(
            self.contrast, self.native, tumour, self.before, error_mm, cavity=self.cavity, brain=self.brain
        )
        self.cm3 = [float(self.ball(*one).sum()) / 1000.0 for one in left]

    def ball(self, at: tuple[float, float, float], radius: float) -> np.ndarray:
        return np.asarray(np.clip(0.5 - (np.linalg.norm(self.places - at, axis=-1) - radius), 0.0, 1.0))


@cache
def head(orientation: str, left: tuple[Ball, ...] = (LARGE, SECOND)) -> Head:
    return Head(orientation, left)


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_each_piece_has_its_volume_place_and_size(orientation: str) -> None:
    """Known balls at known sides of the cavity, the patient's and not the array's."""
    made = head(orientation)
    pieces = made.found.listed
    assert [piece.number for piece in pieces] == [1, 2]
    for piece, (at, radius), true_cm3, side in zip(pieces, (LARGE, SECOND), made.cm3, SIDES, strict=True):
        assert piece.volume.value == pytest.approx(true_cm3, rel=0.1)
        assert piece.volume.interval is not None
        assert piece.volume.interval[0] < true_cm3 < piece.volume.interval[1]
        assert np.linalg.norm(piece.at_ras_mm - MIDDLE - at) < 2.0
        assert piece.longest.value == pytest.approx(2 * radius, abs=1.5)
        assert piece.longest.interval is not None
        assert piece.longest.interval[0] < 2 * radius < piece.longest.interval[1]
        assert piece.place.startswith(side)
        # The opening lies at 37 mm anterior.
        depth = np.linalg.norm(np.array(at) - (0.0, 36.0, 0.0)) - 5.0
        assert float(piece.place.partition(", ")[2].partition(" mm")[0]) == pytest.approx(depth, abs=6.0)
        assert piece.sure is Sure.SURE
        # It alone, where it is.
        inside = apply(piece.label.ras_from_ijk, np.argwhere(piece.label.array)[:, ::-1].astype(float)) - MIDDLE
        assert np.linalg.norm(inside.mean(axis=0) - at) < 1.0


@pytest.mark.parametrize("left", [(LARGE, SECOND), (LARGE, SECOND, SMALL)], ids=["two", "and something too small"])
def test_the_pieces_add_up_to_the_whole(left: tuple[Ball, ...]) -> None:
    found = head("oblique", left).found
    total = sum(piece.volume.value or 0.0 for piece in found.pieces)
    assert total == pytest.approx(found.volume_cm3, rel=1e-9)
    small = [m for m in found.measurements if m.name.startswith("Smaller than")]
    listed = sum(piece.volume.value or 0.0 for piece in found.listed)
    assert listed + sum(m.value or 0.0 for m in small) == pytest.approx(found.volume_cm3, rel=1e-9)
    voxels = sum(int(piece.label.array.sum()) for piece in found.pieces)
    assert voxels == int(found.residual.array.sum())
    # What a piece may be smaller or larger by is part of what the whole may be.
    assert sum(piece.volume.interval[0] for piece in found.pieces if piece.volume.interval) >= found.interval_cm3[0]
    above = sum(piece.volume.interval[1] for piece in found.pieces if piece.volume.interval)
    assert above <= found.interval_cm3[1] * 1.02


def test_a_piece_under_the_limit_is_no_finding_but_counts() -> None:
    """The limit of 1 mm voxels is a ball of 4 mm."""
    first, second = head("RAS").found.pieces
    tiny = replace(second, volume=replace(second.volume, value=0.03, interval=(0.0, 0.06)))
    large, small = listed((first, tiny, tiny))
    assert large == (first,)
    assert small is not None
    assert small.value == pytest.approx(0.06)
    assert small.interval == pytest.approx((0.0, 0.12))
    assert "2 pieces of less than 0.03 cm3 each, a ball of 4.0 mm" in small.definition
    assert listed((first, second)) == ((first, second), None)
    assert listed(()) == ((), None)


def test_a_piece_that_only_the_registration_error_lets_in_may_be_nothing() -> None:
    """It lies outside of the tumour: a vessel, or tumour when the outline lies elsewhere. It is listed, as that."""
    outside: Ball = ((12.5, 0.0, 11.5), 4.5)
    first, second = Head("RAS", (LARGE, outside), 5.0, known=False).found.listed
    assert second.sure is Sure.OPEN
    assert second.volume.interval is not None
    assert second.longest.interval is not None
    assert second.volume.interval[0] == second.longest.interval[0] == 0.0
    assert second.volume.interval[1] > second.volume.value > 0.1  # type: ignore[operator]
    assert first.sure is not Sure.OPEN


def test_parts_that_a_voxel_more_would_join_are_one_piece() -> None:
    near: Ball = ((0.0, -14.0, 11.0), 3.5)
    apart: Ball = ((0.0, -14.0, 13.5), 3.5)
    assert len(head("RAS", (LARGE, near)).found.listed) == 1
    assert len(head("RAS", (LARGE, apart)).found.listed) == 2


def test_without_a_cavity_the_place_is_that_of_the_tumour() -> None:
    points = np.stack(np.meshgrid(*[np.arange(-10.0, 11.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    bed = bed_of(points, None, None)
    at = np.array([-9.0, 1.0, 1.0])
    assert bed.place(at, at[None]) == "left part of where the tumour was"
    assert bed.place(np.zeros(3), np.zeros((1, 3))) == "middle of where the tumour was"


def test_a_long_cavity_has_its_wall_beside_it() -> None:
    """15 mm along it and 10 mm above its middle is its upper wall, not its end."""
    grid = np.eye(4)
    grid[:3, 3] = -40.0
    k, j, i = np.indices((80, 80, 80)) - 40
    cavity = Image(((np.abs(i) < 30) & (np.abs(j) < 8) & (np.abs(k) < 8)).astype(np.uint8), grid)
    bed = bed_of(np.zeros((1, 3)), cavity, None)
    at = np.array([12.0, 0.0, 9.0])
    assert bed.place(at, at[None]) == "superior wall of the cavity"
    far = np.array([0.0, 0.0, 20.0])
    assert bed.place(far, far[None]) == "13 mm beside the cavity, superior of it"


def test_two_openings_of_one_size_are_none() -> None:
    """Which is the way in cannot be told: no depth is given."""
    grid = np.eye(4)
    k, j, i = np.indices((40, 40, 40)) - 20
    hole = (np.abs(i) < 5) & (np.abs(k) < 5)
    cavity, brain = (Image(mask.astype(np.uint8), grid) for mask in (hole, np.abs(j) < 25))
    assert len(bed_of(np.zeros((1, 3)), cavity, brain).opening) == 0
    one = cavity.with_array((hole & (j > -10)).astype(np.uint8))
    opening = bed_of(np.zeros((1, 3)), one, brain).opening
    assert len(opening)
    assert opening[:, 1].min() == 39.0


def test_a_ventricle_is_no_opening() -> None:
    """The cavity reaches it, but not the surface of the brain."""
    grid = np.eye(4)
    k, j, i = np.indices((40, 40, 40)) - 20
    ventricle = (np.abs(i) < 4) & (np.abs(k) < 4) & (np.abs(j + 8) < 4)
    hole = (np.abs(i) < 5) & (np.abs(k) < 5) & (np.abs(j) < 5)
    cavity, brain = (Image(mask.astype(np.uint8), grid) for mask in (hole, (np.abs(j) < 18) & ~ventricle))
    assert len(bed_of(np.zeros((1, 3)), cavity, brain).opening) == 0


def test_what_a_person_excludes_changes_the_number_and_its_definition() -> None:
    whole = head("LPS").found
    rest = excluding(whole, frozenset({2}))
    out = whole.listed[1].volume.value or 0.0
    assert rest.volume_cm3 == pytest.approx(whole.volume_cm3 - out, rel=1e-9)
    assert f"excluding 1 piece of {out:.2f} cm3 judged not tumour by a person" in rest.measurements[0].definition
    assert rest.interval_cm3[0] <= rest.volume_cm3 <= rest.interval_cm3[1]
    assert rest.interval_cm3[1] < whole.interval_cm3[1]
    assert (rest.measurements[1].value or 0.0) > (whole.measurements[1].value or 0.0)
    assert "excluding 1 piece" in rest.measurements[1].definition
    gone = (whole.residual.array != 0) & (rest.residual.array == 0)
    assert gone.sum() == whole.listed[1].label.array.sum()
    # It was not removed either.
    assert not (rest.resected.array.astype(bool) & gone).any()
    assert rest.pieces == whole.pieces


def test_a_complete_resection_by_exclusion_alone_is_said_to_be_one() -> None:
    whole = head("RAS").found
    none = excluding(whole, frozenset({1, 2}))
    assert none.volume_cm3 == 0.0
    assert none.measurements[1].value == 100.0
    assert "100 % by that exclusion alone, not by what the scan shows" in none.measurements[1].definition
    assert none.residual_centroid_ras_mm is None
    assert none.interval_cm3[1] > 0.03
    assert none.rano.value == "1 or 2A"


def test_only_what_is_listed_can_be_excluded() -> None:
    whole = head("RAS", (LARGE, SECOND, SMALL)).found
    for numbers in ({3}, {9}):
        with pytest.raises(AssessmentError, match="the listed ones are 1, 2"):
            excluding(whole, frozenset(numbers))
    assert excluding(whole, frozenset()) is whole
