"""Second opinions, never needed: greedy, installed on use, and BRAINSFit in a Slicer that has it.

Where an engine and ours disagree, neither is to be trusted.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import SimpleITK
from IntraopMRIReconstructionLib.data import Image, Matrix
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, resample_matrix
from scipy import ndimage

from .cavity import with_rim
from .deformable import DeformableRegistration
from .sampling import checked_volume, resampled

#: What to install for the cross-check (Apache-2.0).
REQUIREMENT = "picsl_greedy>=0.0.6"
#: Smoothing before the coarser grid is sampled, in its voxels.
ANTI_ALIAS = 0.4
#: Iterations at 4, 2 and 1 times the spacing of the grid.
ITERATIONS = "60x40x10"
#: BRAINSFit's own parameter names: a rigid pose by mutual information from the given start, the same on every run of
#: the same number of threads. Its default samples 0.2 % of the voxels, too few once part of the brain is gone.
BRAINSFIT_RIGID = {
    "useRigid": True,
    "initializeTransformMode": "Off",
    "costMetric": "MMI",
    "samplingPercentage": 0.02,
    "maskProcessingMode": "NOMASK",
}


def poses_apart_mm(first: Matrix, second: Matrix, brain: Image) -> float:
    """Largest distance in mm between where two poses intraop_from_preop put the tissue now inside ``brain`` (mask)."""
    kji = np.argwhere(brain.array != 0)[::17]
    if len(kji) == 0:
        raise DataError("the brain mask is empty: there is no tissue to compare two poses at")
    now = apply(brain.ras_from_ijk, kji[:, ::-1].astype(float))
    return float(np.linalg.norm(apply(second, apply(invert(first), now)) - now, axis=1).max())


def greedy_available() -> bool:
    """Whether the optional engine is installed."""
    return importlib.util.find_spec("picsl_greedy") is not None


def greedy_disagreement(
    fixed: Image, moving: Image, ours: DeformableRegistration, *, threads: int = 2
) -> tuple[Image, Image]:
    """Greedy's displacement (k, j, i, 3) RAS mm and its distance from ours (k, j, i) mm, both on our grid.

    Both start from the same pose with the same brain and cavity. Raises RegistrationError when greedy is not
    installed or fails, with what to do.
    """
    if not greedy_available():
        raise RegistrationError(f"the cross-check needs the package '{REQUIREMENT}': install it first")
    from picsl_greedy import Greedy3D

    grid, shape = ours.shift.ras_from_ijk, ours.shift.array.shape[:3]
    pose = ours.intraop_from_preop

    def on_grid(image: Image, what: str, to_grid: np.ndarray) -> SimpleITK.Image:
        sigma = ANTI_ALIAS * ours.shift.spacing_mm[::-1] / image.spacing_mm[::-1]
        values = ndimage.gaussian_filter(checked_volume(image, what), sigma)
        return SimpleITK.GetImageFromArray(resampled(values, shape, to_grid, threads=threads))

    images = {
        "fixed": on_grid(fixed, "intraoperative", resample_matrix(grid, fixed.ras_from_ijk)),
        "moving": on_grid(moving, "preoperative", resample_matrix(grid, moving.ras_from_ijk, invert(pose))),
    }
    gone = with_rim(ours.cavity.array != 0, ours.cavity.spacing_mm[::-1])
    mask = ((ours.brain.array != 0) & ~gone).astype(np.float32)
    engine = Greedy3D()
    try:
        engine.execute(
            f"-d 3 -m NCC 2x2x2 -i fixed moving -gm mask -n {ITERATIONS} -o warp -threads {threads} -V 0",
            **images,
            mask=SimpleITK.GetImageFromArray(mask),
            warp=None,
        )
    except RuntimeError as error:
        raise RegistrationError(f"greedy could not register the images: {error}") from error
    voxels = SimpleITK.GetArrayFromImage(engine["warp"]).astype(np.float64)
    theirs = voxels @ grid[:3, :3].T
    distance = np.linalg.norm(theirs - ours.shift.array, axis=-1).astype(np.float32)
    return (
        Image(theirs.astype(np.float32), grid, "brain shift by greedy"),
        Image(distance, grid, "disagreement with greedy (mm)"),
    )
