"""Coefficient files of gradient coils, as vendors' text tables (``coeff.grad``).

Such a table is a head (lines of ``#`` and of settings), one line with the reference radius and the normalisation
(``0.250 m = R0, lnorm = 4? A(1,0) = B(1,1) = A(1,1) = 0;``), and terms, one a line: number, type with degree and
order, coefficient, gradient axis.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import ReconstructionError
from .gradient_nonlinearity import GradientCoil

#: Axes of such a table for a patient who lies head first on the back: left, anterior, inferior.
SCANNER_FROM_RAS = np.diag([-1.0, 1.0, -1.0])
#: The only position whose axes are known.
POSITION = "HFS"
#: A table is text of some kB.
MAX_BYTES = 1 << 20
#: The normalisation of the harmonics that is known, by its number in the table.
NORMALISATION = 4
#: Reference radii of coils for heads, bodies and animals, m: another one is a misread line or another unit.
RADII_M = (0.02, 1.0)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RADIUS = re.compile(rf"({_NUMBER})\s*m\s*=\s*R0\b")
_NORM = re.compile(r"\blnorm\s*=\s*(\d+)")
_TERM = re.compile(rf"(?:\d+\s+)?([AB])\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s+({_NUMBER})\s+([xyz])\b")
#: What a line with a term looks like, even when it is damaged; lines with "=" are settings.
_LIKE_TERM = re.compile(r"\b[AB]\s*\(\s*[-+]?\d")


def read_gradient_coil(path: Path) -> GradientCoil:
    """Read a table.

    A are cosine and B sine terms, (degree, order), relative to the linear gradient, which is left out. The axes are
    those of a patient in position HFS. Raises ReconstructionError, which names the line, when it is not such a table,
    is damaged, contradicts itself or is normalised in another way.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReconstructionError(f"'{path}' has {path.stat().st_size} bytes: no table of gradient coefficients")
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ReconstructionError(f"cannot read the gradient coefficients '{path}': {error}") from error
    radii: set[float] = set()
    terms: dict[str, dict[tuple[int, int], tuple[float, float]]] = {"x": {}, "y": {}, "z": {}}
    seen: set[tuple[str, str, str, str]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"'{path.name}', line {number}"
        line = line.partition("#")[0]
        if radius := _RADIUS.search(line):
            radii.add(float(radius.group(1)))
        if (norm := _NORM.search(line)) and int(norm.group(1)) != NORMALISATION:
            raise ReconstructionError(f"{where}: only the normalisation lnorm = {NORMALISATION} is known, got {line!r}")
        if "=" in line or not _LIKE_TERM.search(line):
            continue
        term = _TERM.match(line.strip())
        if term is None:
            raise ReconstructionError(f"{where}: expected a term such as '1 A( 3, 0) -0.0912 z', got {line.strip()!r}")
        kind, degree, order, value, axis = term.groups()
        if (kind, degree, order, axis) in seen:
            raise ReconstructionError(f"{where}: {kind}({degree}, {order}) of gradient {axis} comes twice")
        seen.add((kind, degree, order, axis))
        # Tables may spell out terms that are 0, the linear one among them.
        if float(value):
            key = int(degree), int(order)
            cosine, sine = terms[axis].get(key, (0.0, 0.0))
            terms[axis][key] = (float(value), sine) if kind == "A" else (cosine, float(value))
    if len(radii) != 1 or not any(terms.values()):
        raise ReconstructionError(
            f"'{path.name}' is no table of gradient coefficients: expected '0.25 m = R0' once and terms such as "
            "'A( 3, 0) -0.0912 z'"
        )
    (radius_m,) = radii
    if not RADII_M[0] <= radius_m <= RADII_M[1]:
        raise ReconstructionError(
            f"'{path.name}': a reference radius is {RADII_M[0]:g} to {RADII_M[1]:g} m, got {radius_m:g} m"
        )
    return GradientCoil(1000 * radius_m, terms["x"], terms["y"], terms["z"], SCANNER_FROM_RAS)
