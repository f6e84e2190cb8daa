"""One thing that is not found leaves the others as they are: numbers, results, and a word on what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from IntraopMRILib.cli import cases, commands
from IntraopMRILib.cli.follow import HEAT, _Run
from IntraopMRILib.report.dicom.measurements import groups_of
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.updates import ALIGNMENT, RESIDUAL, Role, deviation, own_motion
from IntraopMRILib.workflow.record import SessionRecord, as_document
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.simulate.case_files import write_case
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from rich.progress import Progress
from session.small_world import BEGUN_S, LEAD, LOOSE, SCREW, SmallWorld, Truth

Scans = list[tuple[Role, Truth, float]]
PAIR: Scans = [("native", Truth(), 0.0), ("contrast", Truth(), 100.0)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    made = SmallWorld()
    made.stand_in(monkeypatch)
    return made


def run(world: SmallWorld, plan: Plan, scans: Scans, folder: Path) -> tuple[dict[str, str], SessionRecord]:
    """What is missing, and the record, of a session without a scanner that was given these scans."""
    with Session(plan) as session:
        session.connect(None)
        for role, truth, after_s in scans:
            session.offer_scan(world.scan(role, truth, BEGUN_S + after_s), role)
        begun = _Run(plan, session, folder, wait_s=30.0)
        begun._until_assessed(Progress(disable=True))
        return begun.outcome.missing, session.journal.record


def lost(*names: str) -> Truth:
    return Truth(lost=frozenset(names))


def dashes(record: SessionRecord) -> dict[str, str]:
    """Why numbers are missing, by their names."""
    return {m.name: m.missing_because for m in record.measurements if m.value is None}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((SCREW,), {SCREW: "no signal void like 'Screw L2'"}),
        ((SCREW, LOOSE), {SCREW: "no signal void", LOOSE: "no signal void like 'Loose'"}),
        (("L2",), {SCREW: "the pose of L2 was refused"}),
    ],
)
def test_an_implant_that_is_not_found(
    world: SmallWorld, tmp_path: Path, names: tuple[str, ...], said: dict[str, str]
) -> None:
    plan = replace(world.spine(), measures=())
    missing, record = run(world, plan, [("native", lost(*names), 0.0)], tmp_path)
    assert list(missing) == [deviation(name) for name in said]
    assert {implant.name for implant in record.implants} == {SCREW, LOOSE} - set(said)
    document = as_document(record)
    text, groups = render(document).partition("<h2>Events")[0], groups_of(document, None)
    for name, why in said.items():
        reason = missing[deviation(name)]
        assert why in reason
        assert dashes(record)[deviation(name)] == reason
        # In the summary, and where its numbers would stand.
        assert text.count("no signal void" if "void" in why else "the pose of L2 was refused") >= 2
        (group,) = (group for group in groups if group.title == deviation(name))
        assert group.measurements[0]["missing_because"] == reason


def test_a_vertebra_that_is_not_found_in_a_correction(world: SmallWorld, tmp_path: Path) -> None:
    plan = replace(world.spine(), trajectories=(), implanted={}, measures=("alignment",))
    missing, record = run(world, plan, [("native", lost("L4"), 0.0)], tmp_path)
    assert list(missing) == [own_motion("L4")]
    assert "L4 was not found" in missing[own_motion("L4")]
    assert {m.name for m in record.measurements if m.value is not None} >= {"L1 to L3: change of lordosis, sagittal"}
    missing, record = run(world, plan, [("native", lost("L2", "L3", "L4"), 0.0)], tmp_path)
    assert ALIGNMENT in missing
    assert "needs two of them" in dashes(record)[ALIGNMENT]
    assert "needs two of them" in render(as_document(record)).partition("<h2>Events")[0]
    # None at all, and no pose of the whole: there is nothing to report.
    with pytest.raises(SessionError, match="no vertebra was found"):
        run(world, plan, [("native", Truth(whole=Level.REFUSED, lost=frozenset(plan.vertebrae)), 0.0)], tmp_path)


def test_a_residual_that_is_not_given_leaves_the_lead(world: SmallWorld, tmp_path: Path) -> None:
    moved: Scans = [PAIR[0], ("contrast", Truth(moved_mm=5.0), 100.0)]
    missing, record = run(world, world.brain(), moved, tmp_path)
    assert list(missing) == [RESIDUAL]
    assert "the patient moved 5.0 mm" in missing[RESIDUAL]
    assert [implant.name for implant in record.implants] == [LEAD]
    assert record.residual is None
    assert "the patient moved 5.0 mm" in render(as_document(record)).partition("<h2>Views")[0]


def test_a_native_scan_that_is_refused_leaves_what_the_other_one_shows(world: SmallWorld, tmp_path: Path) -> None:
    scans: Scans = [("native", Truth(whole=Level.REFUSED), 0.0), PAIR[1]]
    missing, record = run(world, world.brain(), scans, tmp_path)
    assert "the native scan was not registered" in missing[RESIDUAL]
    assert [implant.name for implant in record.implants] == [LEAD]
    with pytest.raises(SessionError, match="registration to 'T1 contrast 2' was refused"):
        run(world, world.brain(), [PAIR[0], ("contrast", Truth(whole=Level.REFUSED), 100.0)], tmp_path)


def test_the_contrast_scan_may_come_first(world: SmallWorld, tmp_path: Path) -> None:
    missing, record = run(world, world.brain(), PAIR[::-1], tmp_path)
    assert not missing
    assert record.residual is not None
    # Alone it gives all but the residual.
    missing, record = run(world, world.brain(), PAIR[1:], tmp_path)
    assert list(missing) == [RESIDUAL]
    assert record.implants


def test_heat_that_cannot_be_followed_leaves_the_rest(
    world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from IntraopMRILib.cli.heat import Heat

    plan = replace(world.spine(), measures=(), left_out={"Structure at risk Aorta": "nobody has outlined it"})
    with Session(plan) as session:
        session.connect(None)
        session.offer_scan(world.scan("native", Truth(), BEGUN_S), "native")
        begun = _Run(plan, session, tmp_path, wait_s=30.0)
        outcome = begun.to_the_end(0.0, Heat())
    assert list(outcome.missing) == [HEAT, "Structure at risk Aorta"]
    assert dashes(outcome.record)["Structure at risk Aorta"] == "nobody has outlined it"
    assert "no scanner is connected" in outcome.missing[HEAT]
    assert len(outcome.record.implants) == 2
    assert (tmp_path / "overview.png").is_file()
    assert "Temperature scan" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_structure_at_risk_that_nobody_outlined_is_said(brain: BrainCase, tmp_path: Path) -> None:
    write_case(tmp_path, brain, None)
    file = tmp_path / "case" / "plan.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    outlined = list(content["at_risk"])
    file.write_text(json.dumps({**content, "at_risk": [*outlined, "Aorta"]}), encoding="utf-8")
    plan = cases.plan_of_case(tmp_path, "brain")
    assert list(plan.at_risk) == outlined
    assert list(plan.left_out) == ["Structure at risk Aorta"]


@pytest.mark.parametrize(("missing", "status"), [({}, 0), ({"Screw L2": "it is not there"}, commands.INCOMPLETE)])
def test_the_exit_status_and_the_last_words_say_that_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    missing: dict[str, str], status: int,
) -> None:  # fmt: skip
    def made(_files: object, folder: Path) -> SimpleNamespace:
        (folder / "session.json").write_text("{}")
        return SimpleNamespace(missing=missing)

    monkeypatch.setattr("IntraopMRILib.cli.files.run_files", made)
    arguments = ["assess", "--native", "n.nii", "--out", str(tmp_path / "out")]
    assert commands.main(arguments) == status
    assert capsys.readouterr().err == "".join(f"intraopmri: missing: {name}; {why}\n" for name, why in missing.items())
    assert (tmp_path / "out" / "session.json").is_file()
