"""Registrations as MRML transform nodes that move whatever hangs below them, without hardening.

Preoperative nodes hang under the linear node; a deformable registration puts a grid node above it:
preoperative -> linear (intraop_from_preop) -> grid (brain shift) -> world, which is intraoperative RAS.
The grid holds the displacements from the world, Slicer's own convention for resampling: it is exact for volumes, and
points go the other way through VTK's inverse of it. ``Direction.TO_PREOP`` is the same pair turned round.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import slicer
import vtk
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from vtk.util.numpy_support import numpy_to_vtk

from ..register.deformable import DeformableRegistration
from ..register.rigid import RigidRegistration
from .conversion import vtkMatrix

#: Points pass through the inverse of the grid to within this, mm: below any voxel.
INVERSE_TOLERANCE_MM = 1e-3


class Direction(Enum):
    """Which frame's nodes are moved into which."""

    TO_INTRAOP = "preop to intraop"
    TO_PREOP = "intraop to preop"


def addRigidTransform(
    scene: Any, registration: RigidRegistration, direction: Direction = Direction.TO_INTRAOP, name: str = ""
) -> Any:
    """Add a vtkMRMLLinearTransformNode. Raises SessionError for a refused registration: no overlay may be shown."""
    if registration.verdict.level is Level.REFUSED:
        raise SessionError(f"no transform is made of a registration that was {registration.verdict.text}")
    node = slicer.vtkMRMLLinearTransformNode()
    node.SetName(name or f"{direction.value} rigid")
    inward = direction is Direction.TO_INTRAOP
    matrix = registration.intraop_from_preop if inward else registration.preop_from_intraop
    node.SetMatrixTransformToParent(vtkMatrix(matrix))
    return scene.AddNode(node)


def addDeformableTransform(
    scene: Any, registration: DeformableRegistration, direction: Direction = Direction.TO_INTRAOP, name: str = ""
) -> tuple[Any, Any]:
    """Add both nodes: (the one to hang things under, the one above it).

    Raises SessionError for a refused registration: use the rigid one instead.
    """
    if registration.verdict.level is Level.REFUSED:
        raise SessionError(f"no transform is made of a registration that was {registration.verdict.text}")
    grid = slicer.vtkMRMLGridTransformNode()
    grid.SetName(f"{name or direction.value} brain shift")
    grid.SetAndObserveTransformFromParent(gridTransform(registration.shift))
    linear = slicer.vtkMRMLLinearTransformNode()
    linear.SetName(f"{name or direction.value} rigid")
    linear.SetMatrixTransformToParent(vtkMatrix(registration.intraop_from_preop))
    lower, upper = linear, grid
    if direction is Direction.TO_PREOP:
        grid.Inverse()
        linear.Inverse()
        grid.SetName(f"{name or direction.value} brain shift")
        linear.SetName(f"{name or direction.value} rigid")
        lower, upper = grid, linear
    lower, upper = scene.AddNode(lower), scene.AddNode(upper)
    lower.SetAndObserveTransformNodeID(upper.GetID())
    return lower, upper


def gridTransform(displacement: Image) -> Any:
    """vtkOrientedGridTransform of a displacement (k, j, i, 3), RAS mm, on any oblique grid."""
    if displacement.array.ndim != 4 or displacement.array.shape[3] != 3:
        raise DataError(f"a displacement must have shape (k, j, i, 3), got {displacement.array.shape}")
    matrix, spacing = displacement.ras_from_ijk, displacement.spacing_mm
    directions = np.eye(4)
    directions[:3, :3] = matrix[:3, :3] / spacing
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(displacement.array.shape[:3]))
    image.SetSpacing(*spacing)
    image.SetOrigin(*matrix[:3, 3])
    vectors = np.ascontiguousarray(displacement.array, dtype=np.float32).reshape(-1, 3)
    image.GetPointData().SetScalars(numpy_to_vtk(vectors, deep=True))
    result = slicer.vtkOrientedGridTransform()
    result.SetDisplacementGridData(image)
    result.SetGridDirectionMatrix(vtkMatrix(directions))
    result.SetInterpolationModeToLinear()
    result.SetInverseTolerance(INVERSE_TOLERANCE_MM)
    return result
