"""The surface of a segment is the one that Slicer itself would make of it, wherever the segment lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.scene import conversion
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import corner_from_centre
from vtkmodules.util.numpy_support import vtk_to_numpy

SURFACE = "Closed surface"


def points_of(mesh: Any) -> np.ndarray:
    return np.asarray(vtk_to_numpy(mesh.GetPoints().GetData()), dtype=float)


def label(at_the_edge: bool) -> np.ndarray:
    k, j, i = np.ogrid[:20, :24, :22]
    centre = (2, 12, 11) if at_the_edge else (10, 12, 11)
    found = (k - centre[0]) ** 2 + (j - centre[1]) ** 2 / 1.5 + (i - centre[2]) ** 2 < 6.0**2
    return np.asarray(found, dtype=np.uint8)


@pytest.mark.parametrize("at_the_edge", [False, True])
def test_a_segment_has_the_surface_that_slicer_makes(
    headless: HeadlessScene, directions: np.ndarray, at_the_edge: bool
) -> None:
    matrix = corner_from_centre(directions @ np.diag([0.8, 1.0, 1.3]), (5.0, -20.0, 30.0), (22, 24, 20))
    found = conversion.segmentationOf(Image(label(at_the_edge), matrix), {1: ("part", "Part", (1.0, 0.0, 0.0))})
    ours = found.GetSegment("part").GetRepresentation(SURFACE)
    found.RemoveRepresentation(SURFACE)
    found.CreateRepresentation(SURFACE)
    slicers = found.GetSegment("part").GetRepresentation(SURFACE)
    assert slicers is not ours
    np.testing.assert_allclose(points_of(ours), points_of(slicers), atol=1e-4)
    assert ours.GetNumberOfPolys() == slicers.GetNumberOfPolys() > 100
    ours, slicers = (vtk_to_numpy(mesh.GetPointData().GetNormals()) for mesh in (ours, slicers))
    np.testing.assert_allclose(ours, slicers, atol=1e-3)


def test_an_empty_label_has_an_empty_surface(headless: HeadlessScene) -> None:
    found = conversion.segmentationOf(Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), {1: ("part", "Part", (1, 0, 0))})
    assert found.GetSegment("part").GetRepresentation(SURFACE).GetNumberOfPoints() == 0
