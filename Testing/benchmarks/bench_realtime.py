"""Live frames beside finufft and BART: golden-angle radial with 8 coils, 512 samples a spoke, matrix 256.

Times are the least of alternating repeats of the same spokes. finufft's bare adjoint is the transform alone, its plan
reused: no densities, no coil combination; ours is the picture. BART is its command-line program and reads and writes
its files. Data and truth are the closed-form head.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import finufft
import numpy as np
from benchmarks.bench_reconstruction import Bart, alternating
from benchmarks.common import Row, report
from IntraopMRIReconstructionLib.data import Encoding
from IntraopMRIReconstructionLib.operators import trajectory
from IntraopMRIReconstructionLib.operators.fourier import image_from_kspace
from IntraopMRIReconstructionLib.operators.nufft import ACCURACY, OVERSAMPLING, Nufft
from IntraopMRIReconstructionLib.operators.parallel import one_blas_thread
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.radial import SlidingWindow, iterative_sense
from IntraopMRIReconstructionLib.reconstruct.shots import Shots
from IntraopMRIReconstructionLib.simulate.analytic import (
    HEAD_2D,
    HEAD_3D,
    cartesian_kspace,
    grid_points_mm,
    kspace_at,
    ring_of_coils,
    voxel_means,
)

MATRIX, READOUT, COILS, SPOKES, FIELD_MM = 256, 512, 8, 32, 240.0
KOOSH_MATRIX, KOOSH_SPOKES = 64, 3200
ITERATIONS = 10
THREADS = 2
REPEATS = 40
NOISE = 0.01
SEED = 20240229
BART = shutil.which("bart")


class Case:
    """32 noisy spokes of the head, the maps of its coils, and what the picture should be."""

    def __init__(self) -> None:
        self.angles = np.arange(SPOKES) * trajectory.GOLDEN_ANGLE_RAD
        self.k = trajectory.radial(self.angles, READOUT, MATRIX)
        coils = ring_of_coils(COILS, FIELD_MM)
        clean = kspace_at(self.k.astype(np.float64) / FIELD_MM, HEAD_2D, coils) * MATRIX / FIELD_MM**2
        noise = np.random.default_rng(SEED).standard_normal((*clean.shape, 2)).view(np.complex128)[..., 0]
        self.data = (clean + noise * NOISE / np.sqrt(2)).astype(np.complex64)
        points = grid_points_mm((MATRIX, MATRIX), (FIELD_MM, FIELD_MM))
        sensitivities = np.stack([coil.at(points) for coil in coils])
        strength = np.sqrt((np.abs(sensitivities) ** 2).sum(axis=0))
        self.maps = (sensitivities / strength).astype(np.complex64)
        self.truth = voxel_means((MATRIX, MATRIX), (FIELD_MM, FIELD_MM), HEAD_2D).real * strength
        self.weights = trajectory.radial_density(self.angles, READOUT, MATRIX, SPOKES)

    def error(self, image: np.ndarray) -> float:
        """NRMSE after the best common scale."""
        found = np.abs(image)
        scale = float((found * self.truth).sum() / (found**2).sum())
        return float(np.linalg.norm(scale * found - self.truth) / np.linalg.norm(self.truth))


def bare_plan(case: Case, threads: int) -> Any:
    """finufft's adjoint of the spokes, planned with the settings that the product uses."""
    settings = {"dtype": "complex64", "upsampfac": OVERSAMPLING, "nthreads": threads, "showwarn": 0}
    plan = finufft.Plan(1, (MATRIX, MATRIX), COILS, ACCURACY, 1, **settings)
    turned = case.k.reshape(-1, 2) * np.float32(2 * np.pi / MATRIX)
    plan.setpts(np.ascontiguousarray(turned[:, 1]), np.ascontiguousarray(turned[:, 0]))
    return plan


def radial_frames(case: Case) -> list[Row]:
    """A frame of 32 spokes that are all there (sliding window), with one spoke more, and a whole new set of spokes."""
    stream = SlidingWindow(MATRIX, COILS, READOUT, SPOKES, THREADS)
    for number, angle in enumerate(case.angles):
        stream.add(case.data[:, number], angle)
    stream.calibrate(case.maps)
    nufft = Nufft(case.k, (MATRIX, MATRIX), COILS, THREADS, "finufft")
    flat = np.ascontiguousarray(case.data.reshape(COILS, -1))
    weighted = (case.data * case.weights).astype(np.complex64)
    images = nufft.adjoint(weighted)
    errors = case.error(stream.frame().image), case.error((images * case.maps.conj()).sum(axis=0))
    plans = [bare_plan(case, threads) for threads in (1, THREADS)]
    least = alternating(lambda: plans[0].execute(flat), lambda: plans[1].execute(flat), REPEATS)
    bare = plans[int(np.argmin(least))]  # beside other work one thread may be quicker than two

    def peer() -> object:
        return bare.execute(flat)

    def after(new: int) -> None:
        for number in range(new):
            stream.add(case.data[:, number], case.angles[number])
        stream.frame()

    rows = []
    for new, goal in ((0, 1.5), (1, 1.5), (8, None), (SPOKES, None)):
        times = alternating(lambda new=new: after(new), peer, REPEATS)  # type: ignore[misc]
        ratio = times[1] / times[0]
        words = f"<= {goal} x finufft" if goal else "told, no goal"
        holds = goal is None or times[0] <= goal * times[1]
        work = f"radial frame of {SPOKES} spokes, {new} of them new / finufft's bare adjoint (s)"
        rows.append(Row(work, *times, ratio, words, holds, *errors))
    at_once = shots_of(case)
    times = alternating(lambda: reconstruct(at_once, "gridding", threads=THREADS), peer, REPEATS)
    work = f"radial frame of {SPOKES} spokes that come at once, no coil maps / finufft's bare adjoint (s)"
    without_maps = np.sqrt((np.abs(images) ** 2).sum(axis=0))
    errors = case.error(reconstruct(at_once, "gridding", threads=THREADS).image.array[0]), case.error(without_maps)
    holds = times[0] <= 1.5 * times[1] and errors[0] <= 1.05 * errors[1]
    rows.append(Row(work, *times, times[1] / times[0], "<= 1.5 x finufft", holds, *errors))
    return rows


def shots_of(case: Case) -> Shots:
    """The spokes as a frame of any known trajectory: nothing is used of their being spokes in order."""
    header = encoding("spiral", (1, MATRIX, MATRIX), (5.0, FIELD_MM, FIELD_MM), is_3d=False)
    return Shots(case.data, case.k, np.zeros(SPOKES, np.int32), header)


def encoding(
    kind: Literal["radial", "spiral"], matrix: tuple[int, int, int], fov: tuple[float, float, float], is_3d: bool
) -> Encoding:
    """Of a scan whose recon matrix is that of its k-space."""
    return Encoding("bench", kind, matrix, matrix, fov, fov, COILS, np.eye(4), is_3d=is_3d)


def kooshball() -> list[Row]:
    """Golden-means spokes in all directions of space, gridded, beside finufft's bare adjoint of all coils at once."""
    numbers, side = np.arange(KOOSH_SPOKES), KOOSH_MATRIX
    height, turn = (numbers * 0.46557123) % 1, 2 * np.pi * ((numbers * 0.6823278) % 1)
    across = np.sqrt(1 - height**2)
    directions = np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=-1)
    k = (directions[:, None] * ((np.arange(2 * side) - side) / 2)[:, None]).astype(np.float32)
    coils, parts = ring_of_coils(COILS, FIELD_MM, 3), HEAD_3D[:4]
    matrix, field = (side, side, side), (FIELD_MM, FIELD_MM, FIELD_MM)
    scale = side**1.5 / FIELD_MM**3
    data = (kspace_at(k.astype(np.float64) / FIELD_MM, parts, coils) * scale).astype(np.complex64)
    axis = np.arange(side) - side // 2
    ball = sum(np.square(a) for a in np.meshgrid(axis, axis, axis)) <= (side / 2) ** 2
    seen = (cartesian_kspace(matrix, field, parts, coils) * ball).astype(np.complex64)
    truth = np.sqrt((np.abs(image_from_kspace(seen, (1, 2, 3), THREADS)) ** 2).sum(axis=0))
    frame = Shots(data, k, np.zeros(KOOSH_SPOKES, np.int32), encoding("radial", matrix, field, is_3d=True))
    settings = {"dtype": "complex64", "upsampfac": OVERSAMPLING, "nthreads": 0, "showwarn": 0}
    plan = finufft.Plan(1, matrix, COILS, ACCURACY, 1, **settings)
    turned = k.reshape(-1, 3).T * np.float32(2 * np.pi / side)
    plan.setpts(*(np.ascontiguousarray(column) for column in turned[::-1]))

    def peer() -> np.ndarray:
        return np.asarray(plan.execute(np.ascontiguousarray(data.reshape(COILS, -1))))

    def error(image: np.ndarray) -> float:
        image = image * float((image * truth).sum() / (image**2).sum())
        return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))

    times = alternating(lambda: reconstruct(frame, "gridding", threads=THREADS), peer, 4)
    # The peer weights by the radius alone, as if the spokes lay evenly.
    radius = np.square(np.linalg.norm(k, axis=-1))
    weighted = np.asarray(plan.execute(np.ascontiguousarray((data * radius).astype(np.complex64).reshape(COILS, -1))))
    errors = (
        error(reconstruct(frame, "gridding", threads=THREADS).image.array),
        error(np.sqrt((np.abs(weighted) ** 2).sum(axis=0))),
    )
    holds = times[0] <= 2 * times[1] and errors[0] <= 1.05 * errors[1]
    work = f"kooshball of {KOOSH_SPOKES} spokes, {side} cubed, {COILS} coils / finufft's bare adjoint (s)"
    return [Row(work, *times, times[1] / times[0], "<= 2 x finufft at no more error", holds, *errors)]


def radial_sense(case: Case, bart: Bart) -> list[Row]:
    """Ten iterations of SENSE on the 32 spokes."""
    # BART: samples (1, readout, spokes, coils) and trajectory (3, readout, spokes), first index fastest.
    bart.write("spokes", case.data[..., None])
    bart.write("maps", case.maps[:, None])
    positions = np.zeros((SPOKES, READOUT, 3), dtype=np.complex64)
    positions[..., :2] = case.k
    bart.write("k", positions)

    def ours() -> np.ndarray:
        return iterative_sense(case.data, case.k, case.maps, case.weights, ITERATIONS, THREADS)

    def peer() -> None:
        bart.run("pics", "-l2", "-r", "0.001", "-i", str(ITERATIONS), "-t", "k", "spokes", "maps", "solved")

    times = alternating(ours, peer, 4)
    errors = case.error(ours()), case.error(bart.read("solved"))
    holds = times[0] < times[1] and errors[0] <= 1.05 * errors[1]
    work = f"iterative radial SENSE, {SPOKES} spokes, {ITERATIONS} iterations / BART (s)"
    return [Row(work, *times, times[1] / times[0], "faster at equal error", holds, *errors)]


def main() -> None:
    if BART is None:
        raise SystemExit("bart is missing: run Testing/system-packages.sh bench")
    print(f"closed-form head, {COILS} coils, {READOUT} samples, matrix {MATRIX}, {THREADS} threads")
    with tempfile.TemporaryDirectory() as folder, one_blas_thread():
        case = Case()
        report("realtime", [*radial_frames(case), *kooshball(), *radial_sense(case, Bart(Path(folder)))])


if __name__ == "__main__":
    main()
