"""A spine in the panel: structures that are called as vertebrae carry the implant that is planned in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.simulate.case_files import read_case, write_case
from IntraopMRIReconstructionLib.simulate.spine import INSTRUMENTED, LEVELS_MM, make_spine_case

__all__ = ["app"]


@pytest.mark.timeout(300)
def test_the_simulated_spine_is_planned_with_its_vertebrae(app: Any, tmp_path: Path) -> None:
    from IntraopMRILib.scene.panels import nodes

    made = make_spine_case(3, spacing_mm=3.0)
    write_case(tmp_path, None, made)
    slicer.util.selectModule("IntraopMRI")
    parameters = slicer.util.getModuleWidget("IntraopMRI").panel.parameters
    list(nodes.showSimulatedCase(nodes.prepareCase(read_case(tmp_path)), parameters))
    plan = nodes.planLater(parameters)()
    assert list(plan.vertebrae) == list(LEVELS_MM)
    assert dict(plan.at_risk) == {}
    assert plan.implanted == {"Screw L3 right": INSTRUMENTED}
    assert made.plan.entry_ras_mm[0] > 0, "+R is the patient's right"
    display, colors = parameters.plannedImplant.GetDisplayNode(), nodes.colors
    np.testing.assert_allclose(display.GetSelectedColor(), colors.PLANNED, atol=1e-3)
    # Its metal decides how wide the intervals of its depth are: the plan names it, a person may say otherwise.
    assert parameters.implantMetal.name == "TITANIUM"
    assert plan.trajectories[0].susceptibility_ppm == made.plan.susceptibility_ppm
    metal = type(parameters.implantMetal)
    assert metal.ofSusceptibility(900.0) is metal.COBALT_CHROMIUM
    assert metal.ofSusceptibility(None) is metal.ofSusceptibility(12.0) is metal.UNKNOWN
    parameters.implantMetal = metal.UNKNOWN
    assert nodes.planLater(parameters)().trajectories[0].susceptibility_ppm is None
    number = list(LEVELS_MM).index(INSTRUMENTED) + 1
    count = int((plan.vertebrae[INSTRUMENTED].array != 0).sum())
    assert count == int(np.count_nonzero(made.vertebrae.array == number))
