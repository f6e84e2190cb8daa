"""Module shell: what Slicer needs to know. The work is in IntraopMRILib, imported when it is needed."""

import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

LIBRARY = "IntraopMRILib"
#: slicer.packaging, which asks for what Slicer does not bundle, came with this version.
OLDEST = (5, 12)
#: Attribute of the nodes that a session has written.
STORED = "IntraopMRI.Role"


class IntraopMRI(ScriptedLoadableModule):
    """The surgical session: register, assess, navigate, report."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("Intraoperative MRI")
        parent.categories = [translate("qSlicerAbstractCoreModule", "IGT")]
        parent.dependencies = ["IntraopMRIReconstruction"]
        parent.contributors = ["IntraopMRI contributors"]
        parent.helpText = _(
            "Leads an image-guided procedure with intraoperative MRI: case, connection, patient registration, scan and "
            "review, navigation, decision and report. Research only, not for clinical use. "
            'See the <a href="{url}">documentation</a>.'
        ).format(url="https://github.com/IntraopMRI/IntraopMRI#readme")
        parent.acknowledgementText = _("Built on 3D Slicer, VTK, ITK, OpenIGTLink and ISMRMRD.")
        slicer.app.connect("startupCompleted()", self._watchScenes)

    def _watchScenes(self):
        """A scene with a stored session can be loaded by somebody who never opens this module."""
        if slicer.app.layoutManager() is not None:
            slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndImportEvent, self._onSceneLoaded)
            self._onSceneLoaded()

    def _onSceneLoaded(self, _caller=None, _event=None):
        """The panel marks in the views what nobody has verified: make it, where nobody has opened it yet."""
        scene = slicer.mrmlScene
        if any(scene.GetNthNode(index).GetAttribute(STORED) for index in range(scene.GetNumberOfNodes())):
            slicer.util.getModuleWidget("IntraopMRI")


class IntraopMRIWidget(ScriptedLoadableModuleWidget):
    """Hands the application's calls to the panel in the library."""

    #: None where there is nothing to hand a call to: Slicer goes on after a setup that failed.
    panel = None

    def setup(self):
        """Build the panel when the module is opened for the first time."""
        super().setup()
        if (slicer.app.majorVersion, slicer.app.minorVersion) < OLDEST:
            version = ".".join(map(str, OLDEST))
            slicer.util.errorDisplay(_("This module needs 3D Slicer {version} or newer.").format(version=version))
            return
        from IntraopMRILib.scene.widget import SessionPanel

        self.logic = IntraopMRILogic()
        self.panel = SessionPanel(self.resourcePath, self.logic, lambda: self.parent.isEntered)
        self.layout.addWidget(self.panel.widget)
        self.panel.enter()

    def enter(self):
        """Show the state of the scene again."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self):
        """Let go of the parameter node while another module is shown."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self):
        """Leave no observer, thread or timer behind."""
        if self.panel is not None:
            self.panel.cleanup()

    def onReload(self):
        """Reload the library too, otherwise the new shell would run old code."""
        for name in [name for name in sys.modules if name.partition(".")[0] == LIBRARY]:
            del sys.modules[name]
        super().onReload()


class IntraopMRILogic(ScriptedLoadableModuleLogic):
    """Gives scripts the typed parameter node; the processing is in the library."""

    def getParameterNode(self):
        """Choices of the session panel, typed."""
        from IntraopMRILib.scene.parameters import SessionParameters

        return SessionParameters(super().getParameterNode())


class IntraopMRITest(ScriptedLoadableModuleTest):
    """What only a real Slicer can show: the panel opens, survives a closed scene and keeps its choices."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Run every check."""
        self.setUp()
        self.test_panel_survives_closing_the_scene()
        self.setUp()
        self.test_choices_are_kept()

    def test_panel_survives_closing_the_scene(self):
        """Opening the module, closing the scene and opening it again raises nothing."""
        if slicer.app.commandOptions().noMainWindow:
            return
        slicer.util.selectModule("IntraopMRI")
        slicer.mrmlScene.Clear(0)
        widget = slicer.util.getModuleWidget("IntraopMRI")
        assert widget.panel.parameters is not None

    def test_choices_are_kept(self):
        """A value set through one typed node is read back through another."""
        logic = IntraopMRILogic()
        logic.getParameterNode().scanner.port = 18999
        assert logic.getParameterNode().scanner.port == 18999
