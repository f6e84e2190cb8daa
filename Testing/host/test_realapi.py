"""Nothing exists only in the host: stand-ins, .ui files and panels are held to the table of the real API."""

from __future__ import annotations

import ast
import inspect
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import slicer
from extension.cmake_lists import MODULES, ROOT
from extension.sources import product_sources
from PySide6 import QtCore, QtWidgets

from host import application, ctkwidgets, mrmlwidgets, realapi, views
from host.fixtures import app

__all__ = ["app"]

UI_FILES = sorted(path for module in MODULES for path in (ROOT / module / "Resources" / "UI").glob("*.ui"))
SCENE = [source for source in product_sources() if source.room == "scene" or "." not in source.name]
STAND_INS = [
    kind
    for module in (ctkwidgets, mrmlwidgets, views, application)
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and kind.__module__ == module.__name__ and name.startswith(("q", "ctk"))
]
#: Stand-ins that are named otherwise, and what only tests and the host itself call.
CALLED = {"qSlicerModuleSelector": "qSlicerModuleSelectorToolBar"}
HOST_ONLY = {
    "qSlicerApplication": {
        "start",
        "stop",
        "recordProblem",
        "setTranslator",
        "problems",
        "pipRequests",
        "dialogs",
        "forPeople",
    },
    "qSlicerModuleManager": {"load", "unload"},
    "qSlicerScriptedLoadableModule": {"instantiate"},
    "qMRMLSliceWidget": {"close_view"},
    "qMRMLThreeDWidget": {"close_view"},
    "qSlicerLayoutManager": {"close_views", "scene", "applicationLogic"},
    "qSlicerScriptedLoadableModuleWidget": {"setup"},
}


def own(kind: Any) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.startswith("host.")]


@pytest.mark.parametrize("kind", STAND_INS, ids=[kind.__name__ for kind in STAND_INS])
def test_a_stand_in_offers_only_what_the_class_has(kind: Any) -> None:
    real = CALLED.get(kind.__name__, kind.__name__)
    assert real in realapi.REAL, f"{real} has no row in realapi.py"
    inherited = set(dir(next(base for base in kind.__mro__ if not base.__module__.startswith("host."))))
    allowed = realapi.callables(real) | realapi.properties(real) | HOST_ONLY.get(kind.__name__, set()) | inherited
    allowed |= {signal.partition("(")[0] for signal in realapi.signals(real)}
    for base in own(kind):
        for name, value in vars(base).items():
            if name.startswith("_") or name in ("SIGNALS", "SLOTS", "staticMetaObject"):
                continue
            assert name in allowed, f"{real} has no '{name}' ({type(value).__name__})"
        for signature in vars(base).get("SIGNALS", {}):
            assert signature in realapi.signals(real), f"{real} has no signal {signature}"
        for signature in vars(base).get("SLOTS", ()):
            assert signature in realapi.slots(real), f"{real} has no slot {signature}"


@pytest.mark.parametrize("kind", STAND_INS, ids=[kind.__name__ for kind in STAND_INS])
def test_a_stand_in_names_its_source(kind: Any) -> None:
    assert kind.__doc__, kind
    assert re.search(r"Sources?: ", kind.__doc__), f"{kind.__name__} does not name its source"


def qt_class(name: str) -> Any:
    return getattr(QtWidgets, name, None)


def has_property(kind: str, name: str) -> bool:
    if kind in realapi.REAL and name in realapi.properties(kind):
        return True
    base = qt_class(kind) or (QtWidgets.QAbstractButton if kind == "ctkCollapsibleButton" else QtWidgets.QWidget)
    return bool(base.staticMetaObject.indexOfProperty(name) >= 0)


@pytest.mark.parametrize("path", UI_FILES, ids=[path.stem for path in UI_FILES])
def test_ui_files_use_only_the_real_api(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    kinds = {w.get("name", ""): w.get("class", "") for w in root.iter("widget")}
    for element in root.iter("widget"):
        kind = element.get("class", "")
        assert kind in realapi.REAL or qt_class(kind) is not None, f"{path.name}: no class {kind}"
        for described in element.findall("property"):
            name = described.get("name", "")
            if described.get("stdset") != "0":
                assert has_property(kind, name), f"{path.name}: {kind} has no property {name}"
    for connection in root.iter("connection"):
        sender, receiver = kinds[connection.findtext("sender", "")], kinds[connection.findtext("receiver", "")]
        assert connection.findtext("signal", "") in realapi.signals(sender)
        assert connection.findtext("slot", "") in realapi.slots(receiver)


def qt_signals() -> set[str]:
    """Signatures of all signals of all Qt classes that a panel may use."""
    from PySide6 import QtGui

    found = set()
    for library in (QtCore, QtGui, QtWidgets):
        for kind in (getattr(library, name) for name in dir(library)):
            meta: Any = getattr(kind, "staticMetaObject", None)
            for index in range(meta.methodCount() if meta else 0):
                method = meta.method(index)
                if method.methodType() == QtCore.QMetaMethod.MethodType.Signal:
                    found.add(bytes(method.methodSignature().data()).decode())
    return found


def test_panels_connect_only_to_real_signals() -> None:
    known = qt_signals().union(*(api.signals for api in realapi.REAL.values()))
    for source in SCENE:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
                if node.func.attr in ("connect", "disconnect") and isinstance(text, str):
                    assert text in known, f"{source.path}:{node.lineno}: no class has the signal {text}"


@pytest.mark.usefixtures("app")
def test_panels_ask_the_application_only_for_what_it_has() -> None:
    allowed = {
        "slicer.app": realapi.callables("qSlicerApplication")
        | realapi.properties("qSlicerApplication")
        | set(dir(QtWidgets.QApplication)),
        "slicer.util": set(dir(slicer.util)),
    }
    for source in SCENE:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and (owner := ast.unparse(node.value)) in allowed:
                assert node.attr in allowed[owner], f"{source.path}:{node.lineno}: {owner} has no {node.attr}"


#: Python modules of Slicer that neither the wheel nor the host has; who asks for them says what to do without.
ONLY_IN_SLICER = {("slicer", "cli")}
#: What these calls of the application's widgets give, by their class and name.
GIVES = {
    ("qSlicerApplication", "layoutManager"): "qSlicerLayoutManager",
    ("qSlicerApplication", "moduleManager"): "qSlicerModuleManager",
    ("qSlicerApplication", "coreIOManager"): "qSlicerCoreIOManager",
    ("qSlicerLayoutManager", "sliceWidget"): "qMRMLSliceWidget",
    ("qSlicerLayoutManager", "threeDWidget"): "qMRMLThreeDWidget",
    ("qMRMLSliceWidget", "sliceView"): "qMRMLSliceView",
    ("qMRMLThreeDWidget", "threeDView"): "qMRMLThreeDView",
}


def has_member(kind: str, name: str) -> bool:
    """Whether a class has a method, property or enumerator of that name."""
    if kind in realapi.REAL and name in realapi.callables(kind) | realapi.properties(kind):
        return True
    inherited = [qt_class(base) for base in realapi.REAL[kind].bases] if kind in realapi.REAL else []
    base = qt_class(kind) or next((base for base in inherited if base is not None), QtWidgets.QWidget)
    return hasattr(base, name) or base.staticMetaObject.indexOfProperty(name) >= 0


def kind_of(node: ast.expr, known: dict[str, str]) -> str:
    """Class of what an expression gives, as far as it comes from the application; otherwise empty."""
    if ast.unparse(node) == "slicer.app":
        return "qSlicerApplication"
    if isinstance(node, ast.Name):
        return known.get(node.id, "")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return GIVES.get((kind_of(node.func.value, known), node.func.attr), "")
    return ""


def scopes(tree: ast.Module) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_panels_ask_views_and_managers_only_for_what_they_have() -> None:
    asked = 0
    for source in SCENE:
        for scope in scopes(source.tree):
            known: dict[str, str] = {}
            for node in ast.walk(scope):
                if isinstance(node, ast.Assign):
                    pairs = [(target, node.value) for target in node.targets]
                    target = node.targets[0]
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        pairs = list(zip(target.elts, node.value.elts, strict=False))
                    known |= {t.id: kind for t, v in pairs if isinstance(t, ast.Name) and (kind := kind_of(v, known))}
            for node in ast.walk(scope):
                if isinstance(node, ast.Attribute) and (kind := kind_of(node.value, known)):
                    asked += 1
                    assert kind in realapi.REAL, kind
                    assert has_member(kind, node.attr), f"{source.path}:{node.lineno}: {kind} has no {node.attr}"
    assert asked > 20, "the panels do ask"


def test_panels_ask_widgets_only_for_what_they_have() -> None:
    """All ``ui.name`` of all panels, whether a test comes by or not."""
    kinds: dict[str, set[str]] = {}
    for path in UI_FILES:
        for element in ElementTree.parse(path).getroot().iter("widget"):
            kinds.setdefault(element.get("name", ""), set()).add(element.get("class", ""))
    for source in SCENE:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Attribute) or not re.search(r"(^|[._])ui$", ast.unparse(node.value)):
                continue
            assert node.attr in kinds, f"{source.path}:{node.lineno}: no .ui file has a widget '{node.attr}'"
        for node in ast.walk(source.tree):
            owner = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(owner, ast.Attribute) and re.search(r"(^|[._])ui$", ast.unparse(owner.value)):
                found = any(has_member(kind, node.attr) for kind in kinds[owner.attr])  # type: ignore[attr-defined]
                assert found, f"{source.path}:{node.lineno}: {kinds[owner.attr]} has no {node.attr}"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("app")
def test_panels_name_only_classes_that_there_are() -> None:
    """Of Slicer and VTK those of the real libraries; of Qt what PythonQt has; of CTK what the table has."""
    import qt
    import vtk

    for source in SCENE:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner, name = node.value.id, node.attr
                there = {"slicer": slicer, "vtk": vtk, "qt": qt}.get(owner)
                if (owner, name) in ONLY_IN_SLICER:
                    continue
                assert there is None or hasattr(there, name), f"{source.path}:{node.lineno}: {owner} has no {name}"
                assert owner != "ctk" or name in realapi.REAL, f"{source.path}:{node.lineno}: ctk has no {name}"


@pytest.mark.usefixtures("app")
def test_nothing_but_real_names_is_added_to_the_module_slicer() -> None:
    added = {
        name
        for name, value in vars(slicer).items()
        if getattr(value, "__module__", "").startswith("host.") and inspect.isclass(value)
    }
    assert added <= set(realapi.REAL)
