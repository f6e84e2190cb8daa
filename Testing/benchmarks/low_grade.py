"""What is left of low-grade tumours, proposed on T2 and FLAIR, beside a threshold and a Gaussian mixture.

Simulated heads (the MNI152 template, and Colin27 where Debian's mricron-data is installed), all, half, a tenth or
nothing of the tumour left, with swelling and blood at the wall, bias, noise and brain shift; registered as in a
session, so that place and cavity are found and not known. The peers see the same region: the carried-over tumour
without the found cavity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.common import Row
from IntraopMRILib.assess.carry import carried_points, occupied
from IntraopMRILib.assess.enhancement import on_grid
from IntraopMRILib.assess.proposal import propose_non_enhancing
from IntraopMRILib.register.carry_over import shift_at
from IntraopMRILib.register.deformable import DeformableRegistration, register_deformable
from IntraopMRILib.register.rigid import register_rigid
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import within_mm
from IntraopMRIReconstructionLib.simulate.anatomy import COLIN, TEMPLATE, anatomies
from IntraopMRIReconstructionLib.simulate.flair import FLAIR, T2, Sequence, Wall, intraop_scan, preop_scan
from IntraopMRIReconstructionLib.simulate.phantom import CONTRAST, BrainCase, make_brain_case

LEFT, SPACING_MM, MARGIN_MM = (1.0, 0.5, 0.1, 0.0), 1.5, 2.0
DEEPEST_MM = (1.5, 3.5)
Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]


@dataclass
class Scores:
    """Of one method: overlap, error of the volume in % where something is left; cm3 where nothing is, and beside it."""

    dice: list[float]
    percent: list[float]
    false_cm3: list[float]
    clean_cm3: list[float]

    def add(self, found: Mask, truth: Mask, voxel_cm3: float) -> None:
        if not truth.any():
            self.clean_cm3.append(float(found.sum()) * voxel_cm3)
            return
        self.dice.append(float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum())))
        self.percent.append(100.0 * abs(float(found.sum()) - float(truth.sum())) / float(truth.sum()))
        self.false_cm3.append(float((found & ~truth).sum()) * voxel_cm3)


def threshold(values: Array, region: Mask, tissue: Mask) -> Mask:
    """Two standard deviations above the tissue around."""
    return region & (values > values[tissue].mean() + 2.0 * values[tissue].std())


def mixture(values: Array, region: Mask, _tissue: Mask) -> Mask:
    """The brighter of two Gaussians by expectation maximisation."""
    sample = values[region].astype(np.float64)
    means, deviations = np.percentile(sample, (25, 75)), np.full(2, sample.std())
    weights = np.full(2, 0.5)
    for _ in range(100):
        likely = weights / deviations * np.exp(-0.5 * ((sample[:, None] - means) / deviations) ** 2) + 1e-300
        likely /= likely.sum(axis=1, keepdims=True)
        total = likely.sum(axis=0) + 1e-9
        means = (likely * sample[:, None]).sum(axis=0) / total
        deviations = np.sqrt((likely * (sample[:, None] - means) ** 2).sum(axis=0) / total) + 1e-3
        weights = total / total.sum()
    found = np.zeros_like(region)
    found[region] = likely[:, int(np.argmax(means))] > 0.5
    return found


PEERS = {"threshold": threshold, "Gaussian mixture": mixture}


def registered(case: BrainCase) -> DeformableRegistration:
    scan = case.noisy(CONTRAST)
    return register_deformable(scan, case.preop, register_rigid(scan, case.preop), tumour=case.tumour)


def scored(
    case: BrainCase, found: DeformableRegistration, sequence: Sequence, scores: dict[str, Scores]
) -> tuple[bool, float]:
    """Add the scores of one scan; whether our interval holds the truth, and the widest over that (cm3)."""
    wall = Wall(swollen_mm=float(np.random.default_rng(case.seed).uniform(*DEEPEST_MM)))
    scan, before = intraop_scan(case, sequence, wall), preop_scan(case, sequence)
    truth, voxel_cm3 = case.truth.residual_non_enhancing.array, scan.voxel_volume_ml
    error_mm = shift_at(found, case.tumour)[1]
    ours = propose_non_enhancing(
        scan, case.tumour, found.intraop_from_preop_points, error_mm, found.cavity, found.brain, case.preop, before
    )
    scores["ours"].add(ours.label.array > 0, truth, voxel_cm3)
    whole = (slice(0, scan.array.shape[0]), slice(0, scan.array.shape[1]), slice(0, scan.array.shape[2]))
    points = carried_points(case.tumour.array > 0, case.tumour, scan, found.intraop_from_preop_points)
    spacing = scan.spacing_mm[::-1]
    cavity, brain = (_mask(label, scan, whole) for label in (found.cavity, found.brain))
    carried = occupied(points, whole)
    region = within_mm(carried, MARGIN_MM, spacing) & ~cavity
    tissue = within_mm(carried, 25.0, spacing) & ~within_mm(carried | cavity, 6.0, spacing) & brain
    for name, peer in PEERS.items():
        scores[name].add(peer(scan.array, region, tissue), truth, voxel_cm3)
    low, high = ours.volume.interval or (np.nan, np.nan)
    return low <= float(truth.sum()) * voxel_cm3 <= high, high - low


def _mask(label: Image, scan: Image, box: tuple[slice, slice, slice]) -> Mask:
    return on_grid(label.with_array((label.array != 0).astype(np.float32)), scan, box) > 0.5


def proposal_rows(seeds: tuple[int, ...] = (21, 22), lefts: tuple[float, ...] = LEFT) -> list[Row]:
    """Overlap, volume and what is proposed where nothing is left, by sequence and peer; coverage of the interval."""
    heads = [name for name in (TEMPLATE, COLIN) if name in anatomies()]
    cases = [
        make_brain_case(seed, heads[n % len(heads)], low_grade_left=left, spacing_mm=SPACING_MM)
        for n, seed in enumerate(seeds)
        for left in lefts
    ]
    places = [registered(case) for case in cases]
    rows, held = [], []
    for sequence in (FLAIR, T2):
        scores = {name: Scores([], [], [], []) for name in ("ours", *PEERS)}
        held += [scored(case, place, sequence, scores)[0] for case, place in zip(cases, places, strict=True)]
        mine = scores["ours"]
        for name in PEERS:
            other = scores[name]
            dice, theirs = float(np.mean(mine.dice)), float(np.mean(other.dice))
            rows.append(
                Row(
                    f"proposal, {sequence.name}, Dice; errors in % of the volume, {name}",
                    dice,
                    theirs,
                    dice / max(theirs, 1e-9),
                    "Dice no smaller",
                    dice >= theirs,
                    float(np.mean(mine.percent)),
                    float(np.mean(other.percent)),
                )
            )
            clean, dirty = float(np.mean(mine.clean_cm3)), float(np.mean(other.clean_cm3))
            rows.append(
                Row(
                    f"proposal, {sequence.name}, cm3 where nothing is left; errors: beside what is left, {name}",
                    clean,
                    dirty,
                    dirty / max(clean, 0.01),
                    "no more",
                    clean <= dirty,
                    float(np.mean(mine.false_cm3)),
                    float(np.mean(other.false_cm3)),
                )
            )
    share = float(np.mean(held))
    rows.append(Row(f"proposal, share of {len(held)} intervals with the truth", share, 1.0, share, "0.9", share >= 0.9))
    return rows
