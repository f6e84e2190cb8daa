"""Both images of a deformable registration on one box, and what is known of them step by step.

Volumes at every resolution, masks, the cavity once it is seen, and the fits of :mod:`.matching` to them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import FILLED, FLUID, Image, Matrix, Progress
from IntraopMRIReconstructionLib.errors import Cancelled, RegistrationError
from IntraopMRIReconstructionLib.geometry import bounding_box, invert, resample_matrix

from .brain_mask import brain_of
from .cavity import RIM_MM, find_cavity, find_gap, find_stains, hold_of, scanned, with_rim
from .inverse import before_moving, inverse_of
from .lattice import LOOSE, Basis, Lattice, firm_nodes
from .matching import LevelFit, LevelImages
from .normalise import locally_normalised
from .sampling import BoolArray, Float32Array, Volume, checked_volume, mask_on, resampled, sample
from .tones import Tones

#: Resolutions (mm), lattice spacings in mm, steps: coarse ones see 20 mm, fine ones half a millimetre.
LEVELS = ((8.0, 32.0, 12), (4.0, 16.0, 14), (2.0, 8.0, 10), (1.0, 8.0, 6))
#: The cavity's surroundings: this far, mm, and steps there at twice the last resolution.
NEAR_MM, NEAR_STEPS = 24.0, 6
#: Weight of the bending energy; chosen, as the neighbourhood of the normalisation, on cases of the lab's generator and
#: on shifts solved by linear elasticity, none of them the benchmark's: softer follows noise, stiffer cuts the peak at
#: the wall.
STIFFNESS = 0.05
#: Masks and displacements live on this grid; both are smooth on that scale.
MASK_MM = 2.0
#: Fewer common brain voxels than this is a wrong pose or a wrong mask.
MIN_COMMON_VOXELS = 5000
#: Grey values that correlate less than this part of what a translation of tones reaches are another contrast.
RISING_TOGETHER = 0.6
#: Room around the brain, mm: displacements look up values outside it.
MARGIN_MM = 14.0


class Work:
    """Both images on one box around the brain, the preoperative one already moved by the rigid pose.

    Images at 1 mm, so that their reductions stay sharp; masks (brain, tumour, cavity) on the grid of 2 mm.
    """

    def __init__(
        self,
        fixed: Image,
        moving: Image,
        pose: Matrix,
        fixed_mask: Image | None,
        moving_mask: Image | None,
        tumour: Image | None,
        progress: Progress,
        threads: int,
        frame: Image | None = None,
    ) -> None:
        """``frame``: brain of an earlier scan on the same grid, around which the box lies instead."""
        self._progress, self._threads = progress, threads
        self.still(0.0, "cutting out the brain")
        whole = Volume(checked_volume(fixed, "intraoperative"), fixed.ras_from_ijk).shrunk(1.0)
        other = Volume(checked_volume(moving, "preoperative"), moving.ras_from_ijk).shrunk(1.0)
        # What the outline is not needed for goes on beside it.
        with ThreadPoolExecutor(1) as pool:
            outline = pool.submit(_brain, whole.shrunk(MASK_MM), fixed_mask, "intraoperative")
            moving_brain = _brain(other.shrunk(MASK_MM), moving_mask, "preoperative")
            #: Around it lies the box.
            self.frame = outline.result() if frame is None else frame
            self.fixed = _boxed(whole, self.frame)
            self.moving = Volume(
                resampled(
                    other.values,
                    self.fixed.values.shape,
                    resample_matrix(self.fixed.ras_from_ijk, other.ras_from_ijk, invert(pose)),
                    threads=threads,
                ),
                self.fixed.ras_from_ijk,
            )
            brain = outline.result()
        self._reduced: dict[float, tuple[Volume, Volume]] = {}
        self._moving_seen: dict[float, Float32Array] = {}
        self.masks, _ = self._at(MASK_MM)
        self.brain = mask_on(brain, self.masks, "intraoperative")
        self.moving_brain = mask_on(_moved(moving_brain, pose), self.masks, "preoperative")
        reach_image = moving_brain.with_array(np.ones_like(moving_brain.array))
        #: Where the preoperative volume has voxels at all: beyond it nothing is matched.
        self.covered = mask_on(_moved(reach_image, pose), self.masks, "preoperative")
        self.tumour: BoolArray = np.zeros_like(self.brain)
        if tumour is not None:
            self.tumour = mask_on(_moved(tumour, pose), self.masks, "tumour")
        #: All of it, and the part of it that is no fluid or air.
        self.cavity: BoolArray = np.zeros_like(self.brain)
        self.filled: BoolArray = self.cavity
        #: The same as an earlier scan of the same position showed it.
        self.seen_filled: BoolArray = self.cavity
        #: No cavity, but something else than what was carried there.
        self.stayed: BoolArray = self.cavity
        #: The cavity, and beside it where its wall has the grey values of surgery.
        self._gone: BoolArray = self.cavity
        #: Where the preoperative image shows what is gone now.
        self._taken: BoolArray = self.cavity
        self._tumour_trusted = False
        #: What holds the cavity's walls together, see :func:`.cavity.hold_of`.
        self._hold = LOOSE
        self.remapped = self._same_tones()

    def _same_tones(self) -> bool:
        """Translate the preoperative grey values when the two contrasts do not rise together. True when it was done."""
        both = np.flatnonzero(self.brain & self.moving_brain)
        if both.size < MIN_COMMON_VOXELS:
            raise RegistrationError(
                f"the two brains share {both.size} voxels of {MASK_MM:g} mm, at least {MIN_COMMON_VOXELS} are needed: "
                "check the rigid pose and the masks"
            )
        fixed = self.masks.values.ravel()[both]
        moving = self._at(MASK_MM)[1].values.ravel()[both]
        low, high = np.percentile(moving, (0.5, 99.5))
        tones = Tones.learnt(moving, fixed, (float(low), max(float(high), float(low) + 1e-6)))
        plain = float(np.corrcoef(fixed, moving)[0, 1])
        translated = float(np.corrcoef(fixed, tones.mapped(moving)[0])[0, 1])
        if plain > RISING_TOGETHER * translated:
            return False
        self.moving = Volume(tones.mapped(self.moving.values)[0], self.moving.ras_from_ijk)
        self._reduced.clear()
        return True

    def _at(self, spacing: float) -> tuple[Volume, Volume]:
        """Both images at a resolution in mm, reduced once."""
        if spacing not in self._reduced:
            self._reduced[spacing] = self.fixed.shrunk(spacing), self.moving.shrunk(spacing)
        return self._reduced[spacing]

    def still(self, fraction: float, what: str) -> None:
        """Tell the progress; raises Cancelled when it is answered with False."""
        if not self._progress(fraction, what):
            raise Cancelled(f"deformable registration was stopped while {what}")

    def _told(self, start: float, width: float, what: str, fraction: float) -> None:
        self.still(start + width * fraction, what)

    def fit(
        self, levels: list[tuple[float, float, int]], coefficients: Float32Array | None, span: tuple[float, float]
    ) -> tuple[Lattice, Float32Array]:
        """Coarse to fine over ``levels``; progress runs over ``span``."""
        box_mm = tuple((np.array(self.fixed.values.shape) * self.fixed.spacing_kji_mm).tolist())
        lattice = Lattice(levels[0][1], (box_mm[0], box_mm[1], box_mm[2]))
        if coefficients is None:
            coefficients = np.zeros((3, *lattice.shape), dtype=np.float32)
        for number, (spacing, nodes_mm, steps) in enumerate(levels):
            while lattice.spacing_mm > nodes_mm:
                coefficients = lattice.refined(coefficients)
                lattice = lattice.finer()
            start, width = span[0] + (span[1] - span[0]) * number / len(levels), (span[1] - span[0]) / len(levels)
            self.last = LevelFit(self.images(spacing), lattice, STIFFNESS, self._threads, firm=self._firm(lattice))
            coefficients = self.last.fitted(
                coefficients, steps, partial(self._told, start, width, f"fitting at {spacing:g} mm")
            )
        return lattice, coefficients

    def fit_near(self, lattice: Lattice, coefficients: Float32Array, spacing: float) -> Float32Array:
        """A few steps at ``spacing`` around the cavity alone; as they are without one or without finer voxels."""
        fixed, moving = self._at(spacing)
        if not self.cavity.any() or fixed.values.shape == self._at(2 * spacing)[0].values.shape:
            return coefficients
        self._leave_out(self._displacement(lattice, coefficients))
        voxel = fixed.spacing_kji_mm
        scale = self.masks.spacing_kji_mm / voxel
        box = bounding_box(self.cavity, np.ceil(NEAR_MM / self.masks.spacing_kji_mm).astype(int))
        start = np.array([int(s.start * n) for s, n in zip(box, scale, strict=True)])
        stop = np.minimum([int(np.ceil(s.stop * n)) for s, n in zip(box, scale, strict=True)], fixed.values.shape)
        part, nodes = lattice.part(start * voxel, (stop - start) * voxel)
        inner = coefficients[(slice(None), *nodes)]
        # No displacement is longer than the longest coefficient: so far outside the box lies tissue that came into it.
        room = np.ceil((float(np.abs(inner).max()) + 2.0) / voxel).astype(int)
        low, high = np.maximum(start - room, 0), np.minimum(stop + room, fixed.values.shape)
        k, j, i = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        images = self._normalised(fixed.cut((k, j, i)), self._seen(moving.cut((k, j, i))))
        before, after = (start - low).tolist(), (stop - low).tolist()
        k, j, i = (slice(a, b) for a, b in zip(before, after, strict=True))
        shown = replace(
            images,
            fixed=np.ascontiguousarray(images.fixed[k, j, i]),
            weight=np.ascontiguousarray(images.weight[k, j, i]),
            moving_start=tuple(before),
        )
        firm = self._firm(lattice)
        fit = LevelFit(shown, part, STIFFNESS, self._threads, firm=None if firm is None else firm[nodes], held=True)
        told = partial(self._told, 0.85, 0.06, f"fitting at {spacing:g} mm around the cavity")
        result = coefficients.copy()
        result[(slice(None), *nodes)] = fit.fitted(inner, NEAR_STEPS, told, 0.0)
        return result

    def _firm(self, lattice: Lattice) -> Float32Array | None:
        return firm_nodes(lattice, self._gone, self.masks.spacing_kji_mm, self._hold) if self._gone.any() else None

    def images(self, spacing: float) -> LevelImages:
        """Both normalised at a resolution in mm, with what is known about the cavity."""
        fixed, moving = self._at(spacing)
        if spacing not in self._moving_seen:
            self._moving_seen[spacing] = self._seen(moving)
        return self._normalised(fixed, self._moving_seen[spacing])

    def _seen(self, moving: Volume) -> Float32Array:
        # Grey values are compared with those around them: around the cavity both images must show the same tissue.
        return locally_normalised(
            moving.values, self._on(self.moving_brain & ~self._taken, moving), moving.spacing_kji_mm
        )

    def _normalised(self, fixed: Volume, moving: Float32Array) -> LevelImages:
        """``moving``: already normalised."""
        counted = self._on(self.brain & self.covered & ~self._gone, fixed)
        trusted = self.covered if self._tumour_trusted else self.covered & ~self.tumour
        return LevelImages(
            locally_normalised(fixed.values, counted, fixed.spacing_kji_mm),
            moving,
            np.where(counted > 0.5, counted, 0).astype(np.float32),
            fixed.spacing_kji_mm,
            None if trusted.all() else self._on(trusted, fixed),
        )

    def _on(self, mask: BoolArray, grid: Volume) -> Float32Array:
        """A mask as fractions 0..1 on the grid of another resolution."""
        volume = Volume(mask.astype(np.float32), self.masks.ras_from_ijk)
        shrunk = volume.shrunk(float(grid.spacing_kji_mm.min()))
        if shrunk.values.shape == grid.values.shape and np.allclose(shrunk.ras_from_ijk, grid.ras_from_ijk):
            return shrunk.values
        index = resample_matrix(grid.ras_from_ijk, volume.ras_from_ijk)
        return np.asarray(resampled(volume.values, grid.values.shape, index, threads=self._threads), dtype=np.float32)

    def look(self, lattice: Lattice, coefficients: Float32Array, cavity: bool = True, *, wall: bool = False) -> None:
        """Look for the ``cavity`` and the stains on its ``wall`` with the image carried over by ``coefficients``."""
        self.still(0.37 if not wall else 0.7, "looking for the cavity")
        fixed, moving = self._at(MASK_MM)
        voxel, shape = fixed.spacing_kji_mm, fixed.values.shape
        displacement = self._displacement(lattice, coefficients)
        points = (np.indices(shape, dtype=np.float32) + displacement).reshape(3, -1)

        def carried(values: npt.NDArray[np.generic]) -> Float32Array:
            return sample(values.astype(np.float32), points, self._threads, slopes=False).values.reshape(shape)

        brain, before = carried(self.moving_brain) > 0.7, carried(moving.values)
        if cavity:
            tumour = carried(self.tumour) > 0.5
            # Translated grey values are good enough to match by, not to say what is tissue.
            fluid, filled, self.stayed = find_cavity(fixed.values, before, self.brain, brain, tumour, voxel)
            self.filled = ((filled & (not self.remapped)) | self.seen_filled) & ~fluid
            # Where the fit is coarse a tumour that is whole looks like what fills its place: then it is left out only.
            self.cavity = fluid | self.filled if wall else fluid
        self._know_cavity()
        self._gone |= self.stayed
        self._hold = hold_of(self.cavity, displacement)
        if wall:
            self._gone = self._gone | find_stains(fixed.values, before, self.brain & brain, self.cavity, voxel)
        self._leave_out(displacement)

    def _displacement(self, lattice: Lattice, coefficients: Float32Array) -> Float32Array:
        """(3, k, j, i) on the masks' grid in its voxels."""
        voxel = self.masks.spacing_kji_mm
        per_voxel = (1.0 / voxel).astype(np.float32)[:, None, None, None]
        return Basis(lattice, self.masks.values.shape, voxel).evaluated(coefficients) * per_voxel

    def moved_mm(self, lattice: Lattice, coefficients: Float32Array) -> Float32Array:
        """The displacement (3, k, j, i) on the masks' grid, mm along its axes."""
        return Basis(lattice, self.masks.values.shape, self.masks.spacing_kji_mm).evaluated(coefficients)

    def _leave_out(self, displacement: Float32Array) -> None:
        """What is gone takes no part in the grey values around the preoperative tissue either."""
        self._taken = before_moving(self._gone, displacement, self._threads)
        self._moving_seen.clear()

    def use_cavity(self, cavity: Image) -> None:
        """Take a given cavity; an empty one says that nothing was resected."""
        if np.any(cavity.array):
            self.cavity = mask_on(cavity, self.masks, "cavity")
        self._know_cavity()

    def _know_cavity(self) -> None:
        """From now on the cavity and its wall are not matched, and the tumour that is left is, unless clot looks so."""
        self._tumour_trusted = not self.filled.any()
        self._gone = self.cavity.copy()
        if self.cavity.any():
            voxel = self.masks.spacing_kji_mm
            box = bounding_box(self.cavity, np.ceil(RIM_MM / voxel).astype(int))
            self._gone[box] = with_rim(self.cavity[box], voxel)

    def missing(self) -> float:
        """Part of the preoperative brain, as far as it was scanned, that the intraoperative outline does not hold."""
        before = self.moving_brain & scanned(self.masks.values)
        return float((before & ~self.brain).sum() / max(1, before.sum()))

    def gap(self) -> Image:
        """Where the brain has let go of the dura, on the grid of 2 mm; see :func:`.cavity.find_gap`."""
        grid = self.masks
        found = find_gap(grid.values, self.brain, self.moving_brain, self.cavity, grid.spacing_kji_mm)
        return Image(found.astype(np.uint8), grid.ras_from_ijk, "gap")

    def result(self, lattice: Lattice, coefficients: Float32Array) -> tuple[Image, Image, Image, Image]:
        """Shift, inverse shift, cavity and brain on the grid of 2 mm."""
        grid = self.masks
        voxel = grid.spacing_kji_mm.astype(np.float32)[:, None, None, None]
        displacement = self._displacement(lattice, coefficients)
        along_axes, inverse = displacement * voxel, inverse_of(displacement, self._threads) * voxel
        axes = (grid.ras_from_ijk[:3, :3] / np.linalg.norm(grid.ras_from_ijk[:3, :3], axis=0))[:, ::-1]

        def image(field: Float32Array, name: str) -> Image:
            ras = np.einsum("rc,ckji->kjir", axes.astype(np.float32), field, optimize=True)
            return Image(np.ascontiguousarray(ras), grid.ras_from_ijk, name)

        return (
            image(along_axes, "brain shift"),
            image(inverse, "inverse brain shift"),
            Image(np.where(self.filled, FILLED, FLUID * self.cavity).astype(np.uint8), grid.ras_from_ijk, "cavity"),
            Image(self.brain.astype(np.uint8), grid.ras_from_ijk, "brain"),
        )


def preoperative_brain(image: Image) -> Image:
    """Brain in a preoperative volume, as every registration of it outlines it: a mask for all of them.

    Raises DataError for what is no volume, RegistrationError when no brain is found.
    """
    whole = Volume(checked_volume(image, "preoperative"), image.ras_from_ijk)
    return _brain(whole.shrunk(1.0).shrunk(MASK_MM), None, "preoperative")


def _brain(volume: Volume, mask: Image | None, what: str) -> Image:
    inside = brain_of(volume) if mask is None else mask_on(mask, volume, what)
    return Image(inside.astype(np.uint8), volume.ras_from_ijk)


def _moved(mask: Image, pose: Matrix) -> Image:
    return Image(mask.array, pose @ mask.ras_from_ijk)


def _boxed(volume: Volume, brain: Image) -> Volume:
    """Cut to the brain with a margin, and to a multiple of the coarsest reduction so that every level fills the box."""
    voxels = np.round(brain.spacing_mm[::-1] / volume.spacing_kji_mm).astype(int)
    margin = np.ceil(MARGIN_MM / volume.spacing_kji_mm).astype(int)
    starts, stops = zip(*((s.start, s.stop) for s in bounding_box(brain.array != 0)), strict=True)
    low = np.maximum(np.array(starts) * voxels - margin, 0)
    high = np.minimum(np.array(stops) * voxels + margin, volume.values.shape)
    k, j, i = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    cut = volume.cut((k, j, i))
    coarsest = np.maximum(1, np.round(LEVELS[0][0] / cut.spacing_kji_mm)).astype(int)
    padding = (-np.array(cut.values.shape)) % coarsest
    values = np.pad(cut.values, [(0, int(p)) for p in padding])
    return Volume(np.ascontiguousarray(values), cut.ras_from_ijk)
