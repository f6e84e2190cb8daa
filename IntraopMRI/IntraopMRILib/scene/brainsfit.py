"""BRAINSFit as a second opinion on the rigid pose, in a Slicer that has it (Johnson et al., Insight Journal 2007)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk
from IntraopMRIReconstructionLib.data import Matrix, checked_rigid
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError

from ..register.engines import BRAINSFIT_RIGID
from .conversion import vtkMatrix


def brainsfitAvailable() -> bool:
    """Whether this Slicer carries the command-line module."""
    return hasattr(getattr(slicer, "modules", None), "brainsfit")


class BrainsfitRun:
    """``intraop_from_preop`` (4, 4), RAS mm, from ``start``, in Slicer's own background; neither volume is moved.

    ``fixedNode``: intraoperative, ``movingNode``: preoperative scalar volume; parent transforms are left aside. Slicer
    reads the module's result as the transform that moves the moving volume. Ends as a
    :class:`~IntraopMRIReconstructionLib.scene.task.BackgroundTask` does: :meth:`poll` on the main thread tells the
    outcome once, :meth:`abandon` cancels. Raises RegistrationError when the module is missing.
    """

    def __init__(self, scene: Any, fixedNode: Any, movingNode: Any, start: Matrix, what: str = "BRAINSFit") -> None:
        if not brainsfitAvailable():
            raise RegistrationError("this Slicer has no BRAINSFit: install the BRAINSTools extension or a full Slicer")
        self.what, self.abandoned = what, False
        self._scene, self._nodes = scene, []
        self._finished: Callable[[Matrix], None] = lambda _pose: None
        self._failed: Callable[[str], None] = lambda _sentence: None
        initial, self._result = (self._own("vtkMRMLLinearTransformNode", name) for name in ("start", "result"))
        initial.SetMatrixTransformToParent(vtkMatrix(start))
        fixed, moving = (self._unmoved(node) for node in (fixedNode, movingNode))
        nodes = {"fixedVolume": fixed, "movingVolume": moving}
        transforms = {"initialTransform": initial, "linearTransform": self._result}
        parameters = {**nodes, **transforms, **BRAINSFIT_RIGID}
        self._run = slicer.cli.run(slicer.modules.brainsfit, None, parameters, update_display=False)
        self._nodes.append(self._run)

    @property
    def fraction(self) -> float | None:
        """0..1, as the module tells."""
        return self._run.GetProgress() / 100.0 or None

    def tell(self, finished: Callable[[Matrix], None], failed: Callable[[str], None]) -> None:
        """Who hears the pose, or the sentence that says why there is none."""
        self._finished, self._failed = finished, failed

    def poll(self) -> bool:
        """Whether the module has ended; then the outcome was told and nothing of it is left in the scene."""
        if self._run.IsBusy():
            return False
        if not self.abandoned:
            self.abandoned = True
            self._tell()
        self._clear()
        return True

    def abandon(self) -> None:
        """Cancel; nobody waits for the outcome any more."""
        self.abandoned = True
        self._run.Cancel()
        self._clear()

    def join(self, timeout_s: float) -> None:
        """Nothing to wait for: the module is a process that Slicer ends."""

    def _tell(self) -> None:
        if self._run.GetStatus() & self._run.ErrorsMask:
            self._failed(f"BRAINSFit could not register the images: {self._run.GetErrorText().strip()}")
            return
        matrix = vtk.vtkMatrix4x4()
        self._result.GetMatrixTransformToParent(matrix)
        try:
            pose = checked_rigid([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)], "BRAINSFit's pose")
        except DataError as error:
            self._failed(str(error))
            return
        self._finished(pose)

    def _own(self, kind: str, name: str) -> Any:
        node = self._scene.AddNewNodeByClass(kind, f"BRAINSFit {name}")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        self._nodes.append(node)
        return node

    def _unmoved(self, volume: Any) -> Any:
        """The same voxels where they lie by themselves: the module does not see the transforms above a volume."""
        node = self._own("vtkMRMLScalarVolumeNode", volume.GetName())
        node.SetAndObserveImageData(volume.GetImageData())
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        node.SetIJKToRASMatrix(matrix)
        return node

    def _clear(self) -> None:
        for node in self._nodes:
            if node.GetScene() is not None:
                self._scene.RemoveNode(node)
        self._nodes.clear()
