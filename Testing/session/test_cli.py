"""The command line in a process of its own: what a person sees when something is wrong, and that nothing stays."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import SimpleITK as sitk
from IntraopMRILib.cli import finished_or_nothing, main
from IntraopMRILib.workflow.record import read_record
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.simulate.case_files import read_truth, write_case
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from IntraopMRIReconstructionLib.simulate.spine import make_spine_case
from IntraopMRIReconstructionLib.simulate.theatre import Theatre
from IntraopMRIReconstructionLib.simulate.volumes import read_volume, write_volume
from IntraopMRIReconstructionLib.wire.recorder import Recorder
from peers.dicom_scans import write_series


def intraopmri(*arguments: object, timeout_s: float = 280.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "IntraopMRILib.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env=dict(os.environ, PYTHONPATH=":".join(sys.path))
    )


def fails_with(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One sentence that names the matter, exit status 1, no traceback."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("intraopmri: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_headers_not_to_the_letter_are_read_without_a_word(tmp_path: Path) -> None:
    """The library warns of each with lines of its own code; a person has one sentence, about what is wrong."""
    image = Image(np.random.default_rng(0).integers(0, 900, (9, 12, 12)).astype(np.float32), np.eye(4), patient_id="P")
    scan = write_series(tmp_path / "scan", image, SpecificCharacterSet="ISO_IR 100")
    for file in scan.iterdir():
        file.write_bytes(file.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    files = [part for name in ("preop", "native", "contrast", "tumour") for part in (f"--{name}", scan)]
    fails_with(intraopmri("assess", *files), "--native-taken")


@pytest.fixture(scope="module")
def brain_folder(brain: BrainCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brain")
    write_case(folder, brain, None)
    return folder


@pytest.fixture(scope="module")
def spine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spine")
    write_case(folder, None, make_spine_case(3))
    return folder


@pytest.fixture
def silent_peer() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_spine_session_with_recording_and_its_replay_give_the_same_numbers(
    spine_folder: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    common = ("--case", spine_folder, "--procedure", "spine")
    with Theatre(spine_folder, servers=("scanner",)) as theatre:
        scanner = f"127.0.0.1:{theatre.ports['scanner']}"
        done = intraopmri("session", *common, "--scanner", scanner, "--record", "--out", first)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in first.iterdir()} == {
        "blend.png", "dicom", "overview.png", "recording", "report.html", "scene", "session.json",
    }  # fmt: skip
    record = read_record(first / "session.json")
    truth = read_truth(spine_folder)[0]["spine"]["deviations"]
    measured = {m.name.rpartition(": ")[2]: m.value for m in record.implants[0].measurements}
    assert measured["tip deviation"] == pytest.approx(truth["tip_mm"], abs=0.5)
    assert measured["angular deviation"] == pytest.approx(truth["angle_deg"], abs=0.5)
    assert "data:image/png;base64," in (first / "report.html").read_text()

    again = intraopmri("replay", first / "recording", *common, "--out", second)
    assert again.returncode == 0, again.stderr
    replayed = read_record(second / "session.json")
    assert replayed.implants[0].measurements[0].value == record.implants[0].measurements[0].value


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.nii.gz", None, ("missing.nii.gz",)),
        ("broken.nii.gz", b"this is no image", ("broken.nii.gz",)),
    ],
)
def test_a_preoperative_volume_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, words: tuple[str, ...]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    fails_with(intraopmri("demo", "--preop", tmp_path / name, "--out", out), *words)
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_head_from_dicom_is_read_with_the_checks_of_every_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head, made = Image(np.random.default_rng(0).random((12, 9, 10)).astype(np.float32), np.eye(4)), []
    folder = write_series(tmp_path / "head", head, "T1")
    monkeypatch.setattr("IntraopMRILib.cli.demo.from_volume", lambda volume: volume)

    def ends(_seed: int, anatomy: Any) -> BrainCase:
        made.append(anatomy)
        raise SessionError("that is all")

    monkeypatch.setattr("IntraopMRILib.cli.demo.make_brain_case", ends)
    arguments = ["demo", "--preop", str(folder), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert made[0].array.shape == head.array.shape
    # A slice is missing: what evens that out shows a head that nobody has.
    sorted(folder.iterdir())[5].unlink()
    assert main(arguments) == 1
    assert len(made) == 1
    assert "that is all" not in capsys.readouterr().err.splitlines()[-1]


def test_a_wrong_port(brain_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    out = tmp_path / "out"
    fails_with(
        intraopmri("session", "--case", brain_folder, "--scanner", f"127.0.0.1:{port}", "--out", out),
        f"127.0.0.1:{port}",
    )
    assert not list(tmp_path.iterdir())


def test_a_peer_that_never_answers(brain_folder: Path, tmp_path: Path, silent_peer: int) -> None:
    address = f"127.0.0.1:{silent_peer}"
    out = tmp_path / "out"
    fails_with(intraopmri("session", "--case", brain_folder, "--scanner", address, "--wait", 1, "--out", out), "silent")
    assert not list(tmp_path.iterdir())


def test_an_empty_tumour_segmentation(brain: BrainCase, tmp_path: Path) -> None:
    case = tmp_path / "case"
    write_case(case, brain, None)
    path = str(case / "case" / "tumour.seg.nrrd")
    labels = sitk.ReadImage(path)
    sitk.WriteImage(labels * 0, path)
    out = tmp_path / "out"
    fails_with(intraopmri("session", "--case", case, "--scanner", "127.0.0.1:1", "--out", out), "is empty")
    assert not out.exists()


def test_a_scan_of_something_else_ends_without_a_number(brain_folder: Path, spine_folder: Path, tmp_path: Path) -> None:
    """The scanner of the spine session serves a brain session: other anatomy, other geometry, same patient id."""
    out = tmp_path / "out"
    with Theatre(spine_folder, servers=("scanner",)) as theatre:
        scanner = f"127.0.0.1:{theatre.ports['scanner']}"
        result = intraopmri("session", "--case", brain_folder, "--scanner", scanner, "--wait", 3, "--out", out)
    fails_with(result, "nothing came from the scanner for 3 s", "no overlay")
    assert not out.exists()


def test_results_of_others_are_not_overwritten(brain_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    result = intraopmri("session", "--case", brain_folder, "--scanner", "127.0.0.1:1", "--out", out)
    fails_with(result, "holds no earlier results")
    assert (out / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("out", ["", "mine"])
def test_a_folder_that_holds_results_among_other_things_is_not_replaced(tmp_path: Path, out: str) -> None:
    """Results somewhere below say nothing of what else there is: a home, a whole study."""
    kept = tmp_path / "mine" / "patient 1" / "session.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(SessionError, match="holds no earlier results"), finished_or_nothing(tmp_path / out):
        pytest.fail("nothing may begin")
    assert kept.is_file()


def test_results_do_not_replace_a_recording(tmp_path: Path) -> None:
    with finished_or_nothing(tmp_path / "out") as folder:
        (folder / "session.json").write_text("{}")
        (folder / "recording").mkdir()
    with pytest.raises(SessionError, match="holds a recording"), finished_or_nothing(tmp_path / "out"):
        pytest.fail("nothing may begin")
    assert (tmp_path / "out" / "recording").is_dir()


def test_results_do_not_replace_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SessionError, match="holds the folder that you are in"), finished_or_nothing(Path(".")):
        pytest.fail("nothing may begin")


def test_earlier_results_stay_when_new_ones_cannot_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with finished_or_nothing(out) as folder:
        (folder / "session.json").write_text("first")
    rename = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SessionError, match=r"No space left.*Nothing was changed"), finished_or_nothing(out) as folder:
        (folder / "session.json").write_text("second")
    assert (out / "session.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


def test_the_recording_of_a_session_that_fails_is_kept(
    brain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can ask a scanner for it again, and it shows why the session failed."""

    received = [b"nothing but the head of the file"]

    def fails(_plan: object, _scanner: object, _tracker: object, _live: object, folder: Path, *_: object) -> None:
        (folder / "recording").mkdir()
        (folder / "recording" / "scanner.mirec").write_bytes(received[0])
        raise SessionError("the implant was not found")

    monkeypatch.setattr("IntraopMRILib.cli.run.run_session", fails)
    out = tmp_path / "out"
    arguments = ["session", "--case", str(brain_folder), "--scanner", "127.0.0.1:1", "--record", "--out", str(out)]
    assert main(arguments) == 1
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == "intraopmri: the implant was not found\n"
    received[0] = 100 * b"all that was received"
    for name in ("out-recording", "out-recording2"):
        assert main(arguments) == 1
        assert (tmp_path / name / "scanner.mirec").read_bytes() == received[0]
        assert f"{tmp_path / name}/\nintraopmri: the implant was not found" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"out-recording", "out-recording2"}


KILLED = """
import sys
from pathlib import Path
from IntraopMRILib.cli import finished_or_nothing
for number in range(1000):
    with finished_or_nothing(Path(sys.argv[1])) as folder:
        for part in range(20):
            (folder / f"{part}.txt").write_text(str(number))
        (folder / "session.json").write_text(str(number))
    print(number, flush=True)
"""


def test_a_run_that_is_killed_leaves_the_results_before_it_whole(tmp_path: Path) -> None:
    out, rng = tmp_path / "out", np.random.default_rng(0)
    for _ in range(2):
        command, environment = [sys.executable, "-c", KILLED, str(out)], dict(os.environ, PYTHONPATH=":".join(sys.path))
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as run:
            assert run.stdout is not None
            for _line in range(int(rng.integers(1, 40))):
                run.stdout.readline()
            run.kill()
        # Between two renames the earlier ones have another name.
        found = out if out.exists() else next(tmp_path.glob(".out.*.old"))
        assert len({path.read_text() for path in found.iterdir()}) == 1
        assert len(list(found.iterdir())) == 21


class Quiet:
    """A theatre whose servers stand as ``state`` says."""

    ports: ClassVar = {"scanner": 1, "tracker": 2}
    state: Callable[[str], bool]

    def __init__(self, _case: Path) -> None:
        pass

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def alive(self, name: str) -> bool:
        return type(self).state(name)


def test_the_theatre_ends_by_ctrl_c_and_says_when_it_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(_name: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("IntraopMRILib.cli.demo._make_cases", lambda *_: None)
    monkeypatch.setattr("IntraopMRILib.cli.demo.Theatre", Quiet)
    Quiet.state = pressed
    assert main(["lab", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert str(tmp_path / "brain") in told.out
    assert not told.err
    Quiet.state = "tracker".__ne__
    assert main(["lab", "--out", str(tmp_path)]) == 1
    assert "the simulated tracker ended by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--wait=nan", "'nan' is no number"),
        ("--wait=0", "'0' is not above zero"),
        ("--navigate=-1", "'-1' is less than zero"),
        ("--heat=nan,0,0", "'nan,0,0' is no place R,A,S"),
        ("--heat=1,2", "'1,2' is no place R,A,S"),
        ("--heat-radius=-5", "'-5' is not above zero"),
        ("--heat-before=warm", "'warm' is no number"),
        ("--scanner=theatre", "'theatre' is no HOST:PORT"),
        ("--profile=mrigtlbrigde", "no peer profile is named 'mrigtlbrigde'"),
        ("--profile=camera=Plus", "'camera' is no part of a session"),
    ],
)
def test_numbers_that_are_none_are_refused(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wait that is no number never ends; a mark that is no place measures nothing, without a word."""
    with pytest.raises(SystemExit):
        main(["session", "--case", "c", "--scanner", "127.0.0.1:1", option])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["session", "replay"])
@pytest.mark.parametrize("given", [False, True])
def test_a_peer_is_taken_for_what_a_person_says(
    brain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, given: bool
) -> None:
    links: list[Any] = []

    def ends(_plan: object, *parts: Any) -> None:
        links.extend(parts[:3])
        raise SessionError("that is all")

    monkeypatch.setattr("IntraopMRILib.cli.run.run_session", ends)
    peers = ["--scanner", "127.0.0.1:1", "--tracker", "127.0.0.1:2"] if command == "session" else [str(tmp_path)]
    for part in ("scanner", "tracker"):
        with Recorder(tmp_path / f"{part}.mirec"):
            pass
    said = ["--profile", "mrigtlbridge", "--profile", "tracker=Plus", "--tool", "pointer"] if given else []
    assert main([command, *peers, "--case", str(brain_folder), "--out", str(tmp_path / "out"), *said]) == 1
    scanner, tracker, live = links
    assert (scanner.profile.name, tracker.profile.name) == (
        ("mrigtlbridge", "Plus") if given else ("as sent", "as sent")
    )
    assert live is None
    assert tracker.tool == ("pointer" if given else "")
    if command == "session":
        assert main([command, *peers, "--case", str(brain_folder), "--profile", "live=Plus"]) == 1
        assert len(links) == 3, "a peer that is not there is refused before anything begins"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("assess --native n.nii --case nowhere --out out", "there is no case folder at 'nowhere'"),
        ("assess --native n.nii --case file --out out", "there is no case folder at 'file'"),
        ("assess --native n.nii --out file/out", "file' is no folder; choose another one with --out"),
        ("measure cobb --results nowhere --by X --preop p.nii", "name the folder of a finished session"),
        ("lab --out file", "'file' exists and is no earlier case"),
        ("lab --out study", "brain' exists and is no earlier case"),
    ],
)
def test_a_place_that_cannot_be_meant_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("IntraopMRILib.cli.demo._make_cases", lambda *_: pytest.fail("nothing may begin"))
    Path("file").write_text("mine")
    Path("study/brain").mkdir(parents=True)
    Path("study/brain/thesis.txt").write_text("mine")
    assert main(arguments.split()) == 1
    told = capsys.readouterr().err
    assert told.startswith("intraopmri: ")
    assert said in told
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["brain", "file", "study", "thesis.txt"]


SAYS = """
import runpy
import IntraopMRILib.cli.commands
IntraopMRILib.cli.commands.main = lambda: print("'M\u00fcller'")
runpy.run_module("IntraopMRILib.cli", run_name="__main__")
"""


def test_a_name_that_the_terminal_cannot_show_ends_nothing() -> None:
    environment = dict(os.environ, PYTHONPATH=":".join(sys.path), PYTHONIOENCODING="ascii")
    command = [sys.executable, "-c", SAYS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "'M\\xfcller'\n", "")


def test_a_case_without_a_plan(tmp_path: Path) -> None:
    fails_with(intraopmri("session", "--case", tmp_path, "--scanner", "127.0.0.1:1"), "plan.json")


@pytest.mark.slow
def test_the_demo_measures_what_the_truth_says(tmp_path: Path) -> None:
    """A seed that no README shows. Every row of the comparison must hold, and every file be there."""
    out = tmp_path / "demo"
    done = intraopmri("demo", "--seed", 7, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert len(rows) >= 11
    assert not [row for row in rows if not row["holds"]]
    assert np.isfinite([row["measured"] for row in rows]).all()
    for procedure in ("brain", "spine"):
        for name in ("overview.png", "report.html", "session.json", "scene/scene.mrml"):
            assert (out / procedure / name).is_file(), name


@pytest.mark.slow
def test_a_procedure_that_is_about_a_measure_ends_with_the_registered_scan_and_is_measured_later(
    brain_folder: Path, tmp_path: Path
) -> None:
    """Nothing is assessed by itself: a person outlines on the scan that the session has kept."""
    out, known = tmp_path / "out", read_truth(brain_folder)
    truth = known[1]
    assert truth is not None
    tumour = read_volume(brain_folder / "case" / "tumour.seg.nrrd")
    write_volume(replace(tumour, array=(tumour.array > 0).astype(np.uint8)), brain_folder / "case" / "nidus.nrrd")
    common = ("--case", brain_folder, "--procedure", "vascular", "--navigate", 0)
    with Theatre(brain_folder, servers=("scanner",)) as theatre:
        scanner = f"127.0.0.1:{theatre.ports['scanner']}"
        done = intraopmri("session", *common, "--scanner", scanner, "--out", out)
    assert done.returncode == 0, done.stderr
    record = read_record(out / "session.json")
    assert dict(record.planned_measures) == {"vascular": "Residual nidus"}
    assert "not measured in this session" in (out / "report.html").read_text()
    write_volume(replace(truth.residual, array=truth.residual.array.astype(np.uint8)), tmp_path / "left.nrrd")
    arguments = ("--results", out, "--case", brain_folder, "--outline", tmp_path / "left.nrrd", "--by", "Dr. X")
    added = intraopmri("measure", "vascular", *arguments, "--option", "not seen")
    assert added.returncode == 0, added.stderr
    (entry,) = read_record(out / "session.json").drawn
    assert entry.measurements[1].value == pytest.approx(truth.residual_ml, rel=1e-3)
    assert "data:image/png;base64," in (out / "report.html").read_text()
