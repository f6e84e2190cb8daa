"""A spine in the panel: structures that are called as vertebrae carry the implant that is planned in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.errors import SessionError
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
    # What a person outlines beside the vertebrae grades the screw; its name says what it is.
    segments = parameters.riskSegmentation.GetSegmentation()
    pedicle = segments.GetSegment(segments.GetSegmentIdBySegmentName("L1"))
    segments.GetSegment(segments.GetSegmentIdBySegmentName(INSTRUMENTED)).SetName("L3 pedicle right")
    pedicle.SetName("L1 vertebra")
    graded = nodes.planLater(parameters)()
    assert list(graded.pedicles) == ["Screw L3 right"]
    assert list(graded.vertebrae) == [name for name in LEVELS_MM if name != INSTRUMENTED]
    assert dict(graded.at_risk) == {}
    number = list(LEVELS_MM).index(INSTRUMENTED) + 1
    count = int((plan.vertebrae[INSTRUMENTED].array != 0).sum())
    assert count == int(np.count_nonzero(made.vertebrae.array == number))


def test_a_plan_that_hangs_under_a_transform_is_where_it_is_seen(app: Any) -> None:
    """Its points were read without the transform above them: a plan beside the bone, with numbers like any other."""
    from IntraopMRILib.scene.panels import nodes

    slicer.util.selectModule("IntraopMRI")
    parameters = slicer.util.getModuleWidget("IntraopMRI").panel.parameters
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    slicer.util.updateVolumeFromArray(volume, np.ones((20, 24, 28), np.float32))
    line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Screw")
    for place in ((1.0, 2.0, 3.0), (1.0, 22.0, 3.0)):
        line.AddControlPoint(*place)
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = (4.0, -1.0, 2.0)
    moved.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    line.SetAndObserveTransformNodeID(moved.GetID())
    parameters.patientId, parameters.preopVolume, parameters.plannedImplant = "P-1", volume, line
    (planned,) = nodes.planLater(parameters)().trajectories
    np.testing.assert_allclose(planned.entry_ras_mm, (5.0, 1.0, 5.0))
    np.testing.assert_allclose(planned.tip_ras_mm, (5.0, 21.0, 5.0))
    line.UnsetNthControlPointPosition(1)
    with pytest.raises(SessionError, match="of 'Screw' is not placed: place it or remove it"):
        nodes.planLater(parameters)
