"""Reconstruction beside BART, sigpy, pygrappa and scipy: the same k-space, the same machine, the same run.

Times are the least of several alternating repeats; for the plain FFTs the medians count too, and in 3D alone. BART is
its command-line program, so its times include reading and writing its files, as they do for anyone who calls it; what
is computed before (maps, calibration) is left out for all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.fft
from benchmarks.common import Row, report
from benchmarks.phantom import NOISE, SEED, Phantom, phantom
from IntraopMRIReconstructionLib.data import Encoding, KSpace, no_progress
from IntraopMRIReconstructionLib.operators import sensitivity
from IntraopMRIReconstructionLib.operators.fourier import resized
from IntraopMRIReconstructionLib.operators.parallel import one_blas_thread
from IntraopMRIReconstructionLib.reconstruct import compressed_sensing, grappa, sense
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.cartesian import root_sum_of_squares
from IntraopMRIReconstructionLib.reconstruct.result import stepping
from IntraopMRIReconstructionLib.reconstruct.unmixing import Lattice, Unmixing

THREADS = 2
SHAPE = (256, 256)
CALIBRATION_LINES = 24
#: An error may be so many times the peer's and still count as equal.
EQUAL = 1.05
#: BART's weights to choose from; its best error counts.
BART_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02)
BART = shutil.which("bart")

Complex = npt.NDArray[np.complex64]


Times = tuple[float, float]


def in_turn(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> npt.NDArray[np.float64]:
    """Seconds (2, repeats) of each, run in turn: what else the machine does meets both."""
    seconds = np.empty((2, repeats))
    for repeat in range(repeats):
        for number, work in enumerate((ours, peer)):
            start = time.perf_counter()
            work()
            seconds[number, repeat] = time.perf_counter() - start
    return seconds


def alternating(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> Times:
    """Least seconds of each, run in turn."""
    return _pair(in_turn(ours, peer, repeats).min(axis=1))


def _pair(seconds: npt.NDArray[np.float64]) -> Times:
    return float(seconds[0]), float(seconds[1])


def row(work: str, times: tuple[float, float], goal: float, errors: tuple[float, float] | None = None) -> Row:
    """A row whose goal is a speed ratio ``goal`` at no more than ``EQUAL`` times the peer's error."""
    ratio = times[1] / times[0]
    holds = ratio >= goal and (errors is None or errors[0] <= EQUAL * errors[1])
    words = f">= {goal:.3g} x" + (" at equal error" if errors else "")
    found = errors or (None, None)
    return Row(f"{work} (s)", *times, ratio, words, bool(holds), found[0], found[1])


class Bart:
    """BART's command-line program with its files in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "OPENBLAS_NUM_THREADS": "1"}

    def write(self, name: str, array: Complex) -> None:
        """Array (coils, z, y, x) as x, y, z, coils in column-major order."""
        (self._folder / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape[::-1])) + "\n")
        np.ascontiguousarray(array, dtype=np.complex64).tofile(self._folder / f"{name}.cfl")

    def read(self, name: str) -> Complex:
        sizes = [int(n) for n in (self._folder / f"{name}.hdr").read_text().splitlines()[1].split()]
        return np.fromfile(self._folder / f"{name}.cfl", dtype=np.complex64).reshape(sizes[::-1]).squeeze()

    def run(self, *words: str) -> None:
        assert BART is not None
        subprocess.run([BART, *words], cwd=self._folder, env=self._settings, check=True, capture_output=True)


@cache
def plane() -> Phantom:
    return phantom()


@cache
def maps() -> Complex:
    return sensitivity.espirit(resized(plane().kspace[:, 0], (CALIBRATION_LINES,) * 2), SHAPE)


def error(image: npt.NDArray[np.complexfloating]) -> float:
    return plane().error(np.abs(image)[None])


def rows_mask(acceleration: int, random: bool) -> npt.NDArray[np.bool_]:
    """(256, 1) acquired rows: every n-th, or as many at random and denser towards the centre; and the calibration."""
    mask = np.zeros(SHAPE[0], dtype=bool)
    first = SHAPE[0] // 2 - CALIBRATION_LINES // 2
    mask[first : first + CALIBRATION_LINES] = True
    if not random:
        mask[::acceleration] = True
        return mask[:, None]
    distance = np.abs(np.arange(SHAPE[0]) - SHAPE[0] // 2) / (SHAPE[0] / 2)
    density = np.where(mask, 0, (1 - distance) ** 1.5 + 0.05)
    rng = np.random.default_rng(SEED)
    count = SHAPE[0] // acceleration - CALIBRATION_LINES
    mask[rng.choice(SHAPE[0], count, replace=False, p=density / density.sum())] = True
    return mask[:, None]


def frame(kspace: Complex, acquired: npt.NDArray[np.bool_], is_3d: bool, step: int = 1) -> KSpace:
    """K-space (coils, z, y, x) as the assembler hands it over."""
    matrix = (kspace.shape[1], kspace.shape[2], kspace.shape[3])
    encoding = Encoding(
        "benchmark", "cartesian", matrix, matrix, matrix, matrix, len(kspace), np.eye(4), is_3d, acceleration=(1, step)
    )
    return KSpace(kspace, acquired.astype(np.uint8), encoding, (0, matrix[2]))


def fft_2d(bart: Bart) -> list[Row]:
    kspace = plane().kspace
    whole = frame(kspace, np.ones((1, SHAPE[0]), bool), False)

    def ours() -> npt.NDArray[np.float32]:
        return root_sum_of_squares(kspace, whole.encoding, stepping(no_progress), THREADS)

    def call() -> npt.NDArray[np.float32]:
        return np.asarray(reconstruct(whole, "fft", threads=THREADS).image.array)

    def bare() -> Complex:
        return np.asarray(scipy.fft.ifft2(kspace, workers=THREADS))

    def plain() -> npt.NDArray[np.float32]:
        images = scipy.fft.ifft2(scipy.fft.ifftshift(kspace, (2, 3)), workers=THREADS, norm="ortho")
        return np.sqrt((np.abs(scipy.fft.fftshift(images, (2, 3))) ** 2).sum(axis=0))

    errors = plane().error(call()), plane().error(plain())
    for reading, times in _readings(in_turn(call, bare, 1000)):
        print(f"2D frame with checks and provenance / scipy's bare FFT, {reading}: {times[1] / times[0]:.2f} x")
    rows = [
        row(f"2D FFT + RSS / scipy's bare FFT, {reading}", times, 1 / 1.2)
        for reading, times in _readings(in_turn(ours, bare, 1000))
    ]
    rows.append(row("2D frame / scipy FFT, shifts, RSS", alternating(call, plain, 200), 1.0, errors))
    bart.write("full", kspace)

    def command() -> None:
        bart.run("fft", "-iu", "3", "full", "image")
        bart.run("rss", "8", "image", "combined")

    times = alternating(call, command, 3)
    return [*rows, row("2D frame / BART", times, 1.0, (errors[0], error(bart.read("combined"))))]


def _readings(seconds: npt.NDArray[np.float64]) -> tuple[tuple[str, Times], tuple[str, Times]]:
    """Two ways to read :func:`in_turn`. The least of all is a matter of luck, by a quarter from run to run."""
    least = np.median(seconds.reshape(2, -1, 20).min(axis=2), axis=1)
    return ("least of 20", _pair(least)), ("medians", _pair(np.median(seconds, axis=1)))


def fft_3d(_bart: Bart) -> list[Row]:
    """Medians: the peer makes 1.3 GB of new arrays, which takes it once or three times as long by how quickly the
    system finds that memory. The least times, the peer when it need not wait for memory, are printed beside."""
    rng = np.random.default_rng(SEED)
    kspace = np.empty((8, 256, 256, 128), dtype=np.complex64)
    kspace.view(np.float32)[...] = rng.standard_normal((*kspace.shape[:3], 256), dtype=np.float32)
    whole = frame(kspace, np.ones((256, 256), bool), True)

    def ours() -> npt.NDArray[np.float32]:
        return np.asarray(reconstruct(whole, "fft", threads=THREADS).image.array)

    def plain() -> npt.NDArray[np.float32]:
        # The one shift that a magnitude needs, on the smallest array.
        images = scipy.fft.ifftn(kspace, axes=(1, 2, 3), workers=THREADS, norm="ortho")
        return np.asarray(scipy.fft.fftshift(np.sqrt((np.abs(images) ** 2).sum(axis=0))))

    expected = plain()
    assert np.abs(ours() - expected).max() < 1e-5 * expected.max()
    seconds = in_turn(ours, plain, 12)
    work = "3D 8 x 256 x 256 x 128 FFT + RSS / scipy FFT, RSS"
    print(f"{work}, the least of 12: {np.divide(*seconds.min(axis=1)[::-1]):.2f} x")
    return [row(f"{work}, medians", _pair(np.median(seconds, axis=1)), 1 / 0.65)]


def grappa_frames(_bart: Bart) -> list[Row]:
    from pygrappa import cgrappa

    rows = []
    kspace = plane().kspace[:, 0]
    block = resized(kspace, (CALIBRATION_LINES, 64))
    low = sensitivity.low_resolution(resized(block, (CALIBRATION_LINES,) * 2), SHAPE)
    for step, goal in ((2, 30.0), (4, 40.0)):
        acquired = kspace * rows_mask(step, random=False)
        weights = grappa.calibrate(block, Lattice(SHAPE, (step, 1)), low)
        peer_input = np.moveaxis(acquired, 0, -1).astype(np.complex128)
        peer_block = np.moveaxis(resized(kspace, (CALIBRATION_LINES, SHAPE[1])), 0, -1).astype(np.complex128)

        def peer(data: npt.NDArray = peer_input, calibration: npt.NDArray = peer_block) -> npt.NDArray:
            return cgrappa(data, calibration, kernel_size=(5, 5), coil_axis=-1)

        filled = np.moveaxis(peer(), -1, 0)
        images = scipy.fft.fftshift(scipy.fft.ifft2(scipy.fft.ifftshift(filled, (1, 2))), (1, 2))
        errors = error(weights.image(acquired)), error(np.sqrt((np.abs(images) ** 2).sum(axis=0)))
        times = alternating(partial(magnitude, weights, acquired), peer, 12)
        rows.append(row(f"GRAPPA R{step} frame / pygrappa cgrappa", times, goal, errors))
    return rows


def magnitude(weights: Unmixing, kspace: Complex) -> npt.NDArray[np.float32]:
    return np.abs(weights.image(kspace, THREADS))


def grappa_3d(bart: Bart) -> list[Row]:
    head = phantom(128, is_3d=True)
    mask = rows_mask(2, random=False)
    acquired = head.kspace * mask
    lines = np.broadcast_to(mask[:, 0], (128, SHAPE[0]))
    volume = frame(acquired, lines, True, step=2)
    result = reconstruct(volume, "grappa", threads=THREADS).image.array
    bart.write("volume", acquired)
    bart.write("maps3", head.maps)
    times = alternating(
        lambda: reconstruct(volume, "grappa", threads=THREADS),
        lambda: bart.run("pics", "-l2", "-r", "0.001", "-i", "10", "volume", "maps3", "solved3"),
        1,
    )
    errors = head.error(result), head.error(np.abs(bart.read("solved3")))
    return [row("3D R2 8 x 128 x 256 x 256, calibration included / BART pics", times, 7.0, errors)]


def sense_cg(bart: Bart) -> list[Row]:
    from sigpy.mri.app import SenseRecon

    mask = rows_mask(2, random=False)
    kspace = plane().kspace[:, 0] * mask

    def ours() -> Complex:
        return sense.conjugate_gradients(sense.Encoding(kspace, mask, maps(), THREADS), 10)

    def by_sigpy() -> npt.NDArray:
        return SenseRecon(kspace, maps(), max_iter=10, show_pbar=False).run()

    bart.write("under", kspace[:, None])
    bart.write("maps", maps()[:, None])

    def by_bart() -> None:
        bart.run("pics", "-l2", "-r", "0", "-i", "10", "-w", "1", "under", "maps", "solved")

    ours_error, by_sigpy_error = error(ours()), error(by_sigpy())
    times = alternating(ours, by_bart, 4)
    rows = [row("SENSE CG R2, 10 iterations / BART", times, 3.0, (ours_error, error(bart.read("solved"))))]
    rows.append(
        row("SENSE CG R2, 10 iterations / sigpy", alternating(ours, by_sigpy, 4), 1.0, (ours_error, by_sigpy_error))
    )
    return rows


def sparse(bart: Bart) -> list[Row]:
    rows = []
    bart.write("maps", maps()[:, None])
    methods = (
        ("L1-wavelet", 2, 4.0, 1.0, compressed_sensing.l1_wavelet, "W:3:0:{}"),
        ("L1-wavelet", 4, 2.0, 1.0, compressed_sensing.l1_wavelet, "W:3:0:{}"),
        ("TV", 2, 1.0, EQUAL, compressed_sensing.total_variation, "T:3:0:{}"),
    )
    for name, step, goal, margin, method, regulariser in methods:
        mask = rows_mask(step, random=True)
        kspace = plane().kspace[:, 0] * mask
        bart.write("random", kspace[:, None])

        def ours(data: Complex = kspace, where: npt.NDArray = mask, solve: Callable = method) -> Complex:
            return solve(sense.Encoding(data, where, maps(), THREADS))

        def by_bart(weight: float, word: str = regulariser) -> None:
            bart.run("pics", "-S", "-R", word.format(weight), "-i", "30", "random", "maps", "solved")

        best = (np.inf, 0.0)
        for weight in BART_WEIGHTS:
            by_bart(weight)
            best = min(best, (error(bart.read("solved")), weight))
        times = alternating(ours, partial(by_bart, best[1]), 3)
        errors = error(ours()), best[0]
        found = row(f"{name} R{step} random / BART at its best weight", times, goal, errors)
        rows.append(replace(found, holds=found.holds and errors[0] <= margin * errors[1]))
    return rows


def espirit(bart: Bart) -> list[Row]:
    block = resized(plane().kspace[:, 0], (CALIBRATION_LINES,) * 2)
    bart.write("calibration", resized(plane().kspace, (1, CALIBRATION_LINES, CALIBRATION_LINES)))
    bart.write("centre", resized(resized(plane().kspace[:, 0], (CALIBRATION_LINES,) * 2), SHAPE)[:, None])

    def departure(found: Complex) -> float:
        """Root mean square sine of the angle between found and true maps, inside the head."""
        length = np.sqrt(np.sum(np.abs(found) ** 2, axis=0))
        aligned = np.abs(np.sum(found.conj() * plane().maps[:, 0], axis=0)) / np.maximum(length, 1e-12)
        return float(np.sqrt(np.mean(1 - np.minimum(1, aligned[plane().mask[0]]) ** 2)))

    times = alternating(
        lambda: sensitivity.espirit(block, SHAPE),
        lambda: bart.run("ecalib", "-m1", "-c", "0", "-r", str(CALIBRATION_LINES), "centre", "found"),
        4,
    )
    errors = departure(sensitivity.espirit(block, SHAPE)), departure(bart.read("found"))
    return [row("ESPIRiT, 24 calibration lines / BART", times, 3.0, errors)]


def live(_bart: Bart) -> list[Row]:
    from benchmarks.live_path import end_to_end

    return end_to_end()


#: Each makes the rows of one subject; further subjects add theirs here.
SUBJECTS: Sequence[Callable[[Bart], list[Row]]] = (
    fft_2d,
    fft_3d,
    grappa_frames,
    sense_cg,
    sparse,
    espirit,
    grappa_3d,
    live,
)


def main() -> None:
    if BART is None:
        raise SystemExit("bart is missing: run Testing/system-packages.sh bench")
    print(f"MNI152 T1, 8 coils, noise {NOISE}, {THREADS} threads; errors are NRMSE inside the head (ESPIRiT: of maps)")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, one_blas_thread():
        for subject in SUBJECTS:
            print(f"{subject.__name__} ...", flush=True)
            rows += subject(Bart(Path(folder)))
    report("reconstruction", rows)


if __name__ == "__main__":
    main()
