"""``slicer.app``, the main window, and the loading of scripted modules in the factory's order.

Stands in for qSlicerApplication / qSlicerCoreApplication, qSlicerMainWindow, qSlicerModulePanel and
qSlicerModuleSelectorToolBar, qSlicerAbstractModuleFactoryManager and qSlicerModuleFactoryManager,
qSlicerScriptedLoadableModule(Factory, Widget), and the SceneFile part of qSlicerCoreIOManager (Slicer Base/QTCore,
Base/QTGUI, Base/QTApp).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
from IntraopMRILib.scene import scene_io
from IntraopMRILib.scene.headless import HeadlessScene
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from . import ctkwidgets, mrmlwidgets, parameternodes, pythonqt, scripted, views
from .mrmlwidgets import qSlicerWidget
from .provided import LoudModule, NotProvided


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """The C++ side of a module's panel. Sources: qSlicerAbstractModuleWidget.cxx, same name .cxx."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        QtWidgets.QVBoxLayout(self)
        self._module = module
        self._python: Any = None
        self._entered = False

    def _isEntered(self) -> bool:
        return self._entered

    isEntered = Property(bool, _isEntered)

    def self(self) -> Any:
        return self._python

    def setup(self) -> None:
        python = sys.modules[self._module.name]
        self._python = getattr(python, self._module.name + "Widget")(self)
        setattr(slicer.modules, self._module.name + "Widget", self._python)
        _call(self._python, "setup")

    reload = setup

    def enter(self) -> None:
        self._entered = True
        _call(self._python, "enter")

    def exit(self) -> None:
        self._entered = False
        _call(self._python, "exit")


def _call(python: Any, method: str) -> None:
    """Call a method that the module may have; PythonQt reports an exception and goes on."""
    if hasattr(python, method):
        try:
            getattr(python, method)()
        except Exception:  # noqa: BLE001 - as PythonQt::handleError: reported, recorded in app.problems, not passed on
            sys.excepthook(*sys.exc_info())


class qSlicerScriptedLoadableModule:
    """A module. Sources: qSlicerAbstractCoreModule.cxx, qSlicerScriptedLoadableModule.cxx."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.stem
        self.title, self.helpText, self.acknowledgementText = self.name, "", ""
        self.categories: list[str] = []
        self.dependencies: list[str] = []
        self.contributors: list[str] = []
        self.icon: Any = None
        self.hidden = False
        self._widget: Any = None
        self._logic = slicer.vtkSlicerScriptedLoadableModuleLogic()

    def instantiate(self) -> None:
        spec = importlib.util.spec_from_file_location(self.name, self.path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {self.path}")
        python = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = python
        spec.loader.exec_module(python)
        setattr(slicer.modules, self.name + "Instance", getattr(python, self.name)(self))

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self) -> Any:
        made = qSlicerScriptedLoadableModuleWidget(self)
        made.setup()
        # Only after setup, so that panels meet an empty scene first
        made.setMRMLScene(slicer.mrmlScene)
        return made


class qSlicerModuleManager(QtCore.QObject):
    """Registers, instantiates and loads modules. Source: qSlicerAbstractModuleFactoryManager.cxx and its subclasses."""

    SIGNALS = {
        "moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded",
        "moduleLoaded(QString)": "moduleLoaded",
    }
    moduleAboutToBeUnloaded = Signal(str)
    moduleLoaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._modules: dict[str, qSlicerScriptedLoadableModule] = {}

    def module(self, name: str) -> Any:
        return self._modules.get(name)

    def modulesNames(self) -> list[str]:
        return list(self._modules)

    def factoryManager(self) -> Any:
        return SimpleNamespace(loadedModuleNames=self.modulesNames)

    def load(self, folders: Sequence[Path]) -> None:
        """All folders go on sys.path, then modules are instantiated by name, then loaded after their dependencies."""
        registered: dict[str, qSlicerScriptedLoadableModule] = {}
        for folder in folders:
            for path in sorted(Path(folder).glob("*.py")):
                if str(path.parent) not in sys.path:
                    sys.path.append(str(path.parent))
                registered[path.stem] = qSlicerScriptedLoadableModule(path)
        for name in sorted(registered):
            registered[name].instantiate()
        while registered:
            ready = [n for n in sorted(registered) if not set(registered[n].dependencies) - set(self._modules)]
            if not ready:
                missing = {name: module.dependencies for name, module in registered.items()}
                raise RuntimeError(f"modules wait for dependencies that nobody provides: {missing}")
            module = registered.pop(ready[0])
            module.logic().SetMRMLApplicationLogic(slicer.app.applicationLogic())
            module.logic().SetMRMLScene(slicer.mrmlScene)
            setattr(slicer.modules, module.name.lower(), module)
            self._modules[module.name] = module
            self.moduleLoaded.emit(module.name)

    def unload(self) -> None:
        for name in list(self._modules):
            self.moduleAboutToBeUnloaded.emit(name)
        self._modules.clear()


class _IOManager:
    """Scenes only. Source: qSlicerCoreIOManager.cxx, qSlicerSceneReader.cxx, qSlicerSceneWriter.cxx."""

    def fileType(self, path: str) -> str:
        if str(path).endswith((".mrml", ".mrb")):
            return "SceneFile"
        raise NotProvided("coreIOManager", f"reader for {path}")

    def loadNodes(self, kind: str, properties: dict[str, Any], *_: Any) -> bool:
        self._only_scenes(kind)
        if properties.get("clear", True):
            scene_io.loadScene(slicer.mrmlScene, properties["fileName"])
            return True
        raise NotProvided("coreIOManager", "adding a scene to the present one")

    def saveNodes(self, kind: str, properties: dict[str, Any], *_: Any) -> bool:
        self._only_scenes(kind)
        scene_io.saveScene(slicer.mrmlScene, properties["fileName"])
        return True

    def openAddDataDialog(self) -> bool:
        """qSlicerIOManager: a person closes the dialog without choosing anything."""
        slicer.app.dialogs.append("Add data")
        return False

    @staticmethod
    def _only_scenes(kind: str) -> None:
        if kind != "SceneFile":
            raise NotProvided("coreIOManager", kind)


class qSlicerModuleSelector(QtCore.QObject):
    """Opens modules. Sources: qSlicerModuleSelectorToolBar.cxx, qSlicerModulePanel.cxx (exit, then enter)."""

    def __init__(self, panel: Any) -> None:
        super().__init__()
        self._panel, self._open = panel, ""

    @property
    def selectedModule(self) -> str:
        return self._open

    def selectModule(self, name: str) -> None:
        if name == self._open:
            return
        manager = slicer.app.moduleManager()
        if name and manager.module(name) is None:
            raise RuntimeError(f"no module '{name}', there are {manager.modulesNames()}")
        if self._open:
            manager.module(self._open).widgetRepresentation().exit()
            self._panel.takeWidget()
        self._open = name
        if name:
            widget = manager.module(name).widgetRepresentation()
            widget.layout().setContentsMargins(0, 0, 0, 0)
            self._panel.setWidget(widget)
            widget.show()
            widget.enter()


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """Module panel beside the views. Source: qSlicerMainWindow.cxx."""

    def __init__(self, layoutManager: Any) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("IntraopMRI")
        scroll = QtWidgets.QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setMinimumWidth(430)
        self._selector = qSlicerModuleSelector(scroll)
        splitter = QtWidgets.QSplitter(self)
        splitter.addWidget(scroll)
        splitter.addWidget(layoutManager.viewport())
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([430, 850])
        self.setCentralWidget(splitter)
        self.statusBar()

    def moduleSelector(self) -> Any:
        return self._selector


#: QCoreApplication::processEvents(QEventLoop::ProcessEventsFlags) and QApplication::exec().
PROCESS_EVENTS = "_ZN16QCoreApplication13processEventsE6QFlagsIN10QEventLoop17ProcessEventsFlagEE"
EXEC = "_ZN12QApplication4execEv"


class qSlicerApplication(QtWidgets.QApplication):
    """The application. Sources: qSlicerCoreApplication.cxx, qSlicerApplication.cxx."""

    SIGNALS = {"startupCompleted()": "startupCompleted"}
    startupCompleted = Signal()
    majorVersion, minorVersion = 5, 12

    def __init__(self) -> None:
        super().__init__([sys.argv[0]])
        self.setApplicationName("Slicer")
        self.setOrganizationName("HostOfIntraopMRI")
        self.pipRequests: list[tuple[str | None, list[str]]] = []
        self.problems: list[str] = []
        self.dialogs: list[str] = []
        self.forPeople = False
        self._headless = HeadlessScene()
        self._temporary = tempfile.TemporaryDirectory(prefix="host-")
        self._modules = qSlicerModuleManager()
        self._layout: Any = None
        self._window: Any = None
        self._translator = QtCore.QCoreApplication.translate

    def mrmlScene(self) -> Any:
        return self._headless.scene

    def applicationLogic(self) -> Any:
        return self._headless.applicationLogic

    def layoutManager(self) -> Any:
        return self._layout

    def moduleManager(self) -> Any:
        return self._modules

    def coreIOManager(self) -> Any:
        return _IOManager()

    @property
    def temporaryPath(self) -> str:
        return self._temporary.name

    def testingEnabled(self) -> bool:
        """Message boxes answer themselves, as with Slicer --testing."""
        return not self.forPeople

    def commandOptions(self) -> Any:
        return SimpleNamespace(noMainWindow=False)

    def translate(self, context: str, text: str) -> str:
        return self._translator(context, text)

    def setTranslator(self, translator: Any) -> None:
        """Replace the translations (context, text) -> text; for tests."""
        self._translator = translator

    def userSettings(self) -> Any:
        return QtCore.QSettings()

    def processEvents(self, flags: Any = QtCore.QEventLoop.ProcessEventsFlag.AllEvents) -> None:
        """Holds the interpreter's lock, as the real one does."""
        if sys.platform.startswith("linux"):
            pythonqt.holding("Core", PROCESS_EVENTS)(flags.value)
        else:
            super().processEvents(flags)

    def exec(self) -> int:
        """The same."""
        if sys.platform.startswith("linux"):
            return int(pythonqt.holding("Widgets", EXEC)())
        return super().exec()

    def pauseRender(self) -> None:
        self._layout.setRenderPaused(True)

    def resumeRender(self) -> None:
        self._layout.setRenderPaused(False)

    def start(self, folders: Sequence[Path]) -> None:
        """Main window, modules, startupCompleted: the order of qSlicerApplicationHelper::postInitializeApplication."""
        self._layout = views.qSlicerLayoutManager(self.mrmlScene(), self.applicationLogic())
        self._window = qSlicerMainWindow(self._layout)
        self._modules.load(folders)
        self._window.show()
        self.startupCompleted.emit()

    def stop(self) -> None:
        """What happens when the application is closed: modules are left and cleaned up, then the views go."""
        self._window.moduleSelector().selectModule("")
        self._modules.unload()
        self._layout.close_views()
        self._window.close()
        self._temporary.cleanup()

    def recordProblem(self, kind: Any, value: Any, trace: Any) -> None:
        self.problems.append("".join(traceback.format_exception(kind, value, trace)))


class _Modules(LoudModule):
    """The namespace ``slicer.modules``."""


#: Modules written in C++ whose logic the slicer-core wheel has: their names in slicer.modules and in the logic.
CORE_LOGICS = {
    "segmentations": "Segmentations",
    "volumes": "Volumes",
    "markups": "Markups",
    "models": "Models",
    "transforms": "Transform",
}


def _core_module(name: str) -> Any:
    """A C++ module of which only the logic is there."""
    logic = slicer.app.applicationLogic().GetModuleLogic(CORE_LOGICS[name])
    if logic is None:
        raise NotProvided("slicer.modules", name)
    return SimpleNamespace(name=name, logic=lambda: logic)


def start(folders: Sequence[str | Path], *, screen: bool = False) -> qSlicerApplication:
    """Make this process an application with the scripted modules of ``folders``. Once a process.

    ``screen``: show the window to a person; otherwise it is drawn into memory. Every exception that Qt or VTK catch
    in a callback is kept in ``slicer.app.problems`` and printed.
    """
    if not screen:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    pythonqt.install()
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    settings = tempfile.mkdtemp(prefix="host-settings-")
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, settings)
    app = qSlicerApplication()
    if screen:
        app.forPeople = True
    sys.excepthook = _reporting(app, sys.excepthook)
    provided: Any = slicer
    provided.app, provided.mrmlScene = app, app.mrmlScene()
    provided.modules, provided.selfTests = _Modules("slicer.modules"), {}
    for name in CORE_LOGICS:
        setattr(provided.modules, name, _core_module(name))
    for name, kind in mrmlwidgets.classes().items():
        setattr(provided, name, kind)
    for kind in (qSlicerScriptedLoadableModule, qSlicerScriptedLoadableModuleWidget, views.qMRMLSliceWidget):
        setattr(provided, kind.__name__, kind)
    sys.modules["ctk"] = ctkwidgets.module()
    for name, module in {**scripted.modules(), "slicer.parameterNodeWrapper": parameternodes.module()}.items():
        sys.modules[name] = module
        if name.startswith("slicer."):
            setattr(provided, name.partition(".")[2], module)
    sys.modules["slicer.modules"] = provided.modules
    app.start([Path(folder).resolve() for folder in folders])
    return app


def _reporting(app: qSlicerApplication, before: Any) -> Any:
    def hook(kind: Any, value: Any, trace: Any) -> None:
        app.recordProblem(kind, value, trace)
        before(kind, value, trace)

    return hook
