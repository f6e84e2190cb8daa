"""The modules ``slicer.ScriptedLoadableModule``, ``slicer.i18n``, ``slicer.packaging`` and ``SampleData``.

Stand in for the files of those names in Slicer Base/Python/slicer and Modules/Scripted. The developer section has
its Reload button only.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import logging
import re
import unittest
from pathlib import Path
from typing import Any

import slicer

from .provided import LoudModule


class ScriptedLoadableModule:
    """Metadata of a module. Source: ScriptedLoadableModule.py, class ScriptedLoadableModule."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        icon = next(
            (p for e in (".svg", ".png") if (p := self._resources / f"Icons/{self.moduleName}{e}").is_file()), None
        )
        if icon is not None:
            import qt

            parent.icon = qt.QIcon(str(icon))
        slicer.selfTests[self.moduleName] = self.runTest

    @property
    def _resources(self) -> Path:
        return Path(self.parent.path).parent / "Resources"

    def resourcePath(self, filename: str) -> str:
        return str(self._resources / filename)

    def runTest(self, msec: int = 100, **arguments: Any) -> None:
        module = importlib.import_module(type(self).__module__)
        case = getattr(module, self.moduleName + "Test")()
        case.messageDelay = msec
        case.runTest(**arguments)


class ScriptedLoadableModuleWidget:
    """Panel of a module. Source: ScriptedLoadableModule.py, class ScriptedLoadableModuleWidget."""

    def __init__(self, parent: Any = None) -> None:
        import qt

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        if parent is None:
            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        if self.developerMode:
            import qt

            self.reloadButton = qt.QPushButton("Reload")
            self.reloadButton.connect("clicked()", self.onReload)
            self.layout.addWidget(self.reloadButton)

    def cleanup(self) -> None:
        """Nothing by default."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """Logic of a module. Source: ScriptedLoadableModule.py, class ScriptedLoadableModuleLogic."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                if node.GetAttribute("ModuleName") != self.moduleName:
                    node.SetAttribute("ModuleName", self.moduleName)
                return node
        else:
            nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
            for node in nodes:
                if node.GetAttribute("ModuleName") == self.moduleName:
                    return node
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def createParameterNode(self) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Self test of a module. Source: ScriptedLoadableModule.py, class ScriptedLoadableModuleTest."""

    messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        logging.info(message)

    def runTest(self) -> None:
        """Nothing by default."""


# slicer.i18n


def translate(context: str, text: str) -> str:
    """Source: i18n.py, translate."""
    return str(slicer.app.translate(context, text))


@functools.cache
def _context(source: str) -> str:
    """Source: i18n.py, getContext, which remembers it as well."""
    path = Path(source)
    return f"{path.parent.name}.{path.stem}" if (path.parent / "__init__.py").is_file() else path.stem


def tr(text: str) -> str:
    """Source: i18n.py, tr: the context is the file of the caller; a translation that lost a field is refused."""
    frame = inspect.currentframe()
    caller = frame.f_back if frame else None
    context = _context(inspect.getsourcefile(caller) or "" if caller else "")
    translated = translate(context, text)

    def fields(of: str) -> set[str]:
        return set(re.findall(r"(?<!\{)\{([^{}]+)\}(?!\})", of))

    if fields(text) != fields(translated):
        logging.warning(f"In context '{context}', translation of '{text}' lost a placeholder: '{translated}'")
        return text
    return translated


# slicer.packaging


def load_requirements(path: str | Path) -> list[Any]:
    """Source: packaging.py, load_requirements."""
    from packaging.requirements import Requirement

    lines = [line.strip() for line in Path(path).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def _to_requirements(requirements: Any) -> list[Any]:
    """Source: packaging.py, same name: one or a list, texts or Requirements."""
    from packaging.requirements import Requirement

    if isinstance(requirements, str):
        return [Requirement(text) for text in requirements.split()]
    if isinstance(requirements, Requirement):
        return [requirements]
    if not isinstance(requirements, list):
        raise TypeError(f"Expected str, Requirement, or list, got {type(requirements).__name__}")
    return [Requirement(each) if isinstance(each, str) else each for each in requirements]


def pip_check(requirements: Any) -> bool:
    """Source: packaging.py, pip_check."""
    return all(_installed(requirement) for requirement in _to_requirements(requirements))


def _installed(requirement: Any) -> bool:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return installed in requirement.specifier


def pip_ensure(requirements: Any, *, requester: str | None = None, skip_in_testing: bool = True, **_: Any) -> None:
    """Source: packaging.py, pip_ensure: silent while testing, as there. The host installs nothing: as if refused."""
    requirements = _to_requirements(requirements)
    slicer.app.pipRequests.append((requester, [str(requirement) for requirement in requirements]))
    if pip_check(requirements) or (skip_in_testing and slicer.app.testingEnabled()):
        return
    raise RuntimeError("User declined package installation")


# SampleData


class SampleDataLogic:
    """Keeps what is registered; downloads nothing. Source: Modules/Scripted/SampleData/SampleData.py, same class."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
    ) -> None:
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        given = {name: value for name, value in locals().items() if value is not None}
        slicer.modules.sampleDataSources.setdefault(category, []).append(given)


def modules() -> dict[str, LoudModule]:
    """The modules by name."""
    base = LoudModule("slicer.ScriptedLoadableModule")
    names = [f"ScriptedLoadableModule{part}" for part in ("", "Widget", "Logic", "Test")]
    for name in names:
        setattr(base, name, globals()[name])
    base.__all__ = names  # type: ignore[attr-defined]
    i18n, packaging = LoudModule("slicer.i18n"), LoudModule("slicer.packaging")
    vars(i18n).update(tr=tr, translate=translate)
    vars(packaging).update(load_requirements=load_requirements, pip_check=pip_check, pip_ensure=pip_ensure)
    samples = LoudModule("SampleData")
    samples.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    return {module.__name__: module for module in (base, i18n, packaging, samples)}
