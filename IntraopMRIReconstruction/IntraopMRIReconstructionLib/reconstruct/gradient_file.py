"""Coefficient files of gradient coils, as vendors' text tables (``coeff.grad``)."""

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

_RADIUS = re.compile(r"([-+0-9.eE]+)\s*m\s*=\s*R0")
_TERM = re.compile(r"\b([AB])\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s+([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s+([xyz])\b")


def read_gradient_coil(path: Path) -> GradientCoil:
    """Read a table: ``0.25 m = R0``, then terms such as ``1 A( 3, 0) -0.0912 z``.

    A are cosine and B sine terms, (degree, order), relative to the linear gradient, which is left out. The axes are
    those of a patient in position HFS. Raises ReconstructionError when it is not such a table.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReconstructionError(f"'{path}' has {path.stat().st_size} bytes: no table of gradient coefficients")
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ReconstructionError(f"cannot read the gradient coefficients '{path}': {error}") from error
    radius = _RADIUS.search(text)
    terms: dict[str, dict[tuple[int, int], tuple[float, float]]] = {"x": {}, "y": {}, "z": {}}
    for kind, degree, order, value, axis in _TERM.findall(text):
        key = int(degree), int(order)
        cosine, sine = terms[axis].get(key, (0.0, 0.0))
        terms[axis][key] = (float(value), sine) if kind == "A" else (cosine, float(value))
    if radius is None or not any(terms.values()):
        raise ReconstructionError(
            f"'{path.name}' is no table of gradient coefficients: expected '0.25 m = R0' and terms such as "
            "'A( 3, 0) -0.0912 z'"
        )
    return GradientCoil(1000 * float(radius.group(1)), terms["x"], terms["y"], terms["z"], SCANNER_FROM_RAS)
