"""What both panels have in common: a .ui file, a typed parameter node, and a scene that may close at any time."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..errors import IntraopError
from .look import Suited
from .rest import Rest


class Panel(VTKObservationMixin):
    """Keeps widgets, parameter node and scene in step.

    ``uiPath``: the .ui file, its top widget a qMRMLWidget. ``logic``: its getParameterNode() gives the typed node.
    ``isShown``: whether the module is the one that is open; a hidden panel follows nothing.
    """

    def __init__(self, uiPath: str, logic: Any, isShown: Callable[[], bool]) -> None:
        super().__init__()
        self.logic = logic
        self.parameters: Any = None
        self._isShown = isShown
        self._guiTags: list[int] = []
        self.rest = Rest()
        self.widget = slicer.util.loadUI(uiPath)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        nameAll(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        #: Colours and sizes after the style of the application.
        self.suited = Suited(self.widget)
        for event, method in (
            (slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose),
            (slicer.mrmlScene.EndCloseEvent, self._onSceneReplaced),
            (slicer.mrmlScene.StartImportEvent, self._onSceneStartImport),
            (slicer.mrmlScene.EndImportEvent, self._onSceneReplaced),
        ):
            self.addObserver(slicer.mrmlScene, event, method)

    def enter(self) -> None:
        """Follow the scene's parameter node; called when the module is opened."""
        lookForPackages()
        self.setParameters(self.logic.getParameterNode())

    def exit(self) -> None:
        """Follow nothing; called when another module is opened."""
        self.setParameters(None)

    def cleanup(self) -> None:
        """Let go of everything; called before the module is reloaded or the application ends."""
        self.rest.close()
        self.setParameters(None)
        self.removeObservers()

    def setParameters(self, parameters: Any) -> None:
        """Bind all widgets that carry a SlicerParameterName to ``parameters``; None unbinds."""
        if self.parameters is not None:
            for tag in self._guiTags:
                self.parameters.disconnectGui(tag)
            self._guiTags.clear()
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self.parameters = parameters
        if parameters is not None:
            for ui in self.boundUis():
                self._guiTags.append(parameters.connectGui(ui))
            self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self.refresh()

    def boundUis(self) -> list[Any]:
        """The sets of widgets that the parameter node is bound to."""
        return [self.ui]

    def refresh(self) -> None:
        """Show the present state; a panel adds what it shows."""

    def sceneAboutToChange(self) -> None:
        """Let go of nodes that are about to disappear; a panel adds its own."""

    def sceneAboutToBeJoined(self) -> None:
        """The same, since another scene is loaded or added: it brings its own choices and images."""
        self.sceneAboutToChange()

    def _onParametersModified(self, _caller: Any, _event: Any) -> None:
        self.refresh()

    def _onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        self.sceneAboutToChange()
        self.setParameters(None)

    def _onSceneStartImport(self, _caller: Any, _event: Any) -> None:
        self.sceneAboutToBeJoined()

    def _onSceneReplaced(self, _caller: Any, _event: Any) -> None:
        if self._isShown():
            self.enter()


def nameAll(widget: Any) -> None:
    """Name each field after the words before it, for those who have the panel read to them, and for scripts."""
    words = ""
    for each in inOrder(widget.layout()):
        if each.inherits("QLabel"):
            words = each.text.rstrip(":")
        elif each.inherits("QAbstractButton"):
            words = each.text
        elif each.toolTip and not each.accessibleName:
            each.accessibleName = words or each.toolTip
            each.accessibleDescription = each.toolTip


def inOrder(layout: Any) -> Iterator[Any]:
    """Widgets of a layout and of those in it, from top to bottom."""
    for index in range(layout.count()):
        item = layout.itemAt(index)
        inner = item.layout()
        if item.widget() is not None:
            yield item.widget()
            inner = item.widget().layout()
        if inner is not None:
            yield from inOrder(inner)


#: Set once all packages were there: what is installed does not go away while the application runs.
_PACKAGES_FOUND = threading.Event()


def ensurePackages(requester: str) -> None:
    """Ask the person to install what Slicer does not bundle; as :func:`install`."""
    if not _PACKAGES_FOUND.is_set():
        install(_wantedPackages(), requester)
        _PACKAGES_FOUND.set()


def install(requirements: list[Any], requester: str) -> None:
    """Ask the person to install what is missing of ``requirements``. To be called from an action, never before.

    Raises PackagesMissing when the person declines, the installation fails, or Slicer skips it (--testing).
    """
    import slicer.packaging

    reason = ""
    try:
        slicer.packaging.pip_ensure(requirements, requester=requester)
    except (RuntimeError, CalledProcessError) as error:
        reason = f": {error}"
    missing = [str(requirement) for requirement in requirements if not slicer.packaging.pip_check(requirement)]
    if missing:
        raise PackagesMissing(
            _("Python packages are missing ({names}{reason}): start again and agree to install them").format(
                names=", ".join(missing), reason=reason
            )
        )


def lookForPackages() -> None:
    """Look in the background whether all packages are there: it takes longer than a click may. Asks nobody."""

    def look() -> None:
        import slicer.packaging

        if slicer.packaging.pip_check(_wantedPackages()):
            _PACKAGES_FOUND.set()

    if not _PACKAGES_FOUND.is_set():
        threading.Thread(target=look, name="looking for packages", daemon=True).start()


def _wantedPackages() -> Any:
    import slicer.packaging

    resources = Path(__file__).resolve().parents[2] / "Resources"
    return slicer.packaging.load_requirements(resources / "Requirements" / "IntraopMRIReconstruction.txt")


class PackagesMissing(IntraopError):
    """A package that the work needs is not installed."""
