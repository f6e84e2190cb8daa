"""The folder that a command writes its results to: whole or not at all, also when the command is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from IntraopMRIReconstructionLib.errors import SessionError

from ..report.folder import replaced, swept, unknown

if TYPE_CHECKING:
    from IntraopMRIReconstructionLib.data import Measurement

    from .outcome import Outcome

#: Exit status when results were written and something that was asked for is missing in them.
INCOMPLETE = 3
#: Where the wire traffic of a recorded session lies in its results.
RECORDING = "recording"
#: Non-enhancing tumour that is perhaps left, for a person to review, and where that cannot be told.
PROPOSAL, OPEN = "proposal.nrrd", "proposal-open.nrrd"
#: The scan that it is proposed on, as it was laid on the registered one; only where the patient has moved between both.
LAID = "proposal-scan.nrrd"
#: One of them is in every folder that a session or a demo has finished; only such a folder is replaced by a later run.
DONE_MARKS = ("session.json", "comparison.json")


@contextmanager
def finished_or_nothing(out: Path) -> Iterator[Path]:
    """A folder to write to that takes the place of ``out`` only when the block ends well; otherwise nothing stays.

    Raises SessionError when ``out`` is something that no earlier run has made, or cannot be written.
    """
    place = out.resolve()
    there = next(folder for folder in place.parents if folder.exists())
    if not there.is_dir():
        raise SessionError(f"'{out}' cannot be made: '{there}' is no folder; choose another one with --out")
    _clear(place, out)
    if place.exists() and not (
        place.is_dir() and (not any(place.iterdir()) or any((place / mark).is_file() for mark in DONE_MARKS))
    ):
        raise SessionError(f"'{out}' exists and holds no earlier results: choose another folder with --out")
    if (place / RECORDING).exists():
        text = "holds a recording, which cannot be made again: move it away, or choose another folder with --out"
        raise SessionError(f"'{out}' {text}")
    if Path.cwd().is_relative_to(place):
        raise SessionError(f"'{out}' holds the folder that you are in: choose another folder with --out")
    with replaced(place) as folder:
        yield folder


@contextmanager
def kept_when_it_fails(recording: Path, out: Path) -> Iterator[None]:
    """What was recorded of a session that fails is kept beside ``out``: it shows why, and can be replayed."""
    try:
        yield
    except BaseException:
        _keep(recording, out)
        raise


def _keep(recording: Path, out: Path) -> None:
    from IntraopMRIReconstructionLib.wire.recorder import RECORD_HEAD_BYTES

    if any(file.stat().st_size > RECORD_HEAD_BYTES for file in recording.glob("*")):
        places = (out.with_name(f"{out.name}-recording{number}") for number in ("", *range(2, 1000)))
        place = next(place for place in places if not place.exists())
        recording.replace(place)
        print(f"The recording of what was received is kept in {place}/", file=sys.stderr)


def _clear(place: Path, out: Path) -> None:
    """Remove what killed runs have left, but not what they recorded; what may be theirs or not is named."""
    if not place.parent.is_dir():
        return
    try:
        count = swept(place, lambda part: _keep(part / RECORDING, out))
    except OSError as error:
        raise SessionError(f"what a killed run left beside '{out}' cannot be removed: {error}") from error
    if count:
        print(f"What {count} killed run{'s' if count > 1 else ''} left beside '{out}' was removed", file=sys.stderr)
    for path in unknown(place):
        print(f"'{path}' may be left of a killed run: look into it, and remove it if it is", file=sys.stderr)


def told(outcome: Outcome, out: Path) -> int:
    """Say where the results are and what is missing in them; returns the exit status."""
    print(f"\nResults are in {out}/ (open report.html)", flush=True)
    for name, why in outcome.missing.items():
        print(f"intraopmri: missing: {name}; {why}", file=sys.stderr)
    return INCOMPLETE if outcome.missing else 0


def words_of(measurement: Measurement) -> str:
    """A number in one line, or why there is none."""
    if measurement.value is None:
        return f"{measurement.name}: {measurement.missing_because}"
    low_high = measurement.interval
    between = "" if low_high is None else f" ({low_high[0]:.2f} to {low_high[1]:.2f})"
    return f"{measurement.name}: {measurement.value:.2f} {measurement.unit}{between}"
