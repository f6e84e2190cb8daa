"""Module shell: what Slicer needs to know. The work is in IntraopMRIReconstructionLib, imported when it is needed."""

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

LIBRARY = "IntraopMRIReconstructionLib"
#: slicer.packaging, which asks for what Slicer does not bundle, came with this version.
OLDEST = (5, 12)


class IntraopMRIReconstruction(ScriptedLoadableModule):
    """Raw data and images in, volumes out; usable alone."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("Intraoperative MRI Reconstruction")
        parent.categories = [translate("qSlicerAbstractCoreModule", "IGT")]
        parent.dependencies = []
        parent.contributors = ["IntraopMRI contributors"]
        parent.helpText = _(
            "Receives raw k-space or finished images from an MRI scanner over OpenIGTLink and turns them into volumes, "
            "with the method that the data ask for and the reason for it. Research only, not for clinical use. "
            'See the <a href="{url}">documentation</a>.'
        ).format(url="https://github.com/IntraopMRI/IntraopMRI#reconstruction")
        parent.acknowledgementText = _("Built on 3D Slicer, VTK, ITK, OpenIGTLink and ISMRMRD.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the anatomy of the simulated theatre in the Sample Data module."""
    from IntraopMRIReconstructionLib.scene import sampledata

    sampledata.register(slicer.modules.IntraopMRIReconstructionInstance.resourcePath("Icons/SimulatedTheatre.png"))


class IntraopMRIReconstructionWidget(ScriptedLoadableModuleWidget):
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
        from IntraopMRIReconstructionLib.scene.widget import ReconstructionPanel

        self.logic = IntraopMRIReconstructionLogic()
        self.panel = ReconstructionPanel(
            self.resourcePath("UI/IntraopMRIReconstruction.ui"), self.logic, lambda: self.parent.isEntered
        )
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


class IntraopMRIReconstructionLogic(ScriptedLoadableModuleLogic):
    """Gives scripts the typed parameter node; the processing is in the library."""

    def getParameterNode(self):
        """Choices of the reconstruction panel, typed."""
        from IntraopMRIReconstructionLib.scene.parameters import ReconstructionParameters

        return ReconstructionParameters(super().getParameterNode())


class IntraopMRIReconstructionTest(ScriptedLoadableModuleTest):
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
        slicer.util.selectModule("IntraopMRIReconstruction")
        slicer.mrmlScene.Clear(0)
        widget = slicer.util.getModuleWidget("IntraopMRIReconstruction")
        assert widget.panel.parameters is not None

    def test_choices_are_kept(self):
        """A value set through one typed node is read back through another."""
        logic = IntraopMRIReconstructionLogic()
        logic.getParameterNode().port = 18999
        assert logic.getParameterNode().port == 18999
