"""PySide6 with PythonQt's habits, and the module ``qt`` that Slicer's Python code imports.

Stands in for PythonQt as CTK wraps it (CTK: Libs/Scripting/Python/Core/ctkAbstractPythonManager.cpp; PythonQt:
PythonQtInstanceWrapper, PythonQtSignalReceiver, PythonQtStdDecorators):

* Qt properties are attributes (``label.text = "x"``), and only existing ones may be set on a Qt object;
* ``obj.connect("clicked(bool)", f)`` and ``obj.disconnect(...)`` take C++ signatures, which must exist;
* ``name`` is the object name, ``className()`` the C++ class;
* ``qt`` has the Q classes of all Qt libraries, and none of PySide's own names (Signal, Slot, Property).
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PySide6
import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtPrintSupport, QtSvg, QtUiTools, QtWidgets, QtXml

from .provided import LoudModule, NotProvided

QObject = QtCore.QObject
#: Virtual getters: C++ looks for their overrides by attribute, so they stay methods here.
_VIRTUAL_GETTERS = {"sizeHint", "minimumSizeHint"}
_LIBRARIES = (QtCore, QtGui, QtWidgets, QtNetwork, QtPrintSupport, QtSvg, QtXml)

_native_single_shot = QtCore.QTimer.singleShot
_get = QObject.__getattribute__
_connections: dict[tuple[int, str, Any], tuple[Any, Callable[..., Any]]] = {}
_observers: dict[int, Any] = {}


class WrongSignature(TypeError):
    """A signal or slot that the C++ class does not have."""


@functools.cache
def _properties(kind: Any) -> frozenset[str]:
    """Names of the Qt properties of a class that PySide gives as methods."""
    meta = kind.staticMetaObject
    names = {str(meta.property(i).name()) for i in range(meta.propertyCount())} - _VIRTUAL_GETTERS
    declared = {
        name
        for base in kind.__mro__
        for name, value in vars(base).items()
        if isinstance(value, QtCore.Property | property)
    }
    return frozenset(names - declared)


@functools.cache
def signals(kind: Any) -> dict[str, str]:
    """C++ signatures of the signals of a class, with the attribute that holds each.

    A stand-in lists its own in SIGNALS; what PySide makes of them itself (PyObject) is not C++ and does not count.
    """
    found: dict[str, str] = {}
    meta = kind.staticMetaObject
    for index in range(meta.methodCount()):
        method = meta.method(index)
        signature = bytes(method.methodSignature().data()).decode()
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and "PyObject" not in signature:
            found[signature] = signature.partition("(")[0]
    for base in reversed(kind.__mro__):
        found.update(vars(base).get("SIGNALS", {}))
    return found


def _class(made: Any) -> Any:
    return type(made)


def normalized(signature: str) -> str:
    """A signature as Qt's meta-object system writes it: no spaces, no const references."""
    return re.sub(r"\bconst ([\w:<>]+) ?&", r"\1", signature).replace(" ", "")


def _argument_count(signature: str) -> int:
    inside = signature.partition("(")[2].rstrip(")")
    return inside.count(",") + 1 if inside else 0


def _accepted(slot: Callable[..., Any], count: int) -> int:
    """How many of ``count`` arguments a callable takes, as PythonQtSignalReceiver works it out."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except (TypeError, ValueError):
        return count
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return count
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return min(count, len(positional))


def _forward(slot: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A function that takes exactly ``count`` arguments: PySide chooses the overload of a signal by that number."""
    names = [f"a{index}" for index in range(count)]
    code = f"lambda {', '.join(names)}: slot({', '.join(names)})"
    return eval(code, {"slot": slot})


def _resolve(sender: Any, signature: str) -> tuple[str, Any]:
    signature = normalized(signature)
    attribute = signals(_class(sender)).get(signature)
    if attribute is None:
        known = sorted(
            name for name in signals(_class(sender)) if name.partition("(")[0] == signature.partition("(")[0]
        )
        raise WrongSignature(f"{type(sender).__name__} has no signal '{signature}'; like it: {known}")
    return signature, getattr(sender, attribute)


def _connect(sender: Any, signature: Any, *target: Any) -> Any:
    if not isinstance(signature, str):
        return QObject.connect(signature, *target)  # PySide's own signal.connect comes this way
    signature, signal = _resolve(sender, signature)
    slot = _slot(*target)
    call = _forward(slot, _accepted(slot, _argument_count(signature)))
    signal.connect(call)
    _connections[_key(sender), signature, slot] = (signal, call)
    if _key(sender) not in _observers and hasattr(sender, "destroyed"):
        key = _key(sender)
        _observers[key] = sender.destroyed.connect(lambda *_: _forget(key))
    return True


def _disconnect(sender: Any, signature: Any, *target: Any) -> Any:
    if not isinstance(signature, str):
        return QObject.disconnect(signature, *target)
    signature, _ = _resolve(sender, signature)
    found = _connections.pop((_key(sender), signature, _slot(*target)), None)
    if found is None:
        return False
    found[0].disconnect(found[1])
    return True


def _forget(key: int) -> None:
    _observers.pop(key, None)
    for entry in [entry for entry in _connections if entry[0] == key]:
        del _connections[entry]


def _slot(*target: Any) -> Callable[..., Any]:
    if len(target) == 1 and callable(target[0]):
        return target[0]
    if len(target) == 2 and isinstance(target[1], str):
        return getattr(target[0], target[1].partition("(")[0])
    raise WrongSignature(f"connect takes a callable, or an object and a slot's signature, got {target}")


def _key(sender: Any) -> int:
    return int(shiboken6.getCppPointer(sender)[0])


def _property_get(self: Any, name: str) -> Any:
    for getter in (f"is{name[0].upper()}{name[1:]}", name):
        if callable(getattr(type(self), getter, None)):
            # From the instance: some are static in C++, as QGuiApplication::primaryScreen.
            return _get(self, getter)()
    return QObject.property(self, name)


def _getattribute(self: Any, name: str) -> Any:
    if name == "connect":
        return functools.partial(_connect, self)
    if name == "disconnect":
        return functools.partial(_disconnect, self)
    if name == "name":
        return QObject.objectName(self)
    if name == "className":
        return lambda: type(self).__name__
    if name in _properties(_class(self)):
        return _property_get(self, name)
    return _get(self, name)


def _setattr(self: Any, name: str, value: Any) -> None:
    kind = _class(self)
    if name == "name":
        QObject.setObjectName(self, value)
    elif name in _properties(kind):
        setter = getattr(kind, f"set{name[0].upper()}{name[1:]}", None)
        if setter is not None:
            setter(self, value)
        elif not QObject.setProperty(self, name, value):
            raise AttributeError(f"Qt property '{kind.__name__}.{name}' cannot be set to {value!r}")
    elif isinstance(getattr(kind, name, None), QtCore.Property):
        if not QObject.setProperty(self, name, value):
            raise AttributeError(f"Qt property '{kind.__name__}.{name}' cannot be set to {value!r}")
    elif isinstance(value, QtCore.SignalInstance):
        shiboken6.Object.__setattr__(self, name, value)  # PySide keeps the signals of an object that it has handed out
    elif kind.__module__.startswith("PySide6.") and not name.startswith("_"):
        # PythonQtInstanceWrapper_setattro refuses new attributes on C++ classes, which catches misspelt properties
        raise AttributeError(f"'{kind.__name__}' has no property '{name}', and a Qt object takes no new attributes")
    else:
        shiboken6.Object.__setattr__(self, name, value)


def _single_shot(milliseconds: int, *target: Any) -> None:
    """QTimer::singleShot; PySide's own leaves an exception of the slot pending and raises it somewhere else."""
    slot = _slot(*target)

    def guarded() -> None:
        try:
            slot()
        except Exception:  # noqa: BLE001 - reported as any exception of a slot
            sys.excepthook(*sys.exc_info())

    _native_single_shot(milliseconds, guarded)


@functools.cache
def holding(library: str, symbol: str) -> Callable[..., Any]:
    """A C++ function of Qt that does not let go of the interpreter's lock, as nothing does that PythonQt calls.

    Slicer's main() runs the event loop with that lock: threads only get it in turns with Python code of this thread.
    ``library``: such as 'Core'. Linux only.
    """
    folder = Path(PySide6.__file__).parent / "Qt" / "lib"
    found: Callable[..., Any] = ctypes.PyDLL(str(folder / f"libQt6{library}.so.6"))[symbol]
    return found


class QtModule(LoudModule):
    """The module ``qt``: Q classes and the Qt namespace, nothing else."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("Q"):
            for library in _LIBRARIES:
                if hasattr(library, name):
                    return getattr(library, name)
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotProvided("qt", name)


def install() -> Any:
    """Give all Qt objects of this process PythonQt's habits and make ``import qt`` work. Idempotent."""
    if "qt" not in sys.modules:
        QObject.__getattribute__ = _getattribute
        for library in (*_LIBRARIES, QtUiTools):
            # PySide builds classes when they are first asked for
            for kind in [getattr(library, name) for name in dir(library)]:
                if isinstance(kind, type) and issubclass(kind, QObject):
                    # every PySide class has a __setattr__ of its own
                    adopted: Any = kind
                    adopted.__setattr__ = _setattr
        timer: Any = QtCore.QTimer
        timer.singleShot = staticmethod(_single_shot)
        from . import uiloader

        module: Any = QtModule("qt")
        module.QUiLoader = uiloader.UiLoader
        sys.modules["qt"] = module
    return sys.modules["qt"]
