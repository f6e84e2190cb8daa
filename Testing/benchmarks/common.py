"""What all benchmarks share: rows of ours against a peer, printed as a table and kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OUTPUT = Path(__file__).resolve().parents[2] / "bench-output"


@dataclass(frozen=True)
class Row:
    """One comparison within one run. ``ours`` and ``peer``: seconds unless ``work`` names a unit; ``ratio``: how many
    times better ours is. ``goal`` in words, ``holds`` whether it was reached."""

    work: str
    ours: float
    peer: float
    ratio: float
    goal: str
    holds: bool
    error_ours: float | None = None
    error_peer: float | None = None


def ended(wrong: Sequence[str], nothing: str) -> int:
    """Print what was ``wrong``, or that ``nothing`` was; returns the exit status."""
    print("\n".join(f"WRONG: {fault}" for fault in wrong) or nothing)
    return 1 if wrong else 0


def report(name: str, rows: Sequence[Row]) -> None:
    """Print the rows and write bench-output/NAME.json."""
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    width = max(len(row.work) for row in rows)
    print(f"{'work':{width}}  {'ours':>10}  {'peer':>10}  {'ratio':>7}  {'error':>9}  {'peer err':>9}  goal")
    for row in rows:
        errors = [f"{value:9.3g}" if value is not None else f"{'-':>9}" for value in (row.error_ours, row.error_peer)]
        mark = "holds" if row.holds else "DOES NOT HOLD"
        print(
            f"{row.work:{width}}  {row.ours:10.4g}  {row.peer:10.4g}  {row.ratio:7.2f}  {errors[0]}  {errors[1]}  "
            f"{row.goal}: {mark}"
        )
