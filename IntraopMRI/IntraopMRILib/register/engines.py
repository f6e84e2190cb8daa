"""Second opinions, never needed: greedy, installed on use, and BRAINSFit in a Slicer that has it.

Where an engine and ours disagree, neither is to be trusted.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK
from IntraopMRIReconstructionLib.data import Image, Matrix, Measurement, Progress, no_progress
from IntraopMRIReconstructionLib.errors import Cancelled, DataError, RegistrationError
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
#: Tissue this near to the cavity moves most and is matched worst (mm).
NEAR_CAVITY_MM = 15.0
#: BRAINSFit's own parameter names: a rigid pose by mutual information from the given start, the same on every run of
#: the same number of threads. Its default samples 0.2 % of the voxels, too few once part of the brain is gone.
BRAINSFIT_RIGID = {
    "useRigid": True,
    "initializeTransformMode": "Off",
    "costMetric": "MMI",
    "samplingPercentage": 0.02,
    "maskProcessingMode": "NOMASK",
}


def greedy_available() -> bool:
    """Whether the optional engine is installed."""
    return importlib.util.find_spec("picsl_greedy") is not None


def greedy_disagreement(
    fixed: Image,
    moving: Image,
    ours: DeformableRegistration,
    *,
    threads: int = 2,
    progress: Progress = no_progress,
    python: str = sys.executable,
) -> tuple[Image, Image]:
    """Greedy's displacement (k, j, i, 3) RAS mm and its distance from ours (k, j, i) mm, both on our grid.

    Both start from the same pose with the same brain and cavity. Greedy runs in a process of its own: in ours it would
    hold the interpreter, and with it the screen, until it is done. ``python``: what to run it with. Raises
    RegistrationError when greedy is not installed or fails, with what to do, and Cancelled, with the process ended,
    when ``progress`` returns False.
    """
    if not greedy_available():
        raise RegistrationError(f"the cross-check needs the package '{REQUIREMENT}': install it first")
    grid, shape = ours.shift.ras_from_ijk, ours.shift.array.shape[:3]

    def on_grid(image: Image, what: str, to_grid: np.ndarray) -> np.ndarray:
        sigma = ANTI_ALIAS * ours.shift.spacing_mm[::-1] / image.spacing_mm[::-1]
        values = ndimage.gaussian_filter(checked_volume(image, what), sigma)
        return np.asarray(resampled(values, shape, to_grid, threads=threads))

    from_preop = resample_matrix(grid, moving.ras_from_ijk, invert(ours.intraop_from_preop))
    gone = with_rim(ours.cavity.array != 0, ours.cavity.spacing_mm[::-1])
    given = {
        "fixed": on_grid(fixed, "intraoperative", resample_matrix(grid, fixed.ras_from_ijk)),
        "moving": on_grid(moving, "preoperative", from_preop),
        "mask": ((ours.brain.array != 0) & ~gone).astype(np.float32),
    }
    with tempfile.TemporaryDirectory(prefix="greedy-") as name:
        folder = Path(name)
        for file, array in given.items():
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(folder / f"{file}.nrrd"))
        command = (
            f"-d 3 -m NCC 2x2x2 -i fixed.nrrd moving.nrrd -gm mask.nrrd -n {ITERATIONS} -o warp.nrrd "
            f"-threads {threads} -V 1"
        )
        _run_greedy(command, folder, progress, python)
        voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "warp.nrrd"))).astype(np.float64)
    theirs = voxels @ grid[:3, :3].T
    distance = np.linalg.norm(theirs - ours.shift.array, axis=-1).astype(np.float32)
    return (
        Image(theirs.astype(np.float32), grid, "brain shift by greedy"),
        Image(distance, grid, "disagreement with greedy (mm)"),
    )


def _run_greedy(command: str, folder: Path, progress: Progress, python: str) -> None:
    """Run one command of greedy in ``folder``; its lines of one iteration each are the progress."""
    script = "import sys, picsl_greedy; picsl_greedy.Greedy3D().execute(sys.argv[1])"
    total, done, last = sum(int(n) for n in ITERATIONS.split("x")), 0, ""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [python, "-c", script, command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows Slicer has no console to share
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line.strip() or last
                done += line.startswith("Level") and "Iter" in line
                if not progress(min(1.0, done / total), "greedy"):
                    raise Cancelled("the cross-check was stopped")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0 or not (folder / "warp.nrrd").exists():
        raise RegistrationError(f"greedy could not register the images: {last or 'it said nothing'}")


def poses_disagreement(ours: DeformableRegistration, theirs: Matrix) -> Image:
    """Distance (k, j, i) in mm between where our rigid pose and ``theirs`` (4, 4) put tissue, on our grid."""
    grid, shape = ours.shift.ras_from_ijk, ours.shift.array.shape[:3]
    k, j, i = np.indices(shape)
    now = apply(grid, np.stack([i, j, k], axis=-1).astype(np.float64))
    apart = np.linalg.norm(apply(theirs @ invert(ours.intraop_from_preop), now) - now, axis=-1)
    return Image(apart.astype(np.float32), grid, "disagreement with BRAINSFit (mm)")


def disagreement_summary(distance: Image, ours: DeformableRegistration, engine: str) -> tuple[Measurement, Measurement]:
    """How far two registrations are apart, 95th percentile in mm: in the brain, and near the cavity.

    ``distance`` (k, j, i) in mm on the grid of ``ours``. The second has no value without a cavity.
    """
    brain = (ours.brain.array != 0) & (ours.cavity.array == 0)
    if not brain.any():
        raise DataError("the brain mask is empty: there is no tissue to compare two registrations at")
    cavity = ours.cavity.array != 0
    near = np.zeros_like(brain)
    if cavity.any():
        near = brain & (ndimage.distance_transform_edt(~cavity, ours.cavity.spacing_mm[::-1]) <= NEAR_CAVITY_MM)
    based_on = (ours.fixed_uid, ours.moving_uid)
    said = "Distance between where this and the other registration put the same tissue: 95th percentile"
    found = []
    for where, part in (("in the brain", brain), (f"within {NEAR_CAVITY_MM:g} mm of the cavity", near)):
        value = float(np.percentile(distance.array[part], 95)) if part.any() else None
        missing = "" if part.any() else "no cavity was found"
        text = f"{said}, {where}"
        found.append(
            Measurement(f"Cross-check {engine}, {where}", value, "mm", text, based_on=based_on, missing_because=missing)
        )
    return found[0], found[1]
