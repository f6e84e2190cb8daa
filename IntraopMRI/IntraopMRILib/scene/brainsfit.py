"""BRAINSFit as a second opinion on the rigid pose, in a Slicer that has it (Johnson et al., Insight Journal 2007)."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from IntraopMRIReconstructionLib.data import Matrix, checked_rigid
from IntraopMRIReconstructionLib.errors import RegistrationError

from ..register.engines import BRAINSFIT_RIGID
from .conversion import vtkMatrix


def brainsfitAvailable() -> bool:
    """Whether this Slicer carries the command-line module."""
    return hasattr(getattr(slicer, "modules", None), "brainsfit")


def brainsfitRigid(scene: Any, fixedNode: Any, movingNode: Any, start: Matrix) -> Matrix:
    """``intraop_from_preop`` (4, 4), RAS mm, found by BRAINSFit from ``start``; neither volume is moved.

    ``fixedNode``: intraoperative, ``movingNode``: preoperative scalar volume, both free of parent transforms of ours.
    Slicer reads the module's result as the transform that moves the moving volume. Raises RegistrationError when the
    module is missing or fails, with what to do.
    """
    if not brainsfitAvailable():
        raise RegistrationError("this Slicer has no BRAINSFit: install the BRAINSTools extension or a full Slicer")
    initial, result = (
        scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", f"BRAINSFit {name}") for name in ("start", "result")
    )
    ended = None
    try:
        initial.SetMatrixTransformToParent(vtkMatrix(start))
        nodes = {"fixedVolume": fixedNode, "movingVolume": movingNode}
        transforms = {"initialTransform": initial, "linearTransform": result}
        ended = slicer.cli.runSync(slicer.modules.brainsfit, None, {**nodes, **transforms, **BRAINSFIT_RIGID})
        if ended.GetStatus() & ended.ErrorsMask:
            raise RegistrationError(f"BRAINSFit could not register the images: {ended.GetErrorText().strip()}")
        matrix = vtk.vtkMatrix4x4()
        result.GetMatrixTransformToParent(matrix)
        return checked_rigid([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)], "BRAINSFit's pose")
    finally:
        for node in (initial, result, ended):
            if node is not None:
                scene.RemoveNode(node)
