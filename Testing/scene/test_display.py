"""What the views say: numbers with their interval while they are sound, words when they are not."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.scene import colors
from IntraopMRILib.scene.display import (
    READ,
    Corners,
    PieceText,
    Readout,
    Tone,
    age,
    banners,
    corners,
    interval,
    number,
    pieceHead,
    spread,
)
from IntraopMRIReconstructionLib.data import Level, Measurement, Reason, Verdict

GOOD = Verdict((Reason("edge distance", 0.6, "mm", "below 1.5", Level.GOOD),))
CHECK = Verdict((Reason("edge distance", 1.7, "mm", "below 1.5", Level.CHECK),))
REFUSED = Verdict((Reason("overlap", 0.31, "", "0.6 to 1", Level.REFUSED),))


def measured(name: str, value: float | None, unit: str, bounds: tuple[float, float] | None = None) -> Measurement:
    return Measurement(name, value, unit, "definition", interval=bounds, missing_because="" if value else "no contrast")


SOUND = Readout(
    residual=measured("residual", 5.43, "cm3", (4.26, 5.91)),
    extent_of_resection=measured("extent", 79.6, "%", (75.2, 83.9)),
    rano_class="3B",
    tip_to_residual=measured("distance", 6.28, "mm", (5.37, 7.19)),
    implants={"Lead": (measured("Lead: tip deviation", 2.37, "mm", (1.87, 2.87)),)},
    verdict=GOOD,
    image_age_s=190.0,
    pose_age_s=0.08,
    pose_trust="live",
)


def words(texts: Corners) -> str:
    parts = (texts.topLeft, texts.topRight, texts.bottomLeft, texts.bottomRight)
    return "\n".join(line.text for part in parts for line in part)


def test_a_sound_session_shows_its_numbers_with_intervals() -> None:
    said = words(corners(SOUND))
    for text in (
        "5.4 cm³",
        "4.3 to 5.9 cm³",
        "79 %",
        "75 to 83 %",
        "RANO class 3B",
        "6.3 mm",
        "5.4 to 7.2 mm",
        "2.4 ± 0.5 mm  tip",
        "Registration good",
        "Image 3 min old",
        "Pointer 0.1 s old",
    ):
        assert text in said
    assert corners(SOUND).banners == ()
    assert "Not for clinical use" in corners(SOUND).footer


def test_stale_pose_blanks_the_distance_only() -> None:
    texts = corners(replace(SOUND, pose_trust="stale", pose_age_s=1.3))
    assert "6.3" not in words(texts)
    assert "5.4 to 7.2" not in words(texts)
    assert "5.4 cm³" in words(texts)
    assert [(banner.title, banner.tone) for banner in texts.banners] == [("POINTER LATE 1.3 s", Tone.CAUTION)]


def test_tool_out_of_sight_is_said_so() -> None:
    texts = corners(replace(SOUND, pose_trust="not seen", pose_age_s=12.0))
    assert texts.banners[0].title == "POINTER NOT SEEN 12 s"
    assert "6.3" not in words(texts)


def test_a_tool_that_was_laid_aside_is_quiet() -> None:
    texts = corners(replace(SOUND, pose_trust="out of sight", pose_age_s=400.0))
    assert texts.banners == ()
    assert "6.3" not in words(texts)
    assert "pointer out of sight" in words(texts)
    assert not any(line.color == Tone.CAUTION.color for line in (*texts.topRight, *texts.bottomRight))


@pytest.mark.parametrize("bad_age", [None, float("nan"), float("inf"), -1.0])
def test_a_live_pose_without_an_age_is_no_position(bad_age: float | None) -> None:
    texts = corners(replace(SOUND, pose_age_s=bad_age))
    assert "6.3" not in words(texts)
    assert texts.banners[0].title == "POINTER AGE UNKNOWN"


def test_a_registration_that_nobody_has_confirmed_is_not_green() -> None:
    texts = corners(replace(SOUND, unconfirmed=True))
    lines = {line.text: line.color for line in texts.bottomRight}
    assert lines["Registration good"] == Tone.NORMAL.color
    assert lines["not confirmed"] == Tone.CAUTION.color
    assert "not confirmed" not in words(corners(SOUND))


def test_no_tool_is_quiet() -> None:
    texts = corners(replace(SOUND, pose_trust="never received", pose_age_s=None))
    assert texts.banners == ()
    assert "No pointer tracked" in words(texts)
    assert "6.3" not in words(texts)


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"verdict": REFUSED}, "REGISTRATION REFUSED"),
        ({"verdict": None, "withdrawn": "the patient moved"}, "NOT REGISTERED"),
        ({"withdrawn": "the patient moved"}, "NOT REGISTERED"),
        ({"verdict": REFUSED, "withdrawn": "registration refused"}, "REGISTRATION REFUSED"),
        ({"verdict": Verdict(())}, "REGISTRATION REFUSED"),
    ],
)
def test_without_a_registration_no_dependent_number_is_left(change: dict[str, object], title: str) -> None:
    texts = corners(replace(SOUND, **change))  # type: ignore[arg-type]
    for value in ("5.4", "4.3", "79", "75", "3B", "6.3", "7.2", "2.4", "0.5"):
        assert value not in words(texts)
    assert texts.banners[0].title == title
    # Not registered yet is what each new scan is for a while: nothing misleads, and red is kept for what does.
    assert texts.banners[0].tone is (Tone.DANGER if "REFUSED" in title else Tone.CAUTION)
    assert "Registration good" not in words(texts)
    assert ("Registration refused" in words(texts)) is ("REFUSED" in title)


def test_the_nearest_structure_at_risk_stands_below_the_distance_to_the_residual() -> None:
    near = replace(SOUND, risk=("Motor tract", measured("distance", 4.2, "mm", (3.3, 5.1))))
    lines = corners(near).topRight
    below = next(index for index, line in enumerate(lines) if line.text == "MOTOR TRACT")
    assert lines[below + 1].text == "4.2 ± 0.9 mm"
    assert lines[below + 1].color == colors.TEXT
    assert lines[below + 1].size < lines[1].size, "what is left is the larger number"
    alarm = corners(replace(near, too_near="Motor tract")).topRight
    assert alarm[below + 1].color == Tone.DANGER.color
    assert "inside" not in words(corners(near))
    within = measured("distance", -1.5, "mm", (-2.5, -0.5))
    assert "−1.5 ± 1.0 mm inside" in words(corners(replace(near, risk=("Motor tract", within))))
    assert "−1.5 mm\n−2.5 to −0.5 mm\ninside it" in words(corners(replace(near, tip_to_residual=within)))
    for change in ({"pose_trust": "stale"}, {"verdict": REFUSED}):
        assert "4.2" not in words(corners(replace(near, **change)))


def test_refusal_says_why() -> None:
    banner = corners(replace(SOUND, verdict=REFUSED)).banners[0]
    assert banner.detail == "overlap 0.31 (expected 0.6 to 1)"
    banner = corners(replace(SOUND, verdict=None, withdrawn="the patient moved")).banners[0]
    assert banner.detail == "the patient moved"


def test_before_the_first_scan_the_pointer_is_said_to_have_no_place() -> None:
    early = replace(SOUND, verdict=None, unplaced=True)
    assert [(banner.title, banner.tone) for banner in corners(early).banners] == [
        ("NO SCAN YET: POINTER NOT PLACED", Tone.CAUTION)
    ]
    # What was withdrawn is told instead: it is the graver of the two.
    withdrawn = corners(replace(early, withdrawn="the patient moved")).banners
    assert [banner.title for banner in withdrawn] == ["NOT REGISTERED"]


def test_danger_comes_before_caution() -> None:
    both = banners(replace(SOUND, verdict=REFUSED, pose_trust="stale", pose_age_s=2.0))
    assert [banner.tone for banner in both] == [Tone.DANGER, Tone.CAUTION]


def test_check_shows_the_numbers_and_the_doubt() -> None:
    said = words(corners(replace(SOUND, verdict=CHECK)))
    assert "5.4 cm³" in said
    assert "Registration check" in said
    assert "edge distance 1.7 mm" in said


def test_a_missing_number_says_why_in_words() -> None:
    said = words(corners(replace(SOUND, residual=measured("residual", None, "cm3"))))
    assert "no contrast" in said
    assert not re.search(r"\d cm³", said)


def test_an_implant_session_puts_its_numbers_first() -> None:
    spine = Readout(implants=SOUND.implants, verdict=GOOD, image_age_s=10.0)
    texts = corners(spine)
    assert [line.text for line in texts.topLeft] == ["LEAD", "2.4 ± 0.5 mm  tip"]
    assert texts.topRight == texts.bottomLeft == ()


def test_nothing_that_carries_meaning_is_smaller_than_read() -> None:
    assert READ >= 2 * 1 / 40
    for readout in (SOUND, replace(SOUND, verdict=REFUSED), replace(SOUND, verdict=CHECK)):
        texts = corners(readout)
        for part in (texts.topLeft, texts.topRight, texts.bottomLeft, texts.bottomRight):
            assert all(line.size >= READ for line in part)


def test_red_is_for_residual_and_danger_only() -> None:
    texts = corners(SOUND)
    red = [
        line.text
        for part in (texts.topLeft, texts.topRight, texts.bottomLeft, texts.bottomRight)
        for line in part
        if line.color == colors.RESIDUAL
    ]
    assert red == ["5.4 cm³"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (-0.04, "mm", "0.0 mm"),
        (99.96, "%", "99 %"),
        (100.0, "%", "100 %"),
        (0.004, "cm3", "< 0.01 cm³"),
        (0.0, "cm3", "0.00 cm³"),
        (0.456, "mL", "0.46 cm³"),
        (12.34, "ml", "12.3 cm³"),
        (-1.54, "mm", "−1.5 mm"),
        (4.66, "deg", "4.7°"),
    ],
)
def test_numbers_as_read_aloud(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_intervals_keep_the_decimals_of_their_number() -> None:
    assert interval((0.77, 1.151), "cm3", 0.96) == "0.77 to 1.15 cm³"
    assert spread(measured("m", 0.3, "mm", (0.0, 0.8))) == "0.3 mm (0.0 to 0.8 mm)"
    assert spread(measured("m", 4.7, "deg", (3.8, 5.6))) == "4.7 ± 0.9°"
    assert spread(measured("m", 4.7, "mm")) == "4.7 mm"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.08, "0.1 s"), (9.94, "9.9 s"), (45, "45 s"), (190, "3 min"), (7500, "2 h 05 min"), (172800, "2 days")],
)
def test_age(seconds: float, text: str) -> None:
    assert age(seconds) == text


#: What a deuteranope and a protanope see of linear RGB (Machado, Oliveira, Fernandes 2009, severity 1.0).
DEFICIENCIES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
#: Two colours this far apart in CIELAB are told apart side by side without doubt (just noticeable is 2.3).
CLEARLY_DIFFERENT = 15.0


def lab(color: tuple[float, float, float], seen_as: np.ndarray) -> np.ndarray:
    srgb = np.asarray(color)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(seen_as @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    ratio = xyz / (0.9505, 1.0, 1.089)
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", sorted(DEFICIENCIES))
def test_colours_are_told_apart_by_colour_blind_eyes(deficiency: str) -> None:
    palette = {
        name: getattr(colors, name) for name in ("RESIDUAL", "RESECTED", "TUMOUR", "AT_RISK", "PLANNED", "ACTUAL")
    }
    for (first, one), (second, other) in itertools.combinations(palette.items(), 2):
        seen_as = DEFICIENCIES[deficiency]
        distance = np.linalg.norm(lab(one, seen_as) - lab(other, seen_as))
        assert distance > CLEARLY_DIFFERENT, f"{first} and {second} look alike ({distance:.1f})"


def test_a_tool_that_comes_back_blanks_its_number_without_a_band() -> None:
    readout = Readout(pose_age_s=0.01, pose_trust="returning")
    assert readout.pose_problem == "pointer coming back"
    assert not banners(readout)


PIECE = PieceText(
    2,
    3,
    measured("Piece 2: volume", 0.42, "cm3", (0.2, 0.7)),
    "left posterior wall of the cavity, 14 mm deep of the opening",
    tip=measured("Tip to piece 2", 12.3, "mm", (11.8, 12.8)),
)


def test_where_the_views_stand_at_a_piece_its_place_is_said_beside_the_whole() -> None:
    shown = corners(replace(SOUND, piece=PIECE))
    said = words(shown)
    for text in ("5.4 cm³", "PIECE 2 OF 3", "0.42 cm³", "0.20 to 0.70 cm³", "TIP TO PIECE 2", "12.3 mm", "6.3 mm"):
        assert text in said
    place = " ".join(line.text for line in shown.bottomLeft[3:])
    assert place == PIECE.place
    # Read from three metres; together with what stands above and below it they fit into the view, with a band above.
    lines = (*shown.topLeft, *shown.bottomLeft)
    assert min(line.size for line in lines) >= READ
    assert sum(1.22 * line.size for line in lines) < 0.85
    assert pieceHead(replace(SOUND, piece=PIECE))[0].text == "PIECE 2 OF 3"


def test_a_piece_in_doubt_is_not_red() -> None:
    def colors_of(piece: PieceText) -> set[colors.Color]:
        return {line.color for line in corners(replace(SOUND, piece=piece)).bottomLeft}

    assert colors.RESIDUAL in colors_of(PIECE)
    doubtful = replace(PIECE, sure="may be nothing")
    assert colors.RESIDUAL not in colors_of(doubtful)
    assert "may be nothing" in words(corners(replace(SOUND, piece=doubtful)))


def test_the_tip_to_a_piece_goes_with_the_pose_and_all_of_it_with_the_registration() -> None:
    stale = words(corners(replace(SOUND, piece=PIECE, pose_trust="stale", pose_age_s=3.0)))
    assert "TIP TO PIECE" not in stale
    assert "PIECE 2 OF 3" in stale
    refused = replace(SOUND, piece=PIECE, verdict=REFUSED)
    assert "PIECE" not in words(corners(refused))
    assert pieceHead(refused) == ()


def test_what_a_person_excluded_stands_beside_both_numbers() -> None:
    shown = corners(replace(SOUND, excluded="1 piece excluded by a person"))
    for corner in (shown.topLeft, shown.bottomLeft):
        assert corner[-1].text == "1 piece excluded by a person"
