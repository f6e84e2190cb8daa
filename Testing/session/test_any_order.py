"""Whatever happens in theatre, in whatever order: what is shown and written rests on something that holds now.

Random sequences of scans, decisions, measures, poses and new plans go through a real session, its record and its scene;
what must hold is checked after every step. Events also fall into the middle of a stage, where a thread would put them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from IntraopMRILib.register.carry_over import Carried
from IntraopMRILib.report.html import render
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.scene_io import loadScene, saveScene
from IntraopMRILib.scene.session_view import SessionView
from IntraopMRILib.session import Session
from IntraopMRILib.session.bones import Bone
from IntraopMRILib.session.measures import Drawn
from IntraopMRILib.session.pair import MOVED_MM
from IntraopMRILib.session.receive import ArrivedScan
from IntraopMRILib.session.updates import ImageReady, ImplantFound, PlanCarried, Problem, Registered, Role, Update
from IntraopMRILib.workflow.record import as_document, read_record, write_record
from IntraopMRIReconstructionLib.data import POSE_STALE_S, Image, Level, Pose
from IntraopMRIReconstructionLib.errors import IntraopError
from session.small_world import BEGUN_S, LEAD, LOOSE, SCREW, SmallWorld, Truth

ROLES: tuple[Role, ...] = ("native", "contrast")
#: Lines on the endplates of a spine for its Cobb angle.
ENDPLATES = tuple(
    (f"{name} {n}", (x, y, z)) for name, z in (("upper", 20.0), ("lower", -20.0)) for n, (x, y) in
    enumerate(((0.0, 0.0), (10.0, 0.0), (0.0, 10.0)))
)  # fmt: skip
TRUTHS = st.builds(
    Truth,
    whole=st.sampled_from([Level.GOOD, Level.GOOD, Level.CHECK, Level.REFUSED]),
    shift=st.sampled_from([Level.GOOD, Level.GOOD, Level.CHECK, Level.REFUSED, None]),
    moved_mm=st.sampled_from([0.0, 0.0, 0.5, 5.0]),
    defect=st.sampled_from(["", "", "", "register", "follow", "vertebrae", "implant"]),
    lost=st.sets(st.sampled_from([LEAD, LOOSE, SCREW, "L2", "L4"]), max_size=2).map(frozenset),
)
#: What a person, or the network, does while a stage works.
MEANWHILE = st.dictionaries(
    st.sampled_from(["register", "follow", "vertebrae", "implant"]),
    st.sampled_from([["look", "decide"], ["look", "decide"], ["reject"], ["cancel"], ["measure"], ["lost"]]),
    max_size=2,
)


class Theatre(RuleBasedStateMachine):
    """One session with its view. ``images``: newest scan of each role that was a picture of this patient."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.world = SmallWorld(self._during)
        self.world.stand_in(self.patch)
        self.headless = HeadlessScene()
        self.bridge = SceneBridge(self.headless.scene)
        self.folder = tempfile.TemporaryDirectory()
        self.clock_s, self.taken_s, self.sent_s = 100.0, BEGUN_S, 0.0
        self.session: Session
        logging.disable(logging.ERROR)

    @initialize(spine=st.booleans())
    def begin(self, spine: bool) -> None:
        self._connect(spine)

    def _connect(self, spine: bool) -> None:
        self.session = Session(self.world.spine() if spine else self.world.brain())
        self.bridge = SceneBridge(self.bridge.scene)
        self.view = SessionView(self.bridge, self.session.plan, lambda: self.clock_s, lambda: self.taken_s)
        self.images: dict[str, Image] = {}
        self.all: list[Image] = []
        self.last: Image | None = None
        self.waiting: list[Update] = []
        self.meanwhile: dict[str, list[str]] = {}

    def teardown(self) -> None:
        self.session.close()
        self.patch.undo()
        self.folder.cleanup()
        logging.disable(logging.NOTSET)

    # What happens

    @rule(
        role=st.sampled_from(ROLES), content=st.sampled_from(ROLES), truth=TRUTHS, timed=st.booleans(),
        chosen=st.booleans(), meanwhile=MEANWHILE, look=st.booleans(),
    )  # fmt: skip
    def any_scan(
        self, role: Role, content: Role, truth: Truth, timed: bool, chosen: bool, meanwhile: dict[str, list[str]],
        look: bool,
    ) -> None:  # fmt: skip
        """A scan, perhaps exchanged with the other one, chosen by a person, or with a defect on its way."""
        self._scan(role, content, truth, timed, chosen, meanwhile)
        if look:
            self.look()

    @rule(
        role=st.sampled_from(ROLES), whole=st.sampled_from([Level.GOOD, Level.REFUSED]), meanwhile=MEANWHILE,
        accept=st.booleans(),
    )  # fmt: skip
    def sound_scan(self, role: Role, whole: Level, meanwhile: dict[str, list[str]], accept: bool) -> None:
        """A scan as it should be, of a spine that may be bent; then perhaps all is decided."""
        self._scan(role, role, Truth(whole=whole), True, False, meanwhile)
        self.look()
        for which in range(4 if accept else 0):
            self.decide(which, True, True)

    @rule(times=st.integers(1, 2), meanwhile=MEANWHILE)
    def pair(self, times: int, meanwhile: dict[str, list[str]]) -> None:
        """Both scans, or a second injection after them."""
        for role in (*ROLES, "contrast")[: times + 1]:
            self._scan(role, role, Truth(), True, False, meanwhile if role == "contrast" else {})
        self.look()

    @rule(role=st.sampled_from(ROLES))
    def stranger(self, role: Role) -> None:
        """A scan of another patient changes nothing, and is said."""
        before = as_document(self.session.journal.record)
        image = self.world.scan(role, Truth(), self.taken_s, "SOMEBODY-ELSE")
        self._work_on(ArrivedScan(role, image.name, image=image))
        after = as_document(self.session.journal.record)
        assert {key for key in before if before[key] != after[key]} <= {"events", "timings"}
        problem = [update for update in self._arrived() if isinstance(update, Problem)][-1]
        assert problem.fatal
        assert "SOMEBODY-ELSE" in problem.text
        self.look()

    @rule()
    def look(self) -> None:
        """The main thread takes in what has happened."""
        for update in self._arrived():
            self.view.apply(update)
        self.waiting.clear()

    @rule(which=st.integers(0, 9), accepted=st.booleans(), named=st.sampled_from([True, True, True, False]))
    def decide(self, which: int, accepted: bool, named: bool) -> None:
        """A person decides on what is shown, which may be older than what the session has."""
        things: list[Carried | Bone] = [*self.view.items.values(), *self.view.lone.items.values()]
        if not things:
            return
        thing, by = things[which % len(things)], "Dr. Example" if named else " "
        before = self.session.journal.record
        try:
            if isinstance(thing, Bone):
                self.view.lone.decided(self.session.decide_bone(thing, accepted, by))
            else:
                self.view.decided(self.session.decide(thing, accepted, by))
        except IntraopError as error:
            note(f"refused: {error}")
            assert self.session.journal.record == before, "a refused decision changes nothing"
            return
        assert named
        assert thing.offered or not accepted

    @rule()
    def go_on_without(self) -> None:
        """A person leaves vertebrae undecided."""
        before = self.session.journal.record
        try:
            self.session.leave_bones("Dr. Example")
        except IntraopError:
            assert self.session.journal.record == before
            return
        assert before.parts, "nothing is left that nobody is asked about"
        assert before.registration is not None
        assert before.registration.verdict.level is Level.REFUSED

    @rule(older=st.booleans(), back=st.booleans())
    def measure(self, older: bool, back: bool = False) -> None:
        """Landmarks on the newest scan, or on one before it; or what they gave is taken back."""
        if back and self.session.journal.record.drawn:
            self.session.withdraw("cobb")
        if self.last is None:
            return
        image, before = self.all[0] if older else self.last, self.session.journal.record
        try:
            self.session.measure("cobb", Drawn(image.uid, ENDPLATES), "Dr. Example")
        except IntraopError:
            assert self.session.journal.record == before

    @rule(
        tool=st.sampled_from(["Pointer", "Pointer", "Probe"]), valid=st.sampled_from([True, True, True, False]),
        step_s=st.sampled_from([0.02, 0.02, 0.02, 5.0]), stamp_s=st.sampled_from([0.02, 0.02, 0.02, 0.0, -30.0]),
        count=st.integers(1, 4), silence=st.booleans(),
    )  # fmt: skip
    def poses(self, tool: str, valid: bool, step_s: float, stamp_s: float, count: int, silence: bool) -> None:
        """Some poses of a tool; its clock may stand still or jump back."""
        for number in range(count):
            self.clock_s += step_s
            self.sent_s += stamp_s if number == 0 else max(stamp_s, 0.0)
            place = np.eye(4)
            place[:3, 3] = number
            self.view.movePointer(Pose(place, tool, self.clock_s, 0.0, self.sent_s, valid))
        tip = self.view.tip()
        if not valid or (step_s > POSE_STALE_S and stamp_s <= 0 and count > 1):
            assert tip is None
        elif tip is not None:
            assert tip.tolist() == [count - 1.0] * 3, "no place where the tool was before"
        if silence:
            self.clock_s += POSE_STALE_S * 2
            self.view.tick()
            assert self.view.tip() is None
            assert not self._visible("pointer")

    @rule()
    def link_lost(self) -> None:
        """A scan breaks off on the way: what was established before stays."""
        self.session._tell(Problem("receive", "scan 'x' stopped at 30%: the link was lost"))
        self.look()

    @rule(spine=st.booleans())
    def begin_anew(self, spine: bool) -> None:
        """Disconnected, the plan changed, connected again."""
        self.session.close()
        self.bridge.withdraw("The session was closed.")
        self._connect(spine)
        assert not any(role.startswith(("result.", "intraop.")) for role in self.bridge.roles())

    def what_is_written_loads_back_to_the_same(self) -> None:
        path = Path(self.folder.name) / "session.json"
        write_record(self.session.journal.record, path)
        assert read_record(path) == self.session.journal.record
        assert [entry.name for entry in path.parent.iterdir()] == ["session.json"]

    @precondition(lambda self: len(self.all) > 0)
    @rule()
    def save_scene(self) -> None:
        """A loaded scene trusts nothing of what was registered when it was saved."""
        opened = saveScene(self.bridge.scene, Path(self.folder.name) / "scene.mrb")
        other = HeadlessScene()
        loadScene(other.scene, opened)
        opened.unlink()
        loaded = SceneBridge(other.scene)
        assert loaded.registration is None
        assert loaded.node("pointer") is None
        for role in loaded.roles():
            if role.startswith(("preop.", "result.", "bone.", "intraop.implant.")):
                node: Any = loaded.node(role)
                assert not node.GetDisplayNode().GetVisibility(), role
        if self.bridge.registration is None:
            assert loaded.unconfirmed is None

    # What must hold after each of them

    @invariant()
    def holds(self) -> None:
        """All that must hold, whatever has happened."""
        self.every_number_rests_on_a_scan_that_counts()
        self.an_earlier_look_is_of_an_earlier_scan_that_was_registered()
        self.a_residual_rests_on_a_registered_pair()
        self.an_implant_is_judged_against_the_plan_that_was_accepted()
        self.the_report_can_be_written()
        self.what_is_written_loads_back_to_the_same()
        self.the_screen_says_what_the_record_says()
        self.everything_is_told_in_order()

    def every_number_rests_on_a_scan_that_counts(self) -> None:
        record = self.session.journal.record
        newest = {image.uid for image in self.images.values()}
        older = {image.uid for image in self.all} - newest
        now = {**as_document(record), "looks": []}
        for place, entry in _numbers(now, "record"):
            assert not older & set(entry["based_on"]), f"{place} {entry['name']} rests on a scan that was replaced"
        if self.last is None or record.registration is None or not record.images:
            assert not list(_numbers(now, "record")), "a number without a registration"
            return
        counts = record.registration.fixed_uid
        assert counts in newest
        if self.session.plan.vertebrae and not record.parts:
            assert not record.measurements, "neither numbers nor why there are none: no vertebra was looked for yet"
        assert all(entry.image_uid == counts for entry in record.drawn)
        assert record.margin is None or record.margin.image_uid == counts
        if record.registration.verdict.level is Level.REFUSED:
            assert record.residual is None
            assert not record.carried

    def an_earlier_look_is_of_an_earlier_scan_that_was_registered(self) -> None:
        record = self.session.journal.record
        names = {image.uid: image.name for image in self.all}
        for look in record.looks:
            assert self.world.truths[names[look.image_uid]].whole is not Level.REFUSED
            assert look.measurements
            assert record.images[-1].uid != look.image_uid
        uids = [look.image_uid for look in record.looks]
        assert uids == sorted(set(uids), key=[image.uid for image in self.all].index)

    def a_residual_rests_on_a_registered_pair(self) -> None:
        record = self.session.journal.record
        if record.residual is None:
            return
        native, contrast = (self.images[role] for role in ROLES)
        truths = [self.world.truths[image.name] for image in (native, contrast)]
        assert {native.uid, contrast.uid} <= set(record.residual.volume.based_on)
        assert all(truth.whole is not Level.REFUSED and truth.defect != "register" for truth in truths)
        assert abs(truths[0].moved_mm - truths[1].moved_mm) <= MOVED_MM
        assert record.registration is not None
        assert record.registration.fixed_uid == contrast.uid
        times = native.acquired_utc_s, contrast.acquired_utc_s
        if None not in times:
            assert times[0] < times[1]  # type: ignore[operator]

    def an_implant_is_judged_against_the_plan_that_was_accepted(self) -> None:
        record = self.session.journal.record
        accepted = {entry.name for entry in record.carried if entry.kind == "plan" and entry.decision == "accepted"}
        for implant in record.implants:
            assert (implant.name in accepted) is implant.planned_basis.startswith("carried over"), implant.planned_basis
        decided = [part for part in record.parts if part.decision != "open"]
        if decided:
            by_name = {part.name: part.decision for part in record.parts}
            for implant in record.implants:
                assert by_name[self.session.plan.implanted[implant.name]] == "accepted"

    def the_report_can_be_written(self) -> None:
        text = render(as_document(self.session.journal.record))
        if self.session.journal.record.residual is None:
            assert "RANO class not given" in text or "Residual and resection" not in text

    def the_screen_says_what_the_record_says(self) -> None:
        self._arrived()
        if self.waiting:
            return
        record, registration = self.session.journal.record, self.bridge.registration
        sound = record.registration is not None and record.registration.verdict.level is not Level.REFUSED
        assert (registration is not None) is sound
        if registration is not None and record.registration is not None:
            assert registration.image_uid == record.registration.fixed_uid
            assert np.allclose(registration.intraop_from_preop, record.registration.intraop_from_preop)
        shown = self.view.readout()
        expected = None if record.residual is None else record.residual.volume
        assert shown.residual == expected
        assert self._visible("result.residual") is (record.residual is not None)
        assert (self.view.tipToResidual() is not None) <= (record.residual is not None)
        assert {entry.name: entry.decision for entry in record.carried} == {
            item.name: {None: "open", True: "accepted", False: "rejected"}[item.accepted]
            for item in self.view.items.values() if self.session.plan.tumour is not None
        }  # fmt: skip
        drawn = {planned.name for planned in self.session.plan.trajectories if self._shown(planned.name)}
        found = {implant.name for implant in record.implants}
        bones = {bone.name: bone for bone in self.view.lone.items.values()}
        if bones:
            found = {name for name in found if bones[self.session.plan.implanted[name]].accepted}
        elif not sound:
            found = set()
        assert drawn == found
        numbers = {name for name, all_ in shown.implants.items() if any(m.value is not None for m in all_)}
        assert numbers == found
        for role in self.bridge.roles():
            if role.startswith("preop.") and role != "preop.rigid":
                assert self._visible(role) is sound, role

    def everything_is_told_in_order(self) -> None:
        """A result comes behind its scan, and nothing of an older scan comes behind a newer one."""
        newest, uids = "", {role: image.uid for role, image in self.images.items()}
        for update in self._arrived():
            if isinstance(update, ImageReady):
                newest = update.image.name
                uids[update.role] = update.image.uid
            elif newest and isinstance(update, Registered | PlanCarried):
                assert update.image.name == newest or "contrast" in update.image.name
            elif newest and isinstance(update, ImplantFound) and update.measurements:
                assert update.measurements[0].based_on[0] in uids.values()

    # Helpers

    def _scan(
        self, role: Role, content: Role, truth: Truth, timed: bool, chosen: bool, meanwhile: dict[str, list[str]]
    ) -> None:
        self.taken_s += 100.0
        image = self.world.scan(content, truth, self.taken_s if timed else None)
        self.images[role] = self.last = image
        self.all.append(image)
        self.meanwhile = dict(meanwhile)
        self._work_on(ArrivedScan(role, image.name, image=image, chosen=chosen))
        self.meanwhile = {}

    def _work_on(self, scan: ArrivedScan) -> None:
        self.session._cancelled.clear()
        self.session._working.set()
        self.session._work_on(scan)
        self.session._working.clear()

    def _during(self, stage: str) -> None:
        for event in self.meanwhile.pop(stage, ()):
            if event == "look":
                self.look()
            elif event in ("decide", "reject"):
                for which in range(4):
                    self.decide(which, event == "decide", True)
            elif event == "cancel":
                self.session.cancel()
            elif event == "measure":
                self.measure(False)
            else:
                self.link_lost()

    def _arrived(self) -> list[Update]:
        self.waiting += self.session.drain()
        return list(self.waiting)

    def _visible(self, role: str) -> bool:
        node: Any = self.bridge.node(role)
        return node is not None and bool(node.GetDisplayNode().GetVisibility())

    def _shown(self, implant: str) -> bool:
        return any(self._visible(f"{room}.implant.{implant}.cylinder") for room in ("intraop", "bone"))


def _numbers(content: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measurements with a value that rest on something, anywhere in a document."""
    if isinstance(content, dict):
        if content.get("value") is not None and content.get("based_on"):
            yield place, content
        for key, inner in content.items():
            yield from _numbers(inner, f"{place}.{key}")
    elif isinstance(content, (list, tuple)):
        for number, inner in enumerate(content):
            yield from _numbers(inner, f"{place}[{number}]")


TestAnyOrder = pytest.mark.slow(Theatre.TestCase)
TestAnyOrder.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
