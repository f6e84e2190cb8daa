"""Runs inside a real Slicer with its main window (ctest); test_in_slicer.py runs the same in the host.

By hand: Slicer --testing --additional-module-paths IntraopMRI IntraopMRIReconstruction --python-script <this file>
"""

import unittest

import slicer

MODULES = ("IntraopMRIReconstruction", "IntraopMRI")


class SessionInSlicer(unittest.TestCase):
    """The modules load, their panels open, and nothing is left when the scene closes."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def test_modules_are_loaded(self) -> None:
        loaded = slicer.app.moduleManager().modulesNames()
        for name in MODULES:
            assert name in loaded

    def test_panels_open_close_and_reload(self) -> None:
        for name in MODULES:
            slicer.util.selectModule(name)
            panel = slicer.util.getModuleWidget(name).panel
            assert panel.parameters is not None
            slicer.mrmlScene.Clear(0)
            assert panel.parameters is not None
            slicer.util.selectModule(next(other for other in MODULES if other != name))
            assert panel.parameters is None
            slicer.util.selectModule(name)
            slicer.util.getModuleWidget(name).onReload()
            assert slicer.util.getModuleWidget(name).panel.parameters is not None

    def test_every_named_widget_is_bound_to_a_parameter(self) -> None:
        for name in MODULES:
            slicer.util.selectModule(name)
            panel = slicer.util.getModuleWidget(name).panel
            named = [widget.property("SlicerParameterName") for ui in panel.boundUis() for widget in vars(ui).values()]
            for bound in filter(None, named):
                panel.parameters.dataType(bound)  # raises ValueError for a name that it does not have

    def test_choices_survive_saving_the_scene(self) -> None:
        slicer.util.selectModule("IntraopMRI")
        slicer.util.getModuleWidget("IntraopMRI").panel.parameters.patientName = "Saved Patient"
        path = slicer.app.temporaryPath + "/IntraopMRI-session.mrb"
        assert slicer.util.saveScene(path)
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        assert slicer.util.getModuleWidget("IntraopMRI").panel.parameters.patientName == "Saved Patient"


if __name__ == "__main__":
    unittest.main()
