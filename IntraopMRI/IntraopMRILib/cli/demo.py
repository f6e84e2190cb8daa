"""The demo: a theatre is simulated, the session runs against it, and only then the truth is opened and compared."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import centre_of, pose_error
from IntraopMRIReconstructionLib.simulate.anatomy import TEMPLATE, Anatomy, from_volume
from IntraopMRIReconstructionLib.simulate.case_files import read_pointer, read_truth, write_case
from IntraopMRIReconstructionLib.simulate.phantom import Truth, make_brain_case
from IntraopMRIReconstructionLib.simulate.spine import make_spine_case
from IntraopMRIReconstructionLib.simulate.theatre import Theatre

from ..dicom_series import is_dicom, read_series
from ..register.carry_over import Carried
from ..session import Link, Plan
from ..workflow.record import SessionRecord
from .cases import plan_of_case
from .outcome import Outcome
from .run import run_session

#: A pose belongs to a stop of the simulated pointer when its tip is this near (mm): the path passes each only once.
AT_STOP_MM = 0.05
#: Longer than one round of the simulated pointer (s).
NAVIGATE_S = 14.0
#: What the comparison asks for.
RESIDUAL_GOAL_PERCENT, POSE_GOAL, POINTER_GOAL_MM, IMPLANT_GOAL = 15.0, 0.5, 1.0, 0.5
#: A carried-over thing is at most this far from the truth: what a navigated biopsy is accurate to.
CARRIED_GOAL_MM = 2.0


@dataclass(frozen=True)
class Compared:
    """One measured value beside the true one; ``error`` and ``goal`` in ``unit`` (% of the truth for volumes)."""

    what: str
    measured: float
    true: float
    unit: str
    error: float
    goal: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the goal."""
        return self.error <= self.goal


def run_demo(folder: Path, seed: int, preop: Path | None) -> None:
    """Both procedures into ``folder``, with the table of measured against true values and of times."""
    from rich.console import Console

    console = Console()
    console.print("[bold]IntraopMRI demo[/] - research software, not for clinical use")
    compared: list[Compared] = []
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="intraop-lab-") as name:
        lab = Path(name)
        with console.status("Making the simulated patients"):
            _make_cases(lab, seed, preop)
        for procedure, servers in (("brain", ("scanner", "tracker", "live")), ("spine", ("scanner",))):
            console.print(f"\n[bold]{procedure.capitalize()}[/]")
            results = folder / procedure
            results.mkdir()
            with Theatre(lab / procedure, servers=servers) as theatre:
                links = {name: Link("127.0.0.1", port) for name, port in theatre.ports.items()}
                plan = _of_mr(plan_of_case(lab / procedure, procedure))
                outcomes[procedure] = run_session(
                    plan,
                    links["scanner"],
                    links.get("tracker"),
                    links.get("live"),
                    results,
                    navigate_s=NAVIGATE_S,
                )
            if missing := outcomes[procedure].missing:
                raise SessionError("; ".join(missing.values()))
            compare = _compare_brain if procedure == "brain" else _compare_spine
            compared += compare(outcomes[procedure], plan.preoperative, lab / procedure)
    _print_compared(console, compared, seed)
    _print_times(console, outcomes)
    (folder / "comparison.json").write_text(
        json.dumps({"seed": seed, "rows": [{**asdict(row), "holds": row.holds} for row in compared]}, indent=1) + "\n",
        encoding="utf-8",
    )


def run_lab(folder: Path, seed: int, preop: Path | None) -> None:
    """Make the cases and keep the brain's theatre open until interrupted.

    Raises SessionError when ``folder`` holds something else where they would be.
    """
    for place in (folder, folder / "brain", folder / "spine"):
        free = not place.exists() or (place.is_dir() and (place == folder or not any(place.iterdir())))
        if not free and not (place / "truth" / "truth.json").is_file():
            raise SessionError(f"'{place}' exists and is no earlier case: choose another folder with --out")
    _make_cases(folder, seed, preop)
    with Theatre(folder / "brain") as theatre:
        for name, port in theatre.ports.items():
            print(f"{name:8} 127.0.0.1:{port}")
        print(f"The case is in {folder / 'brain'}. Stop with Ctrl+C.", flush=True)
        with suppress(KeyboardInterrupt):
            while not (ended := [name for name in theatre.ports if not theatre.alive(name)]):
                time.sleep(0.5)
            raise SessionError(f"the simulated {' and '.join(ended)} ended by itself: start the theatre again")


def _of_mr(plan: Plan) -> Plan:
    """The simulator makes MR volumes, which no archive has: they are written as DICOM too."""
    return replace(plan, preoperative=replace(plan.preoperative, metadata={"Modality": "MR"}))


def _make_cases(folder: Path, seed: int, preop: Path | None) -> None:
    brain = make_brain_case(seed, TEMPLATE if preop is None else _head(preop))
    write_case(folder / "brain", brain, None)
    write_case(folder / "spine", None, make_spine_case(seed))


def _head(preop: Path) -> str | Anatomy:
    """A person's own head; DICOM with the checks that its slices are one volume."""
    return from_volume(read_series(preop)[0]) if is_dicom(preop) else str(preop)


def _compare_brain(outcome: Outcome, preoperative: Image, case: Path) -> list[Compared]:
    known, moved = read_truth(case)
    truth = known["brain"]
    rows = _compare_pose("Brain", outcome.record, preoperative, truth["intraop_from_preop"])
    residual = outcome.record.residual
    if residual is not None and residual.volume.value is not None:
        measured, true = residual.volume.value, float(truth["residual_ml"])
        error = 100.0 * abs(measured - true) / true
        rows.append(Compared("Residual volume", measured, true, "cm3", error, RESIDUAL_GOAL_PERCENT))
    rows += _compare_carried(outcome.carried, moved)
    return rows + _compare_pointer(outcome, case, truth["pointer_distance_to_residual_mm"])


def _compare_carried(items: Sequence[Carried], truth: Truth | None) -> list[Compared]:
    """Planned things where the brain shift was followed to: their error, and whether the radius told holds it."""
    rows = []
    for item in items:
        if truth is None or not item.offered:
            continue
        error = np.linalg.norm(item.now_mm - truth.intraop_from_preop_points(item.before_mm), axis=-1)
        mean, largest = float(error.mean()), float(error.max())
        rows.append(Compared(f"{item.name}, carried over", mean, 0.0, "mm", mean, CARRIED_GOAL_MM))
        told = item.uncertainty_mm
        rows.append(Compared(f"{item.name}, within its radius told", largest, 0.0, "mm", largest, told))
    return rows


def _compare_pointer(outcome: Outcome, case: Path, distances: dict[str, float]) -> list[Compared]:
    rows = []
    for stop in read_pointer(case)[0]:
        at = [
            sample.distance_mm
            for sample in outcome.samples
            if sample.distance_mm is not None
            and np.linalg.norm(sample.pose.tip_ras_mm - np.asarray(stop.tip_ras_mm)) <= AT_STOP_MM
        ]
        if at:
            measured, true = float(np.median(at)), distances[stop.name]
            rows.append(
                Compared(f"Tip to residual at {stop.name}", measured, true, "mm", abs(measured - true), POINTER_GOAL_MM)
            )
    return rows


def _compare_spine(outcome: Outcome, preoperative: Image, case: Path) -> list[Compared]:
    known, _ = read_truth(case)
    truth = known["spine"]
    rows = _compare_pose("Spine", outcome.record, preoperative, truth["intraop_from_preop"])
    names = {
        "entry deviation": "entry_mm",
        "tip deviation": "tip_mm",
        "radial deviation": "radial_mm",
        "angular deviation": "angle_deg",
    }
    for implant in outcome.record.implants:
        for measurement in implant.measurements:
            key = names.get(measurement.name.rpartition(": ")[2])
            if key is None or measurement.value is None:
                continue
            true = float(truth["deviations"][key])
            error = abs(measurement.value - true)
            rows.append(Compared(measurement.name, measurement.value, true, measurement.unit, error, IMPLANT_GOAL))
    return rows


def _compare_pose(what: str, record: SessionRecord, preoperative: Image, true_pose: object) -> list[Compared]:
    if record.registration is None:
        return []
    k, j, i = preoperative.array.shape
    middle = centre_of(preoperative.ras_from_ijk, (i, j, k))
    true = np.asarray(true_pose)
    distance_mm, angle_deg = pose_error(np.asarray(record.registration.intraop_from_preop), true, middle)
    return [
        Compared(f"{what}: rigid pose, at the centre", distance_mm, 0.0, "mm", distance_mm, POSE_GOAL),
        Compared(f"{what}: rigid pose, rotation", angle_deg, 0.0, "deg", angle_deg, POSE_GOAL),
    ]


def _print_compared(console: object, rows: Sequence[Compared], seed: int) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table(title=f"Measured against true values (seed {seed})")
    for column in ("", "measured", "true", "error", "goal", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    for row in rows:
        unit = "%" if row.unit == "cm3" else row.unit
        table.add_row(
            row.what,
            f"{row.measured:.2f} {row.unit}",
            f"{row.true:.2f} {row.unit}",
            f"{row.error:.2f} {unit}",
            f"{row.goal:.3g} {unit}",
            "holds" if row.holds else "DOES NOT HOLD",
        )
    console.print(table)


def _print_times(console: object, outcomes: dict[str, Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table(title="Time per stage")
    table.add_column("procedure")
    table.add_column("stage")
    table.add_column("s", justify="right")
    for procedure, outcome in outcomes.items():
        for timing in outcome.record.timings:
            table.add_row(procedure, timing.stage, f"{timing.seconds:.2f}")
    console.print(table)
