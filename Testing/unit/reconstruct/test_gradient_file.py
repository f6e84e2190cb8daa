"""Tables of gradient coefficients as scanners hold them: made here, with everything around the terms that they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.gradient_file import read_gradient_coil

HEAD = """#*[ Script ****************************************************************\\
#
# Name        : made.grad (design of a test)
# Description : Defines Legendre coefficients, 1 A( 9, 0)  0.5 z of a Spule für Tests (r0=0.30m)
#****************************************************************************/
#*] END: */
 test 001, Gradientsystem Made , Gx,y,z = 40 mT/m
 win_low = 0, win_high = 0, win_algo = 0, win_dummy = 2;
"""
RADIUS = " 0.250 m = R0, lnorm = 4? A(1,0) = B(1,1) = A(1,1) = 0;\n"
TITLE = """ 0 = CoSyMode;
 Expansion in   Spherical   Harmonics
 ====================================

 NO.  TYPE             SPECTRUM                 AXIS

"""
TERMS = """   1  A( 3, 0)         -0.09420000               z
   2  A( 5, 0)         -1.95e-02                 z
   3  A(11, 0)          0.00000000               z

 101\tA( 3, 1)\t\t-.08500000\t\tx
 102  A( 3, 3)         -0.00400000               x
 151  B( 3, 1)         -0.08400000               y
 152  B( 3, 3)         +0.00300000               y
"""


def table(folder: Path, text: str) -> Path:
    path = folder / "made.grad"
    path.write_bytes(text.encode("latin-1"))
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_whole_table(tmp_path: Path, line_end: str) -> None:
    coil = read_gradient_coil(table(tmp_path, (HEAD + RADIUS + TITLE + TERMS).replace("\n", line_end)))
    assert coil.radius_mm == 250.0
    assert coil.z == {(3, 0): (-0.0942, 0.0), (5, 0): (-0.0195, 0.0)}
    assert coil.x == {(3, 1): (-0.085, 0.0), (3, 3): (-0.004, 0.0)}
    assert coil.y == {(3, 1): (0.0, -0.084), (3, 3): (0.0, 0.003)}


def test_what_it_does_to_a_point_in_every_direction(tmp_path: Path) -> None:
    """P30 on the axes of a table that points to the left, to the front and down; the picture lies in RAS."""
    coil = read_gradient_coil(table(tmp_path, RADIUS + "1 A(3,0) -0.1 z\n"))
    up = coil.displacement(np.array([0.0, 0.0, 100.0]))
    assert up == pytest.approx([0, 0, -0.1 * (100.0 / 250) ** 3 * 250])
    # Off the axis, closed form: (5 z^3 - 3 z r^2) / 2.
    x, y, z = 40.0, -70.0, 90.0
    away = coil.displacement(np.array([x, y, z]))
    assert away == pytest.approx([0, 0, -0.1 * (5 * z**3 - 3 * z * (x * x + y * y + z * z)) / 2 / 250**2])
    sideways = read_gradient_coil(table(tmp_path, RADIUS + "1 A(3,1) 0.1 x\n2 B(2,1) 0.1 y\n"))
    point = np.array([30.0, 20.0, 10.0])
    # With all three coordinates turned round: terms of odd degree turn with them, those of even degree do not.
    assert sideways.displacement(point)[0] == pytest.approx(-sideways.displacement(-point)[0])
    assert sideways.displacement(point)[1] == pytest.approx(sideways.displacement(-point)[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table"),
        (RADIUS + TITLE, "no table"),
        (TITLE + TERMS, "R0"),
        (RADIUS + "0.140 m = R0\n" + TERMS, "R0' once"),
        ("250 m = R0, lnorm = 4?\n" + TERMS, r"0\.02 to 1 m, got 250 m"),
        ("1.2.3e m = R0\n" + TERMS, "radius|R0"),
        ("0 m = R0\n" + TERMS, "got 0 m"),
        (RADIUS.replace("lnorm = 4", "lnorm = 2") + TERMS, "line 1: only the normalisation lnorm = 4"),
        (RADIUS + TERMS + "  9 A( 7, 0)  -0.0", r"line 10: expected a term .*A\( 7, 0\)"),
        (RADIUS + "1 A( 3, 0) -0,0942 z", "line 2: expected a term"),
        (RADIUS + "1 A( 3, 0) -1.2.3 z", "line 2: expected a term"),
        (RADIUS + "1 A( 3, -1) -0.1 z", "line 2: expected a term"),
        (RADIUS + "1 A( 3, 0) -0.1 w", "line 2: expected a term"),
        (RADIUS + "1 C( 3, 0) -0.1 z", "no table"),
        (RADIUS + "1 A( 3, 0) -0.1 z\n2 A(3,0) -0.2 z", "line 3: .* comes twice"),
        (RADIUS + "1 A( 3, 4) -0.1 z", "not a harmonic"),
        (RADIUS + "1 A(99, 4) -0.1 z", "not a harmonic"),
        (RADIUS + "1 A( 3, 0) 1e999 z", "not a harmonic"),
        (RADIUS + "1 A( 1, 0) 1.0 z\n2 A( 3, 0) -0.1 z", "linear term"),
    ],
)
def test_what_is_no_table_or_a_damaged_one(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ReconstructionError, match=message):
        read_gradient_coil(table(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match="cannot read"):
        read_gradient_coil(tmp_path / "missing.grad")
    with pytest.raises(ReconstructionError, match="bytes: no table"):
        read_gradient_coil(table(tmp_path, "0" * (1 << 21)))
    (tmp_path / "noise.grad").write_bytes(np.random.default_rng(3).bytes(5000))
    with pytest.raises(ReconstructionError):
        read_gradient_coil(tmp_path / "noise.grad")
