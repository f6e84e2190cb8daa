"""Page 4 during an ablation: the mark is told to the session, numbers are large, and go when they do not hold."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.reconstruct.ablation import HeatNumbers
from IntraopMRIReconstructionLib.reconstruct.quantities import Heating
from panels.operation import Operation, product
from PySide6 import QtGui

__all__ = ["app"]

SPOT = (5.0, -3.0, 2.0)


@pytest.fixture
def operation(app: Any) -> Operation:
    made = Operation()
    made.open("SCAN")
    return made


def numbers(missing: str = "", volume_cm3: float = 1.2) -> HeatNumbers:
    lethal = np.zeros((3, 40, 40), np.uint8)
    lethal[1, 10:20, 10:20] = 1
    found = HeatNumbers(
        Measurement("Peak temperature", 58.2, "°C", "d", "s", (57.1, 59.3)),
        Measurement("Highest dose (CEM43)", 2e5, "min", "d", "s", (1e5, 4e5)),
        Measurement("Volume above 240 CEM43", volume_cm3, "cm3", "d", "s", (1.0, 1.5)),
        Image(lethal, np.diag([0.6, 0.6, 4.0, 1.0])),
        ("tissue beside the mark is 2.4 °C warmer: make the radius larger",),
    )
    return found.without(missing) if missing else found


def tell(operation: Operation, found: HeatNumbers, risk_c: float = 39.0, **more: Any) -> Any:
    updates = product("session.updates")
    temperature = Measurement("Motor tract: highest temperature", risk_c, "°C", "d", "s", (risk_c - 1, risk_c + 1))
    dose = Measurement("Motor tract: highest dose (CEM43)", 0.5, "min", "d", "s", (0.2, 0.9))
    risk = updates.RiskHeat("Motor tract", temperature, dose, "", temperature)
    known = {
        "heating": Heating(spot_ras_mm=SPOT), "hottest_ras_mm": np.array(SPOT), "received_s": time.monotonic(),
        "latency_s": 0.03, "stale_s": 4.0, "ended": False,
    }  # fmt: skip
    heat = updates.HeatMeasured("Thermometry", 7, found, (risk,), **{**known, **more})
    operation.session._tell(heat)
    operation.until(lambda: operation.running.heat is heat, "the numbers")
    return heat


def words(operation: Operation) -> str:
    operation.page("SCAN").heat.tick()
    return str(operation.page("SCAN").ui.heatLabel.text)


def corners(operation: Operation) -> Any:
    return product("scene.display").corners(operation.running.view.readout())


def text_of(lines: Any) -> str:
    return " | ".join(line.text for line in lines)


def test_numbers_stand_on_the_page_and_in_the_views(operation: Operation) -> None:
    ui = operation.page("SCAN").ui
    assert not ui.newReferenceButton.enabled
    tell(operation, numbers())
    assert not ui.heatSection.collapsed
    said = words(operation)
    said = said.replace("&nbsp;", " ")
    for part in (
        "Peak 58.2 °C", "57.1 to 59.3 °C", "Lethal dose: 1.2 cm³", "1.0 to 1.5 cm³", "&gt; 1000 min",
        "Motor tract: 39.0 °C", "make the radius larger", "from 37 °C before",
    ):  # fmt: skip
        assert part in said, part
    texts = corners(operation)
    assert "58.2 °C" in text_of(texts.topLeft)
    assert "1.2 cm³" in text_of(texts.bottomLeft)
    assert "39.0 °C" in text_of(texts.topRight)
    assert not [banner for banner in texts.banners if "TRACT" in banner.title]
    bridge = operation.running.view.bridge
    assert {"heat.lethal", "heat.mark"} <= set(bridge.roles())
    assert any(line.text == "Lethal dose" for line in bridge.legend())
    # A new scan takes all of it away.
    operation.arrive(operation.scan())
    assert operation.running.heat is None
    assert not [role for role in bridge.roles() if role.startswith("heat.")]
    assert corners(operation).topLeft[0].text == "RESIDUAL"


@pytest.mark.parametrize(
    ("found", "more", "part", "dose_stays"),
    [
        (numbers("drift not corrected: mark the heated spot"), {}, "drift not corrected", False),
        (numbers("something moved in frame 6: take a new reference"), {}, "something moved", False),
        (numbers(), {"received_s": time.monotonic() - 60}, "stale, last frame", False),
        (numbers(), {"ended": True}, "the scan has ended", True),
    ],
)
def test_a_number_goes_with_what_it_rests_on(
    operation: Operation, found: HeatNumbers, more: dict[str, Any], part: str, dose_stays: bool
) -> None:
    tell(operation, found, **more)
    said = words(operation)
    assert "58.2" not in said
    assert part in said
    assert ("1.2 cm³" in said) is dose_stays
    texts = corners(operation)
    assert "58.2" not in text_of(texts.topLeft)
    assert "39.0" not in text_of(texts.topRight)
    assert ("1.2 cm³" in text_of(texts.bottomLeft)) is dose_stays
    tones = {banner.tone.name for banner in texts.banners if "SCAN YET" not in banner.title}
    assert tones <= {"CAUTION"}, "nothing of this is danger"


@pytest.mark.parametrize(("risk_c", "tone"), [(43.2, "DANGER"), (42.4, "CAUTION"), (40.0, None)])
def test_a_structure_at_risk_gives_an_alarm(operation: Operation, risk_c: float, tone: str | None) -> None:
    tell(operation, numbers(), risk_c)
    banners = [banner for banner in corners(operation).banners if "MOTOR TRACT" in banner.title]
    assert [banner.tone.name for banner in banners] == ([] if tone is None else [tone])
    operation.running.view.heat = replace(operation.running.view.heat, ended=True)
    assert not [banner for banner in corners(operation).banners if "MOTOR TRACT" in banner.title]


def test_the_hottest_spot_is_marked_by_one_click_and_told_when_it_rests(operation: Operation) -> None:
    ui, p = operation.page("SCAN").ui, operation.panel.parameters
    assert not ui.markHottestButton.enabled
    tell(operation, numbers("drift not corrected: mark the heated spot"))
    assert ui.markHottestButton.enabled
    ui.markHottestButton.click()
    node = p.heatedPlace
    assert node.GetDisplayNode().GetSelectedColor() == pytest.approx(product("scene.colors").MARK)
    assert node is not None
    np.testing.assert_allclose(slicer.util.arrayFromMarkupsControlPoints(node)[0], SPOT)
    operation.page("SCAN").heat.tick()
    assert operation.session.heat._wanted.spot_ras_mm == pytest.approx(SPOT)
    # While it is dragged nothing is told.
    node.SetNthControlPointPosition(0, 9.0, 9.0, 9.0)
    operation.page("SCAN").heat.tick()
    assert operation.session.heat._wanted.spot_ras_mm == pytest.approx(SPOT)
    operation.page("SCAN").heat.tick()
    assert operation.session.heat._wanted.spot_ras_mm == (9.0, 9.0, 9.0)
    ui.heatedRadius.value = 12.0
    operation.page("SCAN").heat.tick()
    operation.page("SCAN").heat.tick()
    assert operation.session.heat._wanted.radius_mm == 12.0
    slicer.mrmlScene.RemoveNode(node)
    operation.until(lambda: p.heatedPlace is None, "the mark is gone")
    operation.page("SCAN").heat.tick()
    operation.page("SCAN").heat.tick()
    assert operation.session.heat._wanted.spot_ras_mm is None


def test_a_number_and_its_interval_stand_on_one_line(operation: Operation, app: Any) -> None:
    slicer.util.mainWindow().resize(1280, 800)
    tell(operation, numbers(volume_cm3=12.3), 42.4)
    for _ in range(5):
        app.processEvents()
    label = operation.page("SCAN").ui.heatLabel
    for line in label.text.split("<br>")[:2]:
        document = QtGui.QTextDocument()
        document.setDefaultFont(label.font)
        document.setHtml(line)
        assert document.idealWidth() <= label.width, line


def test_a_new_reference_needs_a_scan(operation: Operation) -> None:
    tell(operation, numbers())
    operation.page("SCAN").ui.newReferenceButton.click()
    assert "no temperature scan is running" in operation.running.problem
