"""An ablation from the wire to its numbers: temperature, dose, structures at risk, and when there is no number."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from IntraopMRILib.cli import follow
from IntraopMRILib.cli.heat import Heat, follow_heat
from IntraopMRILib.report.html import render
from IntraopMRILib.scene.offscreen import OffscreenViews
from IntraopMRILib.session import Link, Plan, Session
from IntraopMRILib.session.updates import HeatMeasured, ImageReady, MapReady, PlanCarried, Problem
from IntraopMRILib.workflow.record import from_json, to_json
from IntraopMRIReconstructionLib.data import Acquisition, Image, Measurement
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.reconstruct.ablation import HeatNumbers
from IntraopMRIReconstructionLib.reconstruct.quantities import Heating
from IntraopMRIReconstructionLib.simulate.case_files import read_ablation, write_case
from IntraopMRIReconstructionLib.simulate.heating import Ablation, HeatedScan
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase
from IntraopMRIReconstructionLib.simulate.theatre import Theatre
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server
from session.conftest import PATIENT

SPOT, RADIUS_MM, MATRIX = (14.0, -9.0, 6.0), 18.0, 80
MARK = Heating(spot_ras_mm=SPOT, radius_mm=RADIUS_MM)
SIZE, SPACING_MM = 96, 2.0


def head(direction: np.ndarray | None = None) -> Image:
    """An ellipsoid with some brightness of its own, in RAS about the origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) * SPACING_MM if direction is None else direction * SPACING_MM
    matrix[:3, 3] = -matrix[:3, :3] @ np.full(3, (SIZE - 1) / 2)
    k, j, i = np.indices((SIZE, SIZE, SIZE))
    x, y, z = np.moveaxis(apply(matrix, np.stack([i, j, k], axis=-1).astype(float)), -1, 0)
    inside = (x / 66) ** 2 + (y / 78) ** 2 + (z / 70) ** 2 < 1
    array = np.where(inside, 300 + 60 * np.sin(x / 9) * np.cos(y / 11), 0.0)
    return Image(array.astype(np.float32), matrix, "head", patient_id=PATIENT)


def lethal_cm3(ablation: Ablation, scan: HeatedScan, frames: int) -> float:
    """True volume above 240 CEM43 within the slices, by fine points and the closed form of the temperature."""
    fine, deep = 8, 8
    z, y, x = scan.encoding.recon_matrix
    axes = ((np.arange(n * f) + 0.5) / f - 0.5 for n, f in ((z, deep), (y, fine), (x, fine)))
    k, j, i = np.meshgrid(*axes, indexing="ij")
    grid = scan.encoding.ras_from_ijk
    away = np.linalg.norm(apply(grid, np.stack([i, j, k], axis=-1)) - SPOT, axis=-1)
    near = away < 4 * ablation.sigma_mm
    dose = np.zeros(int(near.sum()))
    for frame in range(1, frames):
        rise = ablation.peak_rise_c(frame * ablation.interval_s) * np.exp(-((away[near] / ablation.sigma_mm) ** 2) / 2)
        hot = 37 + rise
        dose += np.where(hot >= 43, 0.5, 0.25) ** (43 - hot) * ablation.interval_s / 60
    return float((dose >= 240).sum() * abs(np.linalg.det(grid[:3, :3])) / (fine * fine * deep) / 1000)


class Heater:
    """A scanner that sends an ablation frame by frame, and a session that listens."""

    def __init__(self, session: Session, server: Server, ablation: Ablation, image: Image, noise: float = 0.02) -> None:
        self.session, self._server = session, server
        self.scan = HeatedScan(image, ablation, matrix=MATRIX, coils=6, noise=noise)
        self._blocks: Iterator[Acquisition] = self.scan.blocks()
        self.told: list[Any] = []
        self._waiting: list[Any] = []
        for message in messages_from_encoding(self.scan.encoding):
            server.send(message)

    def frames(self, count: int) -> HeatMeasured:
        """Send so many more frames; what the last one says."""
        for _ in range(count):
            for _ in range(self.scan.encoding.encoded_matrix[0]):
                block = next(self._blocks)
                self._server.send(message_from_acquisition(block, form="image"))
            found = self.of_frame(block.repetition)
        return found

    def of_frame(self, number: int) -> HeatMeasured:
        found: HeatMeasured = self.until(HeatMeasured, lambda heat: heat.frame == number)
        return found

    def until(self, kind: type[Any], where: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next update of a kind; those that came on the way are kept for the next question."""
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            self._waiting += self.session.drain()
            while self._waiting:
                update = self._waiting.pop(0)
                self.told.append(update)
                if isinstance(update, kind) and where(update):
                    return update
            time.sleep(0.005)
        pytest.fail(f"no {kind.__name__}, but {self.told[-5:]}")


@pytest.fixture
def listening() -> Iterator[tuple[Session, Server]]:
    before = head()
    tumour = before.with_array((before.array > 340).astype(np.uint8))
    with Server() as server, Session(Plan(PATIENT, "ablation", before, tumour)) as session:
        session.connect(Link("127.0.0.1", server.port))
        assert server.wait_for_peer(10.0)
        yield session, server


def test_from_the_wire_to_the_numbers(listening: tuple[Session, Server]) -> None:
    session, server = listening
    ablation = Ablation(SPOT, frames=32, drift_c=5.0)
    session.heat.mark(MARK)
    heater = Heater(session, server, ablation, head())
    for frame in range(ablation.frames):
        found = heater.frames(1)
        true_c = 37 + float(heater.scan.rise_c(frame).max())
        peak = found.numbers.peak
        assert peak.value == pytest.approx(true_c, abs=1.0), frame
        assert peak.interval is not None
        assert peak.interval[0] - 0.5 < true_c < peak.interval[1] + 0.5
        assert found.latency_s > 0
    final = heater.until(MapReady).maps
    assert len([each for each in heater.told if isinstance(each, MapReady)]) == ablation.frames
    error = final[0].array - heater.scan.rise_c(ablation.frames - 1)
    assert float(np.sqrt(np.nanmean(error**2))) < 1.0, "a drift of 5 C would be left"
    assert abs(float(np.nanmedian(error))) < 0.1
    true_cm3, volume = lethal_cm3(ablation, heater.scan, ablation.frames), found.numbers.volume
    assert true_cm3 > 0.5
    assert volume.value == pytest.approx(true_cm3, rel=0.15)
    assert volume.interval is not None
    assert volume.interval[0] <= true_cm3 <= volume.interval[1]
    # What is outlined is what was counted, and it lies about the spot.
    lethal = found.numbers.lethal
    assert lethal is not None
    assert lethal.array.sum() * lethal.voxel_volume_ml == pytest.approx(volume.value)
    middle = apply(lethal.ras_from_ijk, np.argwhere(lethal.array)[:, ::-1].mean(axis=0))
    assert np.linalg.norm(middle - SPOT) < 1.0
    assert found.ended
    assert found.hottest_ras_mm is not None
    assert np.linalg.norm(found.hottest_ras_mm - SPOT) < 4.0

    record = session.journal.record
    (entry,) = record.heating
    assert entry.frames == len(entry.course) == ablation.frames
    highest = 37 + max(float(heater.scan.rise_c(frame).max()) for frame in range(ablation.frames))
    assert entry.measurements[0].value == pytest.approx(highest, abs=1.0)
    assert from_json(to_json(record)) == record
    report = render(json.loads(to_json(record)))
    for words in ("Ablation", "Volume above 240 CEM43", "Sapareto and Dewey 1984", "Ishihara 1995", "37 °C"):
        assert words in report
    assert any(event.kind == "heat" and "radius 18 mm" in event.text for event in record.events)


def test_a_mark_that_comes_late_gives_the_same_numbers(listening: tuple[Session, Server]) -> None:
    session, server = listening
    heater = Heater(session, server, Ablation(SPOT, frames=26), head())
    found = heater.frames(20)
    assert found.numbers.peak.value is None
    assert found.numbers.missing_because == "drift not corrected: mark the heated spot"
    assert found.hottest_ras_mm is not None, "a drift that all tissue shares hides no hot spot"
    session.heat.mark(MARK)
    late = heater.until(HeatMeasured)
    assert late.frame == found.frame
    assert len(session.journal.record.heating[0].course) == 20
    last = heater.frames(6)
    with Server() as other, Session(session.plan) as early:
        early.connect(Link("127.0.0.1", other.port))
        assert other.wait_for_peer(10.0)
        early.heat.mark(MARK)
        again = Heater(early, other, Ablation(SPOT, frames=26), head()).frames(26)
    for one, two in zip(last.numbers.measurements, again.numbers.measurements, strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-5)
        assert one.interval == pytest.approx(two.interval, rel=1e-5)
    # After the scan it may still be corrected.
    session.heat.mark(replace(MARK, baseline_c=36.0))
    colder = heater.until(HeatMeasured)
    assert colder.numbers.peak.value == pytest.approx(last.numbers.peak.value - 1.0, abs=1e-3)  # type: ignore[operator]
    assert "36 °C" in colder.numbers.peak.definition


def test_a_head_that_moves_takes_the_numbers_away_until_there_is_a_new_reference(
    listening: tuple[Session, Server],
) -> None:
    session, server = listening
    session.heat.mark(MARK)
    ablation = Ablation(SPOT, frames=20, starts_s=30.0, moves_mm=(2.0, 1.0, 0.0), moves_at_s=18.0)
    heater = Heater(session, server, ablation, head())
    assert heater.frames(6).numbers.peak.value is not None
    moved = heater.frames(2)
    assert moved.numbers.missing_because.startswith("something moved in frame 6")
    assert all(m.value is None for m in moved.numbers.measurements)
    assert moved.numbers.lethal is None
    session.heat.new_reference()
    assert "the reference was reset" in heater.until(HeatMeasured).numbers.missing_because, "at once"
    back = heater.frames(3)
    assert back.numbers.peak.value == pytest.approx(37.0, abs=2.0)
    assert any("the reference was reset" in update.numbers.missing_because for update in heater.told
               if isinstance(update, HeatMeasured))  # fmt: skip
    first, second = session.journal.record.heating
    assert any("moved" in note or "reset" in note for note in first.notes)
    # What was measured before stays.
    assert first.measurements[0].value == pytest.approx(37.0, abs=2.0)
    assert first.measurements[2].value == 0.0
    assert second.reference_frame == 8


def test_a_structure_at_risk_is_watched(listening: tuple[Session, Server]) -> None:
    session, server = listening
    session.heat.mark(MARK)
    heater = Heater(session, server, Ablation(SPOT, frames=30), head())
    found = heater.frames(5)
    assert found.risks == ()
    k, j, i = np.indices((9, 9, 9))
    ball = ((k - 4) ** 2 + (j - 4) ** 2 + (i - 4) ** 2 < 9).astype(np.uint8)
    labels = {}
    for name, off in (("Near", 6.0), ("Far", 40.0), ("Outside", 150.0)):
        grid = np.eye(4)
        grid[:3, 3] = np.array(SPOT) + np.array([off - 4, -4, -4])
        labels[name] = (Image(ball, grid, name), None)
    session.heat.at_risk(PlanCarried((), labels, head()))
    found = heater.frames(20)
    near, far, outside = found.risks
    assert near.alarm
    assert near.temperature.value is not None
    assert near.highest.value is not None
    assert near.highest.value >= near.temperature.value > 45
    assert far.temperature.value == pytest.approx(37.0, abs=2.0)
    assert not far.alarm
    assert outside.temperature.value is None
    assert "not in the slices" in outside.temperature.missing_because
    assert {m.name for m in session.journal.record.heating[0].measurements} >= {"Near: highest temperature"}
    session.heat.at_risk(None)
    assert heater.until(HeatMeasured).risks == ()


def test_marks_that_cannot_be(listening: tuple[Session, Server]) -> None:
    session, server = listening
    with pytest.raises(SessionError, match="radius above 0 mm"):
        session.heat.mark(replace(MARK, radius_mm=0.0))
    with pytest.raises(SessionError, match="a place in RAS mm"):
        session.heat.mark(replace(MARK, spot_ras_mm=(0.0, float("nan"), 0.0)))
    with pytest.raises(SessionError, match="between 0 and 43"):
        session.heat.mark(replace(MARK, baseline_c=60.0))
    with pytest.raises(SessionError, match="no temperature scan is running"):
        session.heat.new_reference()
    heater = Heater(session, server, Ablation(SPOT, frames=6), head())
    heater.frames(3)
    session.heat.mark(replace(MARK, spot_ras_mm=(0.0, 0.0, 900.0)))
    said = heater.until(Problem)
    assert "holds nothing of the scan" in said.text
    assert not said.fatal
    # The mark that could be stays: none.
    assert heater.frames(1).heating.spot_ras_mm is None


def test_a_mark_that_was_left_elsewhere_does_not_stop_the_scan(listening: tuple[Session, Server]) -> None:
    session, server = listening
    session.heat.mark(replace(MARK, spot_ras_mm=(0.0, 0.0, 900.0)))
    heater = Heater(session, server, Ablation(SPOT, frames=6), head())
    found = heater.frames(2)
    assert found.numbers.missing_because.startswith("drift not corrected")
    assert [update for update in heater.told if isinstance(update, Problem) and "holds nothing" in update.text]
    session.heat.mark(MARK)
    assert heater.until(HeatMeasured).numbers.peak.value is not None


def test_frames_that_are_no_use_are_left_out_and_the_scan_goes_on(listening: tuple[Session, Server]) -> None:
    session, server = listening
    session.heat.mark(MARK)
    heater = Heater(session, server, Ablation(SPOT, frames=12), head())
    good = heater.frames(4)
    assert good.numbers.peak.value is not None
    # Two frames get lost on the way; what was not seen is said.
    for _ in range(2 * heater.scan.encoding.encoded_matrix[0]):
        next(heater._blocks)
    found = heater.frames(1)
    assert any("frames of 6 s did not come" in note for note in found.numbers.notes)
    # A coil dies: no later frame can be held against the reference.
    for _ in range(heater.scan.encoding.encoded_matrix[0]):
        block = next(heater._blocks)
        samples = block.samples.copy()
        samples[:, 1] = 0.0
        server.send(message_from_acquisition(replace(block, samples=samples), form="image"))
    said = heater.until(Problem)
    assert said.text.startswith("frame 7: coils of the scan changed since the reference")
    assert not said.fatal
    blank = heater.until(HeatMeasured)
    assert blank.frame == found.frame
    assert blank.numbers.missing_because.startswith("coils of the scan changed")
    assert all(m.value is None for m in blank.numbers.measurements)
    # The mark changes nothing about that.
    session.heat.mark(replace(MARK, radius_mm=16.0))
    assert heater.until(HeatMeasured).numbers.peak.value is None
    session.heat.new_reference()
    heater.until(HeatMeasured)
    assert heater.frames(2).numbers.peak.value is not None


def test_a_header_that_tells_no_temperature_is_said_at_once(listening: tuple[Session, Server]) -> None:
    session, server = listening
    encoding = HeatedScan(head(), Ablation(SPOT, frames=3), matrix=MATRIX).encoding
    for message in messages_from_encoding(replace(encoding, echo_times_s=(0.0,))):
        server.send(message)
    deadline = time.monotonic() + 60.0
    told: list[Any] = []
    while not any(isinstance(update, Problem) for update in told):
        assert time.monotonic() < deadline
        told += session.drain()
        time.sleep(0.005)
    (said,) = [update for update in told if isinstance(update, Problem)]
    assert said.text.startswith("no temperature from this scan: thermometry needs the field in tesla")


def when_free(ask: Callable[[], Any]) -> Any:
    """Ask the scanner as soon as it can be asked."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return ask()
        except SessionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_theatre_heats_on_command_and_the_command_line_follows(tmp_path: Path, brain: BrainCase) -> None:
    write_case(tmp_path, brain, None, PATIENT)
    ablation = read_ablation(tmp_path)
    assert ablation is not None
    plan = Plan(PATIENT, "ablation", replace(brain.preop, patient_id=PATIENT), brain.tumour)
    options = {"scanner": ["--frame-seconds", "0", "--scan-seconds", "600", "--coils", "4"]}
    drawn: list[Any] = []
    with Theatre(tmp_path, servers=("scanner",), options=options) as theatre, Session(plan) as session:
        session.connect(Link("127.0.0.1", theatre.ports["scanner"]))
        # Its own scans would take ten minutes each; while they go on it takes no other.
        when_free(session.stop_scan)
        found = when_free(lambda: follow_heat(session, Heat(), 60.0, drawn.append, 0.005))
    assert found.heating.spot_ras_mm is not None
    # Of forty maps one is drawn.
    assert [update for update in drawn if isinstance(update, HeatMeasured)] == [found]
    assert len([update for update in drawn if isinstance(update, MapReady)]) == 1
    assert np.linalg.norm(np.array(found.heating.spot_ras_mm) - ablation.spot_ras_mm) < 6.0
    (entry,) = session.journal.record.heating
    highest = 37 + max(ablation.peak_rise_c(ablation.frame_time_s(frame)) for frame in range(ablation.frames))
    assert entry.measurements[0].value == pytest.approx(highest, abs=2.0)
    assert entry.measurements[2].value is not None
    assert entry.measurements[2].value > 0.2


def test_the_picture_of_the_dose_has_the_scan_dimmed_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices see some centimetres of the head: what is black beside them would be read as outside of it."""
    scan = head()
    matrix = np.diag([1.0, 1.0, 4.0, 1.0])
    matrix[:3, 3] = np.array(SPOT) - (19.5, 19.5, 4.0)
    slab = Image(np.full((3, 40, 40), 300, np.float32), matrix, "Heat magnitude")
    facts = {"quantity": "thermal dose (CEM43)", "unit": "min", "scan": "first"}
    hot = np.full((3, 40, 40), np.nan, np.float32)
    hot[:, 15:25, 15:25] = 200
    dose = replace(slab, array=hot, name="dose", metadata=facts)
    plan = Plan(PATIENT, "ablation", scan, scan.with_array((scan.array > 340).astype(np.uint8)))
    unknown = Measurement("Peak", None, "°C", "test", missing_because="not asked")
    found = HeatMeasured("first", 0, HeatNumbers(unknown, unknown, unknown, None), (), MARK, None, 0.0, 0.0, 1.0, True)
    monkeypatch.setattr(follow, "follow_heat", lambda *_: found)
    with Session(plan) as session:
        begun = follow._Run(plan, session, tmp_path, 30.0)
        begun.view.apply(ImageReady(scan, "contrast", None, 0.0))
        begun.view.apply(MapReady((dose,), slab))
        headless = begun.headless
        with OffscreenViews(headless.scene, headless.applicationLogic, follow.PICTURE) as views:
            picture = begun._ablate(None, views, Heat())
        assert begun.bridge.node("around") is None, "a scene that is saved has none of it"
        frame: Any = begun.bridge.node("map.frame")
        assert not frame.GetDisplayVisibility()
    assert "outside the frame nothing is measured" in picture.caption
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "heat.png")))[:, :, :3].astype(int)
    axial = pixels[: follow.PICTURE[1] // 2 - 1, : follow.PICTURE[0] // 2 - 1]
    per_mm = axial.shape[0] / follow.HEAT_HEIGHT_MM

    def at(right_mm: float, anterior_mm: float) -> np.ndarray:
        """Mean colour of 3 mm about a place, from the marked one; right is on the left."""
        row, column = axial.shape[0] / 2 - anterior_mm * per_mm, axial.shape[1] / 2 - right_mm * per_mm
        half = round(1.5 * per_mm)
        near = axial[round(row) - half : round(row) + half, round(column) - half : round(column) + half]
        return np.asarray(near.mean(axis=(0, 1)))

    inside, outside, beyond = at(0, 14), at(-40, 0), at(70, 0)
    assert inside.min() > 100
    assert 20 < outside.min() <= outside.max() < 0.6 * inside.max(), "seen, and only for bearings"
    assert beyond.max() < 5, "outside of the head"
    assert np.ptp(at(0, 0)) > 30 > np.ptp(inside), "the dose has its colour"
    # The scale stands at the right edge, between its bar of length and the patient's side: dark to light upwards.
    column = axial[axial.shape[0] // 2 :, axial.shape[1] - round(0.05 * axial.shape[0])]
    coloured = np.flatnonzero(np.ptp(column, axis=1) > 60)
    assert len(coloured) > 0.15 * axial.shape[0]
    assert column[coloured[0]].sum() > 2 * column[coloured[-1]].sum()
    edge = axial[round(axial.shape[0] / 2), : axial.shape[1] // 2]
    amber = (edge[:, 0] > 150) & (edge[:, 1] > 100) & (edge[:, 2] < 100)
    assert abs(axial.shape[1] / 2 - np.flatnonzero(amber).mean() - 20 * per_mm) < per_mm
