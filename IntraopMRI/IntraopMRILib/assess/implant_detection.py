"""Where an implant really lies, from its signal void in MRI: an estimate with an uncertainty, since voids bloom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, MetalShift, Reason, Verdict
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage, optimize

from .implant import Spread, Trajectory

Array = npt.NDArray[np.float64]

SHIFT_SOURCE = "Schenck 1996; Butts et al. 2005"
#: Tissue around the search region from which the usual signal is known.
CONTEXT_MM = 8.0
#: The usual signal varies slowly: wider than any implant, narrower than the coil's bias.
LEVEL_SIGMA_MM = 10.0
#: A void must take away this part of the signal more than its surroundings; the lower one is good enough to look at.
GOOD_VOID, LEAST_VOID = 0.5, 0.3
#: The lower one counts only for a void that is at most so many voxels wide: metal leaves nothing of what lies in it, so
#: in a wider void with half of the signal left there is none.
THIN_VOXELS = 3.0
#: Void against real diameter: below, it is a vessel or cortex; above, blooming hides where the metal is.
DIAMETER_GOOD, DIAMETER_LEAST = (0.75, 1.6), (0.5, 3.0)
#: Void length against planned length. Implants keep their length; a much shorter void is something else.
LENGTH_GOOD, LENGTH_LEAST = (0.85, 1.15), (0.6, 1.5)
#: Trajectories that the first search tries at each end, across the search radius.
COARSE_STEPS = 9
#: From so many of them it is refined; voids that are as dark as this part of the darkest one may be the implant's.
STARTS, ALIKE = 4, 0.8
#: Tissue must be seen beside the void on each of so many sides, within this distance, so many voxels or the void's own
#: radius (none is round beside strong metal), along these parts of its shaft: what is dark as far as the edge of the
#: image is air, or where the scan ends.
SIDES, DEPTHS = 16, 60
BESIDE_MM, BESIDE_VOXELS = 4.0, 2.0
BESIDE_GOOD, BESIDE_LEAST = 0.6, 0.35
#: At each depth metal is darker than this part of what lies around it, so far beyond its void (mm, voxels): along these
#: parts of the shaft. A path that sulci and vessels cross is dark where they are: of 32 simulated brains without a lead
#: 11 gave one, dark along at most 0.67 of it; 20 leads were along 0.93 and more. In 32 others none was found.
DARKER, AROUND_MM, AROUND_VOXELS = 0.75, 1.5, 1.5
DARK_GOOD, DARK_LEAST = 0.9, 0.75
#: The void of something thin may be wider than it by so much (mm), however many times that is: 4 mm about a lead.
BLOOM_MM = 3.0
#: A void is fitted in about 20 steps; where there is none, a thousand lead nowhere.
MOST_STEPS = 100
#: An ideal fit of a sharp edge still errs by this part of a voxel.
EDGE_VOXELS = 0.15
#: Two errors that are alike likely up to their bounds, and know nothing of one another, stay within this times the root
#: of the sum of their squares in 95 of 100 cases (1.96 / sqrt 3; GUM, JCGM 100:2008, 4.3.7).
UNIFORM_95 = 1.13
#: Where the scan says all that decides on it: by the part of the widest void, over all directions of the field, that
#: the shaft shows, how far beyond an end signal is missing in the middle, and how far from there in 95 of 100 ends, as
#: parts of ``end_void_mm``; ALONG_95 of ``along_mm`` beside it. A shaft with a thin void lies along the field, which
#: comes out of its ends. Fitted to 130 simulated screws in fields of any direction; of 67 others the intervals of 64
#: held the truth.
SHOWN, END_MIDDLE, END_95, ALONG_95 = (0.5, 0.7, 0.9), (0.45, 0.42, 0.2), (0.8, 0.5, 0.25), 0.6
#: Standard deviations of the fit that an interval holds.
FIT_SIGMAS = 2.0


@dataclass(frozen=True, eq=False)
class DetectedImplant:
    """The fitted implant: axis in the image's RAS frame, where it may lie instead, trust, void mask (0 / 1).

    ``spread``: of its ends. ``shift``: how far the scan may have displaced the void, None when nobody said.
    """

    trajectory: Trajectory
    spread: Spread
    shift: MetalShift | None
    verdict: Verdict
    void: Image
    void_diameter_mm: float

    @property
    def uncertainty_mm(self) -> float:
        """Farthest that an end may lie from where it was found, mm."""
        return self.spread.reach_mm

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """How far the void may lie from the metal along the readout and across slices, and how wide it may be there."""
        if self.shift is None:
            return ()
        assumed = ", ".join(self.shift.assumed)
        said = f"; rests on {self.shift.basis}" if self.shift.basis else ""
        said += f"; taken at its worst because it is not known: {assumed}" if assumed else ""
        return tuple(
            Measurement(f"{self.trajectory.name}: {name}, {along}", value, "mm", f"{what}{said}", SHIFT_SOURCE,
                        based_on=(self.void.uid,))
            for along, shift, wide in (
                ("readout", self.shift.readout_mm, self.shift.readout_void_mm),
                ("slice direction", self.shift.slice_mm, self.shift.slice_void_mm),
            )
            for name, value, what in (
                (
                    "possible shift of the void",
                    shift,
                    f"Largest shift of the metal's void along the {along}, either way: part of every interval",
                ),
                ("possible width of the void", wide, f"Within it along the {along} the metal may take signal away"),
            )
            if name.startswith("possible shift") or value > 0
        )  # fmt: skip


def find_implant(
    image: Image, near: Trajectory, search_radius_mm: float = 10.0, shift: MetalShift | None = None
) -> DetectedImplant:
    """Fit the signal void of one implant close to ``near`` (planned, carried to the frame of ``image``).

    A coarse search over both ends, then a least-squares fit of a smooth-edged void cylinder, robust against other
    dark structures, ends below the voxel. What is missing beyond the ends on average is taken off, see :func:`_ends`.
    ``shift``: how far this scan may have displaced the void; where the void looks like the implant, at most half of the
    void's own radius counts. Raises AssessmentError when no void of that shape is there or the plan leaves the image.
    """
    if not (np.isfinite(search_radius_mm) and search_radius_mm > 0):
        raise AssessmentError(f"search_radius_mm must be positive, got {search_radius_mm}")
    if image.array.ndim != 3 or not np.isfinite(image.array).all():
        raise AssessmentError("the image must be one volume (k, j, i) of finite values to look for an implant")
    box, grid = _crop(image, near, search_radius_mm + CONTEXT_MM + near.diameter_mm)
    remaining = _relative_signal(np.asarray(image.array[box], dtype=np.float64), image.spacing_mm[::-1])
    start = _search(remaining, grid, near, search_radius_mm)
    fit = _fit(remaining, grid, start, near, float(image.spacing_mm.max()))
    beside, dark = _beside(remaining, grid, fit), _darker(remaining, grid, fit)
    verdict = _verdict(fit, near, float(image.spacing_mm.max()), beside, dark)
    if verdict.level is Level.REFUSED:
        raise AssessmentError(
            f"no signal void like '{near.name}' lies within {search_radius_mm:g} mm of its planned place "
            f"({verdict.text}): check the registration and that the scan covers the implant"
        )
    void = np.zeros(image.array.shape, dtype=np.uint8)
    void[box] = _void_mask(remaining, grid, fit)
    radius = near.diameter_mm / 2.0
    axis = (fit.tip - fit.entry) / np.linalg.norm(fit.tip - fit.entry)
    beyond, along_mm = _ends(fit, shift, radius)
    trajectory = Trajectory(fit.entry + beyond * axis, fit.tip - beyond * axis, near.diameter_mm, near.name)
    if shift is not None and fit.radius <= DIAMETER_GOOD[1] * radius:
        shift = shift.within(fit.radius)
    fit_mm = FIT_SIGMAS * float(np.hypot(EDGE_VOXELS * image.spacing_mm.max(), fit.sigma_mm))
    if shift is None:
        spread = Spread(fit_mm, axis, along_mm=along_mm)
    else:
        # The field at an end is not that of the rod over about one radius of the void: so much of the shift turns it.
        turning = min(1.0, 2.0 * fit.radius / float(np.linalg.norm(fit.tip - fit.entry)))
        spread = Spread(fit_mm, axis, shift.across_mm, along_mm, turning)
    return DetectedImplant(
        trajectory, spread, shift, verdict, image.with_array(void, f"void of {near.name}"), 2 * fit.radius
    )


def _ends(fit: _Fit, shift: MetalShift | None, radius: float) -> tuple[float, float]:
    """How far each fitted end lies beyond that of the metal, and how far from there it may be along the axis, mm.

    Calibrated where the scan says all that decides on it; bounds otherwise, and half of the shaft's bloom taken off.
    """
    bloom = 0.5 * (fit.radius - radius)
    if shift is None:
        return bloom, abs(bloom)
    if shift.assumed:
        # A flat end that is fitted there lies half way: where signal is thinned, some is left.
        return bloom, UNIFORM_95 * float(np.hypot(shift.along_mm, max(abs(bloom), 0.5 * shift.end_void_mm)))
    shown = fit.radius / max(shift.void_radius_mm, radius)
    middle, width = (float(np.interp(shown, SHOWN, part)) * shift.end_void_mm for part in (END_MIDDLE, END_95))
    # What is wider than any displacement makes it has another cause, dephasing, and may be so at the ends.
    other = 0.5 * max(0.0, fit.radius - max(shift.void_radius_mm, radius))
    along_mm = float(np.linalg.norm((ALONG_95 * shift.along_mm, width, other)))
    if fit.radius > DIAMETER_GOOD[1] * radius:
        # So wide a void may be as wide about the ends as about the shaft, as that of a lead in a gradient echo.
        along_mm = max(along_mm, fit.radius - radius - middle)
    return middle, along_mm


@dataclass(frozen=True, eq=False)
class _Fit:
    entry: Array
    tip: Array
    radius: float
    width: float
    depth: float
    sigma_mm: float


def _crop(image: Image, near: Trajectory, margin_mm: float) -> tuple[tuple[slice, slice, slice], Array]:
    """Slices (k, j, i) about the plan and the ``ras_from_ijk`` of the cropped grid."""
    ends = apply(invert(image.ras_from_ijk), np.stack([near.entry_ras_mm, near.tip_ras_mm]))
    size = np.array(image.array.shape)[::-1]
    outside = np.maximum(np.maximum(-0.5 - ends, ends - (size - 0.5)), 0.0) * image.spacing_mm
    if outside.any():
        raise AssessmentError(
            f"the planned '{near.name}' leaves the image by {np.linalg.norm(outside, axis=1).max():.1f} mm: scan a "
            "region that covers it, or check the registration"
        )
    pad = margin_mm / image.spacing_mm
    low = np.maximum(np.floor(ends.min(axis=0) - pad), 0).astype(int)
    high = np.minimum(np.ceil(ends.max(axis=0) + pad) + 1, size).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = low
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (k, j, i), np.asarray(image.ras_from_ijk @ shift)


def _relative_signal(array: Array, spacing: Array) -> Array:
    """Signal over the usual signal of the tissue around, 1 tissue, 0 void."""
    bright = array > 0.4 * np.percentile(array, 75.0)
    if not bright.any():
        raise AssessmentError("the image is empty around the planned implant: check the registration")
    sigma = LEVEL_SIGMA_MM / spacing
    weight = ndimage.gaussian_filter(bright.astype(np.float64), sigma)
    level = ndimage.gaussian_filter(np.where(bright, array, 0.0), sigma) / np.maximum(weight, 1e-6)
    return np.asarray(np.clip(array / np.maximum(level, 1e-12), 0.0, 2.0))


def _sample(volume: Array, grid: Array, points: Array) -> Array:
    index = apply(invert(grid), points.reshape(-1, 3))[:, ::-1]
    return np.asarray(ndimage.map_coordinates(volume, index.T, order=1, mode="nearest").reshape(points.shape[:-1]))


def _across(axis: Array) -> Array:
    """Two unit vectors (2, 3) at right angles to ``axis``."""
    return np.asarray(np.linalg.svd(axis[None])[2][1:])


def _search(remaining: Array, grid: Array, near: Trajectory, radius_mm: float) -> tuple[Array, Array]:
    """Entry and tip whose core is darkest against the ring around it, over shifts of both ends."""
    across = _across(near.direction)
    blurred = ndimage.gaussian_filter(remaining, 0.7)
    steps = np.linspace(-radius_mm, radius_mm, COARSE_STEPS)
    a, b = np.meshgrid(steps, steps, indexing="ij")
    inside = np.hypot(a, b) <= radius_mm * 1.01
    shifts = a[inside][:, None] * across[0] + b[inside][:, None] * across[1]

    def score(entry_shift: Array, tip_shift: Array) -> Array:
        """Ring minus core signal for shifts (n, 3)."""
        along = np.linspace(0.1, 0.9, 17)[:, None]
        line = near.entry_ras_mm + along * (near.tip_ras_mm - near.entry_ras_mm)
        centres = line + (1 - along) * entry_shift[:, None] + along * tip_shift[:, None]
        turn = np.arange(8) * np.pi / 4.0
        ring = np.cos(turn)[:, None] * across[0] + np.sin(turn)[:, None] * across[1]
        core = _sample(blurred, grid, centres).mean(axis=1)
        inner = _sample(blurred, grid, centres[:, ::2, None] + 0.5 * near.diameter_mm / 2.0 * ring[::2])
        outer = _sample(blurred, grid, centres[:, ::2, None] + (0.9 * near.diameter_mm + 1.0) * ring)
        return np.asarray(outer.mean(axis=(1, 2)) - 0.5 * (core + inner.mean(axis=(1, 2))))

    first, second = (index.reshape(-1) for index in np.meshgrid(range(len(shifts)), range(len(shifts)), indexing="ij"))
    # An implant lies roughly as planned: ends shifted against each other by more than the radius are not tried.
    likely = np.linalg.norm(shifts[first] - shifts[second], axis=1) <= radius_mm
    first, second = first[likely], second[likely]
    scores = score(shifts[first], shifts[second])
    both = np.concatenate([shifts[first], shifts[second]], axis=1)
    candidates: list[int] = []
    for index in np.argsort(scores)[::-1]:
        # Places that are apart: the darkest four are often all of one void, and that may be a neighbour's.
        if all(
            np.linalg.norm(both[index] - both[other]) > near.diameter_mm + steps[1] - steps[0] for other in candidates
        ):
            candidates.append(int(index))
        if len(candidates) == STARTS:
            break

    def cost(parameters: Array) -> float:
        return -float(score((parameters[:2] @ across)[None], (parameters[2:] @ across)[None])[0])

    found = [
        optimize.minimize(
            cost,
            np.concatenate([across @ shifts[first[c]], across @ shifts[second[c]]]),
            method="Nelder-Mead",
            options={"xatol": 0.05, "fatol": 1e-4, "maxfev": 250},
        )
        for c in candidates
    ]
    darkest = min(float(each.fun) for each in found)
    # Of voids that are nearly alike it is the one that lies as planned, and not its neighbour's.
    best = min((each for each in found if each.fun <= ALIKE * darkest), key=lambda each: float(np.linalg.norm(each.x)))
    return near.entry_ras_mm + best.x[:2] @ across, near.tip_ras_mm + best.x[2:] @ across


def _fit(remaining: Array, grid: Array, start: tuple[Array, Array], near: Trajectory, voxel_mm: float) -> _Fit:
    """Least squares of background x (1 - depth x smooth cylinder) over the voxels about the first axis."""
    entry, tip = start
    length = float(np.linalg.norm(tip - entry))
    axis = (tip - entry) / length
    across = _across(axis)
    k, j, i = np.indices(remaining.shape)
    ras = apply(grid, np.stack([i, j, k], axis=-1).reshape(-1, 3)) - entry
    x, y, z = ras @ across[0], ras @ across[1], ras @ axis
    radius = near.diameter_mm / 2.0
    reach = 2.0 * radius + 3.0 * voxel_mm
    beyond = max(0.25 * length, 6.0)
    keep = (np.hypot(x, y) < reach) & (z > -beyond) & (z < length + beyond)
    x, y, z, data = x[keep], y[keep], z[keep], remaining.reshape(-1)[keep]

    def model(p: Array) -> Array:
        # x and y of the axis at its two ends, the ends along it, radius, edge width, depth, background.
        t = z / length
        off = np.hypot(x - (p[0] + (p[2] - p[0]) * t), y - (p[1] + (p[3] - p[1]) * t))
        inside = _edge(p[6] - off, p[7]) * _edge(z - p[4], p[7]) * _edge(p[5] - z, p[7])
        return np.asarray(p[9] * (1.0 - p[8] * inside))

    noise = max(1.4826 * float(np.median(np.abs(data - np.median(data)))) / 2.0, 0.03)
    first = np.array([0, 0, 0, 0, 0, length, radius, 0.4 * voxel_mm, 0.8, float(np.median(data))])
    low = np.array([-reach] * 4 + [-beyond, 0.5 * length, 0.3 * radius, 0.15 * voxel_mm, 0.0, 0.2])
    high = np.array([reach] * 4 + [0.5 * length, length + beyond, reach, 1.5 * voxel_mm, 1.0, 2.0])
    fitted = optimize.least_squares(
        lambda p: model(p) - data,
        np.clip(first, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=noise,
        max_nfev=MOST_STEPS,
    )
    p = fitted.x
    covariance = np.linalg.pinv(fitted.jac.T @ fitted.jac) * float(np.mean((model(p) - data) ** 2))
    sigma = float(np.sqrt(np.max(np.diag(covariance)[:6])))

    def at(t: float) -> Array:
        share = t / length
        return np.asarray(
            entry + t * axis + (p[0] + (p[2] - p[0]) * share) * across[0] + (p[1] + (p[3] - p[1]) * share) * across[1]
        )

    return _Fit(at(float(p[4])), at(float(p[5])), float(p[6]), float(p[7]), float(p[8]), sigma)


def _edge(distance: Array, width: float) -> Array:
    """Smooth step, 0 outside, 1 inside; ``width``: standard deviation of the blur in mm."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / (1.25 * width)))


def _beside(remaining: Array, grid: Array, fit: _Fit) -> float:
    """Part of the shaft beside which there is tissue, on the side where that is least."""
    axis = fit.tip - fit.entry
    across = _across(axis / np.linalg.norm(axis))
    voxel_mm = float(np.linalg.norm(grid[:3, :3], axis=0).max())
    turn = np.linspace(0.0, 2.0 * np.pi, SIDES, endpoint=False)
    ring = np.cos(turn)[:, None] * across[0] + np.sin(turn)[:, None] * across[1]
    out = fit.radius + np.linspace(0.0, max(BESIDE_MM, BESIDE_VOXELS * voxel_mm, fit.radius), 9)
    shaft = fit.entry + np.linspace(0.1, 0.9, 17)[:, None] * axis
    places = shaft[:, None, None] + ring[:, None] * out[:, None]
    index = apply(invert(grid), places.reshape(-1, 3))[:, ::-1]
    signal = ndimage.map_coordinates(remaining, index.T, order=1, mode="constant").reshape(places.shape[:3])
    return float((signal > 1.0 - 0.5 * fit.depth).any(axis=2).mean(axis=0).min())


def _darker(remaining: Array, grid: Array, fit: _Fit) -> float:
    """Part of the shaft that is darker than what lies around it at the same depth, from where it comes in from air."""
    axis = fit.tip - fit.entry
    across = _across(axis / np.linalg.norm(axis))
    turn = np.linspace(0.0, 2.0 * np.pi, SIDES, endpoint=False)
    ring = np.cos(turn)[:, None] * across[0] + np.sin(turn)[:, None] * across[1]
    shaft = fit.entry + np.linspace(0.03, 0.97, DEPTHS)[:, None] * axis
    voxel_mm = float(np.linalg.norm(grid[:3, :3], axis=0).max())
    away = fit.radius + max(AROUND_MM, AROUND_VOXELS * voxel_mm)
    around = np.median(_sample(remaining, grid, shaft[:, None] + away * ring), axis=1)
    darker = _sample(remaining, grid, shaft) < DARKER * around
    return float(darker[int(np.argmax(around > 1.0 - 0.5 * fit.depth)) :].mean())


def _verdict(fit: _Fit, near: Trajectory, voxel_mm: float, beside: float, dark: float) -> Verdict:
    def level(value: float, good: tuple[float, float], least: tuple[float, float]) -> Level:
        if good[0] <= value <= good[1]:
            return Level.GOOD
        return Level.CHECK if least[0] <= value <= least[1] else Level.REFUSED

    least_void = LEAST_VOID if 2.0 * fit.radius <= THIN_VOXELS * voxel_mm else GOOD_VOID
    diameter = 2.0 * fit.radius / near.diameter_mm
    widest = max(DIAMETER_LEAST[1], 1.0 + BLOOM_MM / near.diameter_mm)
    length = (float(np.linalg.norm(fit.tip - fit.entry)) - 2.0 * fit.radius + near.diameter_mm) / near.length_mm
    return Verdict(
        (
            Reason(
                "void depth",
                fit.depth,
                "",
                f"at least {GOOD_VOID}",
                level(fit.depth, (GOOD_VOID, 1.0), (least_void, 1.0)),
            ),
            Reason(
                "void diameter over implant diameter",
                diameter,
                "",
                f"{DIAMETER_GOOD[0]} to {DIAMETER_GOOD[1]}",
                level(diameter, DIAMETER_GOOD, (DIAMETER_LEAST[0], widest)),
            ),
            Reason(
                "void length over planned length",
                length,
                "",
                f"{LENGTH_GOOD[0]} to {LENGTH_GOOD[1]}",
                level(length, LENGTH_GOOD, LENGTH_LEAST),
            ),
            Reason(
                "part of the shaft darker than what lies around it",
                dark,
                "",
                f"at least {DARK_GOOD}",
                level(dark, (DARK_GOOD, 1.0), (DARK_LEAST, 1.0)),
            ),
            Reason(
                "part of the shaft with tissue on every side",
                beside,
                "",
                f"at least {BESIDE_GOOD}",
                level(beside, (BESIDE_GOOD, 1.0), (BESIDE_LEAST, 1.0)),
            ),
        )
    )


def _void_mask(remaining: Array, grid: Array, fit: _Fit) -> npt.NDArray[np.uint8]:
    """Dark voxels connected with the axis, at most about a voxel beyond the fitted surface."""
    k, j, i = np.indices(remaining.shape)
    ras = apply(grid, np.stack([i, j, k], axis=-1))
    length = float(np.linalg.norm(fit.tip - fit.entry))
    axis = (fit.tip - fit.entry) / length
    off = ras - fit.entry
    along = off @ axis
    radial = np.linalg.norm(off - along[..., None] * axis, axis=-1)
    beyond = float(np.linalg.norm(grid[:3, :3], axis=0).max())
    about = (radial < fit.radius + beyond) & (along > -beyond) & (along < length + beyond)
    labels, _ = ndimage.label(about & (remaining < 1.0 - 0.5 * fit.depth))
    core = labels[(radial < 0.5 * fit.radius) & (along > 0) & (along < length)]
    return np.isin(labels, np.unique(core[core > 0])).astype(np.uint8)
