"""Spokes in all directions of space (a kooshball): volumes by gridding with the share of space of each sample.

Sources: Glover, Pauly, Bradshaw, J Magn Reson Imaging 2:47 (1992) for projections in three dimensions; Chan et al.,
Magn Reson Med 61:354 (2009) for the golden means that turn them; any order of spokes will do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray
from ..operators.nufft import Nufft
from ..operators.trajectory import sphere_density, spoke_directions
from .result import Step, Work
from .shots import Shots

#: Gaps wider than this, in cycles per field of view, leave streaks or aliases that gridding cannot remove. The Nyquist
#: distance is 1; golden-angle spokes that are enough on average leave gaps of 1.5.
MAX_GAP = 1.6


def volume(frame: Shots, work: Work, step: Step, threads: int, phased: bool) -> npt.NDArray[np.float32]:
    """Root sum of squares (z, y, x) on the encoded grid; fills in ``work``.

    Raises ReconstructionError for another method than gridding, for what needs the phase, and for too few spokes.
    """
    if work.method not in ("auto", "gridding") or phased:
        what = "images with their phase" if phased else f"method '{work.method}'"
        raise ReconstructionError(f"spokes in all directions of space are reconstructed by gridding alone, not {what}")
    weights = sphere_density(frame.k)
    shots = len(frame.k)
    size = frame.encoding.encoded_matrix
    # Each of two ends of a spoke has this part of the sphere at the rim to itself.
    reach = float(np.linalg.norm(frame.k, axis=-1).max())
    ends = shots * (2 if float(spoke_directions(frame.k)[0].min(axis=1).mean()) < -reach / 2 else 1)
    gap = reach * float(np.sqrt(4 * np.pi / ends))
    found = f"{shots} spokes in all directions leave gaps of {gap:.1f} cycles per field of view at the rim"
    if work.method == "auto":
        work.method, work.reason = "gridding", found
    if gap > MAX_GAP:
        work.warnings.append(f"{found}: expect streaks")
    work.parameters.update(shots=shots, density="part of the sphere", gradient_delays="not looked for")
    nufft = Nufft(frame.k, size, 1, threads)
    power = np.zeros(size, dtype=np.float32)
    for number, samples in enumerate(frame.samples):
        step(number / len(frame.samples), f"gridding, coil {number + 1} of {len(frame.samples)}")
        weighted: ComplexArray = (samples * weights).reshape(1, -1)
        power += np.abs(nufft.adjoint(weighted)[0]) ** 2
    return np.asarray(np.sqrt(power), dtype=np.float32)
