"""A run that is stopped or killed leaves nothing half-written for good, and nothing of anybody else is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from IntraopMRILib.cli import finished_or_nothing
from IntraopMRILib.report.folder import LOCK, MARK, OLD, replaced

RUNS = """
import signal, sys, threading
from pathlib import Path
# Tests that run in the background hand on signals that are ignored there.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
import IntraopMRILib.cli.files
from IntraopMRILib.cli import main
def works(_files, folder):
    (folder / "half.txt").write_text("half")
    (folder / "recording").mkdir()
    (folder / "recording" / "scanner.mirec").write_bytes(bytes(10000))
    # An exception in the middle of its import is a crash: it is there before anything is written.
    print("working" if "slicer" in sys.modules else "too early", flush=True)
    threading.Event().wait(120)
IntraopMRILib.cli.files.run_files = works
sys.exit(main(["assess", "--native", "n.nii", "--out", sys.argv[1]]))
"""


@contextmanager
def running(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own that has begun to write."""
    environment = dict(os.environ, PYTHONPATH=":".join(sys.path))
    command = [sys.executable, "-c", RUNS, str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            yield process
        finally:
            process.kill()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path / "out") as process:
        assert len(names(tmp_path)) == 2, "the folder that is written to, and its lock"
        process.send_signal(number)
        _out, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert told == "intraopmri: stopped; no results were written\n"
    assert not names(tmp_path)


def test_what_a_killed_run_left_goes_with_the_next_one_but_not_what_it_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with running(out) as process:
        process.kill()
        process.wait(60)
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (left / "half.txt").is_file()
    with finished_or_nothing(out) as folder:
        assert "What 1 killed run left beside" in capsys.readouterr().err
        (folder / "session.json").write_text("{}")
    assert names(tmp_path) == {"out", "out-recording"}
    assert names(out) == {"session.json"}
    assert (tmp_path / "out-recording" / "scanner.mirec").stat().st_size == 10000


def test_a_run_that_still_works_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with running(out) as process:
        (other,) = (path for path in tmp_path.iterdir() if path.is_dir())
        with finished_or_nothing(out) as folder:
            (folder / "session.json").write_text("{}")
        assert (other / "half.txt").is_file()
        assert process.poll() is None
        assert not capsys.readouterr().err


def test_what_is_not_ours_stays_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (".out.abcdefgh", ".out.notes", ".out.12345678"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    # Somebody else's lock, and one that is no file.
    (tmp_path / f".out.12345678{LOCK}").write_text("mine")
    (tmp_path / f".out.87654321{LOCK}").mkdir()
    before = names(tmp_path)
    with finished_or_nothing(tmp_path / "out") as folder:
        (folder / "session.json").write_text("{}")
    assert names(tmp_path) == before | {"out"}
    told = capsys.readouterr().err
    assert f"'{tmp_path / '.out.abcdefgh'}' may be left of a killed run" in told
    assert "notes" not in told


@pytest.mark.parametrize(
    ("there", "after"),
    [
        # Killed between two renames: the earlier results have another name, and come back.
        ({"part", OLD}, {"out": "earlier"}),
        # Killed while the earlier ones went.
        ({"out", OLD}, {"out": "out"}),
        # Somebody has made another one meanwhile: the earlier ones are not for us to remove.
        ({"out", "part", OLD}, {"out": "out", ".out.abcdefgh.old": "earlier"}),
        ({"out", "part"}, {"out": "out"}),
        (set(), {}),
    ],
)
def test_wherever_a_run_was_killed_the_earlier_results_are_there(
    tmp_path: Path, there: set[str], after: dict[str, str]
) -> None:
    part = tmp_path / ".out.abcdefgh"
    part.with_name(part.name + LOCK).write_text(MARK)
    folders = {
        "part": (part, "half"),
        "out": (tmp_path / "out", "out"),
        OLD: (part.with_name(part.name + OLD), "earlier"),
    }
    for name in there:
        folder, text = folders[name]
        folder.mkdir()
        (folder / "session.json").write_text(text)

    class Stop(Exception):
        pass

    with pytest.raises(Stop), replaced(tmp_path / "out"):
        raise Stop
    assert {path.name: (path / "session.json").read_text() for path in tmp_path.iterdir()} == after
