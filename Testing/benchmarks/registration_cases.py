"""Simulated pairs with truth for the registration benchmark, and each engine behind one function.

Everybody gets the same two volumes on one 1 mm box around the brain, the preoperative one already moved by the same
rigid pose, and the same brain mask without the cavity. Everybody gives back where the tissue at given points was.
The engines with mutual information on B-splines get that mask with a margin beyond the brain: it halves their error.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from IntraopMRILib.register.deformable import DeformableRegistration, register_deformable
from IntraopMRILib.register.uncertainty import distance_mm
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, invert, resample_matrix
from IntraopMRIReconstructionLib.simulate.anatomy import load_anatomy
from IntraopMRIReconstructionLib.simulate.phantom import CONTRAST, make_brain_case
from IntraopMRIReconstructionLib.simulate.volumes import sitk_from_image
from scipy import ndimage

THREADS = 2
#: Voxels this near to the cavity are 'near', mm.
NEAR_MM = 15.0
MARGIN = 12
#: Margin (voxels) of the mask that B-splines with mutual information are given.
WIDER = 3

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pair:
    """One case. ``points``: intraoperative RAS (n, 3) in the brain; ``true_preop``: where each was; ``near``: (n,)."""

    name: str
    fixed: Image
    moving: Image
    fixed_mask: Image
    moving_mask: Image
    tumour: Image
    cavity: Image
    intraop_from_preop: npt.NDArray[np.float64]
    points: Points
    true_preop: Points
    near: npt.NDArray[np.bool_]

    def errors(self, preop: Points) -> Points:
        """Distance (n,) in mm of what an engine gave for ``points`` from the truth."""
        return np.asarray(np.linalg.norm(preop - self.true_preop, axis=1))


def make_pair(anatomy: str, difficulty: str, seed: int) -> Pair:
    """Simulate a case; about half a minute."""
    case = make_brain_case(seed, anatomy, difficulty)
    fixed, truth = case.noisy(CONTRAST), case.truth
    tissue, cavity = truth.brain.array != 0, truth.cavity.array != 0
    kji = np.argwhere(tissue)
    kji = kji[np.random.default_rng(seed).choice(len(kji), 60000, replace=False)]
    points = apply(fixed.ras_from_ijk, kji[:, ::-1].astype(float))
    near = distance_mm(truth.cavity)[tuple(kji.T)] < NEAR_MM
    head = load_anatomy(anatomy)
    return Pair(
        f"{anatomy} {difficulty}",
        fixed,
        case.preop,
        fixed.with_array((tissue | cavity).astype(np.uint8)),
        Image(head.brain.astype(np.uint8), head.ras_from_ijk),
        case.tumour,
        truth.cavity.with_array(cavity.astype(np.uint8)),
        np.array(truth.intraop_from_preop),
        points,
        np.asarray(truth.preop_from_intraop(points), dtype=np.float64),
        np.asarray(near),
    )


def save(pair: Pair, path: Path) -> None:
    """Write a pair for another process."""
    images = {n: getattr(pair, n) for n in ("fixed", "moving", "fixed_mask", "moving_mask", "tumour", "cavity")}
    arrays = {n: i.array for n, i in images.items()} | {f"{n}_matrix": i.ras_from_ijk for n, i in images.items()}
    rest = {n: getattr(pair, n) for n in ("intraop_from_preop", "points", "true_preop", "near")}
    np.savez(path, name=pair.name, **arrays, **rest)


def load(path: Path) -> Pair:
    """Read what :func:`save` wrote."""
    with np.load(path) as file:

        def image(name: str) -> Image:
            return Image(file[name], file[f"{name}_matrix"])

        return Pair(
            str(file["name"]),
            *(image("fixed"), image("moving"), image("fixed_mask")),
            *(image("moving_mask"), image("tumour"), image("cavity")),
            *(file["intraop_from_preop"], file["points"], file["true_preop"], file["near"]),
        )


@dataclass(frozen=True, eq=False)
class Box:
    """Both volumes on one box: float32 (k, j, i) at 1 mm; ``mask``: brain without cavity and its rim, ``wide``: with a

    margin outside the brain.
    """

    fixed: npt.NDArray[np.float32]
    moving: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    wide: npt.NDArray[np.uint8]
    ras_from_ijk: npt.NDArray[np.float64]

    @classmethod
    def of(cls, pair: Pair, pose: npt.NDArray[np.float64]) -> Box:
        inside = np.argwhere(pair.fixed_mask.array)
        low = np.maximum(inside.min(axis=0) - MARGIN, 0)
        high = np.minimum(inside.max(axis=0) + MARGIN + 1, pair.fixed.array.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        matrix = np.array(pair.fixed.ras_from_ijk)
        matrix[:3, 3] = apply(matrix, low[::-1].astype(float))
        fixed = np.ascontiguousarray(pair.fixed.array[box], np.float32)
        index = resample_matrix(matrix, pair.moving.ras_from_ijk, invert(pose))
        moving = ndimage.affine_transform(
            pair.moving.array.astype(np.float32),
            index[2::-1, 2::-1],
            index[2::-1, 3],
            output_shape=fixed.shape,
            order=1,
        )
        gone = ndimage.binary_dilation(pair.cavity.array[box] != 0, iterations=2)
        brain = pair.fixed_mask.array[box] != 0
        wide = ndimage.binary_dilation(brain, iterations=WIDER) & ~gone
        return cls(fixed, moving, (brain & ~gone).astype(np.uint8), wide.astype(np.uint8), matrix)

    def preop(self, pose: npt.NDArray[np.float64], field_ijk: npt.NDArray[Any], points: Points) -> Points:
        """Points through a displacement (k, j, i, 3) in voxels along i, j, k of this box, then through the pose."""
        ijk = apply(invert(self.ras_from_ijk), points)
        step = [ndimage.map_coordinates(field_ijk[..., c], ijk[:, ::-1].T, order=1, mode="nearest") for c in range(3)]
        return apply(invert(pose), apply(self.ras_from_ijk, ijk + np.stack(step, axis=1)))

    def image(self, what: str) -> SimpleITK.Image:
        return SimpleITK.GetImageFromArray(getattr(self, what))


Field = npt.NDArray[Any]


def greedy(iterations: str) -> Callable[[Box], Field]:
    """Greedy's diffeomorphic NCC with the mask, two threads."""

    def run(box: Box) -> Field:
        from picsl_greedy import Greedy3D

        engine = Greedy3D()
        engine.execute(
            f"-d 3 -m NCC 2x2x2 -i fixed moving -gm mask -n {iterations} -o warp -threads {THREADS} -V 0",
            fixed=box.image("fixed"),
            moving=box.image("moving"),
            mask=SimpleITK.Cast(box.image("mask"), SimpleITK.sitkFloat32),
            warp=None,
        )
        return SimpleITK.GetArrayFromImage(engine["warp"])

    return run


def simpleitk_rigid(pair: Pair) -> npt.NDArray[np.float64]:
    """intraop_from_preop by SimpleITK's Mattes mutual information at 2 mm, from the headers; itself LPS inside."""
    fixed, moving = (sitk_from_image(i) for i in (pair.fixed, pair.moving))
    fixed, moving = (SimpleITK.Cast(SimpleITK.BinShrink(i, [2, 2, 2]), SimpleITK.sitkFloat32) for i in (fixed, moving))
    start = SimpleITK.CenteredTransformInitializer(
        fixed, moving, SimpleITK.Euler3DTransform(), SimpleITK.CenteredTransformInitializerFilter.MOMENTS
    )
    method = SimpleITK.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(THREADS)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, 1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1, 0])
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    corners = np.vstack([np.zeros(3), np.eye(3) * 100.0]) + pair.points.mean(axis=0)
    flip = np.array([-1.0, -1.0, 1.0])
    preop = np.array([found.TransformPoint((c * flip).tolist()) for c in corners]) * flip
    matrix = np.eye(4)
    matrix[:3, :3] = (preop[1:] - preop[0]).T / 100.0
    matrix[:3, 3] = preop[0] - matrix[:3, :3] @ corners[0]
    return invert(matrix)


def simpleitk_bspline(box: Box) -> Field:
    """SimpleITK's B-spline with Mattes mutual information as its documentation's multi-resolution example has it: the

    mesh (2, 4, 8 cells) doubles with the resolution (4, 2, 1 mm), L-BFGS; 10 % of the voxels of the mask, evenly.
    """
    fixed, moving = box.image("fixed"), box.image("moving")
    method = SimpleITK.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(THREADS)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1, 1)
    method.SetMetricFixedMask(box.image("wide"))
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsLBFGS2(solutionAccuracy=1e-4, numberOfIterations=100, deltaConvergenceTolerance=1e-4)
    mesh = SimpleITK.BSplineTransformInitializer(fixed, [2, 2, 2])
    method.SetInitialTransformAsBSpline(mesh, inPlace=True, scaleFactors=[1, 2, 4])
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    found = method.Execute(fixed, moving)
    to_field = SimpleITK.TransformToDisplacementFieldFilter()
    to_field.SetReferenceImage(fixed)
    return SimpleITK.GetArrayFromImage(to_field.Execute(found))


def elastix(box: Box) -> Field:
    """itk-elastix B-spline, mutual information alone (with the bending penalty of its default map it crashes).

    24 mm between nodes: without the penalty the default of 16 mm and finer follows noise.
    """
    import itk

    parameters = itk.ParameterObject.New()
    chosen = parameters.GetDefaultParameterMap("bspline", 3, 24.0)
    chosen["Registration"] = ["MultiResolutionRegistration"]
    chosen["Metric"] = ["AdvancedMattesMutualInformation"]
    chosen["MaximumNumberOfIterations"], chosen["NumberOfSpatialSamples"] = ["500"], ["5000"]
    for unused in ("Metric0Weight", "Metric1Weight"):
        if unused in chosen:
            del chosen[unused]
    parameters.AddParameterMap(chosen)
    fixed, moving = (itk.image_from_array(a) for a in (box.fixed, box.moving))
    mask = itk.image_from_array(box.wide)
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=parameters, fixed_mask=mask, number_of_threads=THREADS, log_to_console=False
    )
    return np.asarray(itk.array_from_image(itk.transformix_deformation_field(moving, found)))


def ants_syn(**settings: Any) -> Callable[[Box], Field]:
    """ANTs SyN from the same rigid start; its defaults (Mattes) but for ``settings``."""

    def run(box: Box) -> Field:
        import ants

        fixed, moving, mask = (
            ants.from_numpy(np.ascontiguousarray(a.astype(np.float32).T)) for a in (box.fixed, box.moving, box.mask)
        )
        with tempfile.TemporaryDirectory() as folder:
            found = ants.registration(
                fixed,
                moving,
                type_of_transform="SyNOnly",
                initial_transform="Identity",
                mask=mask,
                outprefix=f"{folder}/",
                **settings,
            )
            warp = next(p for p in found["fwdtransforms"] if p.endswith(".nii.gz"))
            return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(warp))

    return run


ENGINES: dict[str, Callable[[Box], Field]] = {
    "greedy 60x20x0": greedy("60x20x0"),
    "greedy 100x50x10": greedy("100x50x10"),
    "SimpleITK B-spline MI": simpleitk_bspline,
    "itk-elastix": elastix,
    "ANTs SyN": ants_syn(),
    "ANTs SyN CC": ants_syn(syn_metric="CC", syn_sampling=2, reg_iterations=(100, 70, 50, 20)),
}


def run_ours(pair: Pair, pose: npt.NDArray[np.float64], mode: str) -> DeformableRegistration:
    """Ours: 'ours 2 mm', 'ours 1 mm', 'ours 2 mm auto cavity', 'ours 2 mm no mask'."""
    masked = "no mask" not in mode
    return register_deformable(
        pair.fixed,
        pair.moving,
        pose,
        fixed_mask=pair.fixed_mask if masked else None,
        moving_mask=pair.moving_mask if masked else None,
        tumour=pair.tumour,
        cavity=pair.cavity if masked and "auto" not in mode else None,
        finest_mm=1.0 if "1 mm" in mode else 2.0,
        threads=THREADS,
    )


def run(method: str, pair: Pair, pose: npt.NDArray[np.float64]) -> dict[str, Any]:
    """One engine on one pair: errors, seconds, memory; of ours also the uncertainty and the verdict."""
    if method.startswith("ours"):
        started = time.perf_counter()
        found = run_ours(pair, pose, method)
        seconds = time.perf_counter() - started
        ijk = apply(invert(found.uncertainty.ras_from_ijk), pair.points)
        radius = ndimage.map_coordinates(found.uncertainty.array, ijk[:, ::-1].T, order=1, mode="nearest")
        more: dict[str, Any] = {"radius": radius, "verdict": found.verdict.level.value, "reason": found.verdict.text}
        preop = found.preop_from_intraop(pair.points)
    else:
        box = Box.of(pair, pose)
        started = time.perf_counter()
        field = ENGINES[method](box)
        seconds = time.perf_counter() - started
        more = {}
        preop = box.preop(pose, field, pair.points)
    return {"errors": pair.errors(preop), "seconds": seconds, "memory_gb": _peak_gb(), **more}


def _peak_gb() -> float:
    """Peak resident memory of this process. Linux hands ru_maxrss down from the parent, so its own mark comes first."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM:"))
        return float(line.split()[1]) / 1024.0**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0**3
