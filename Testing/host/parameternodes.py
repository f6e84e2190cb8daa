"""The module ``slicer.parameterNodeWrapper``: typed, bounded, nested choices kept in a vtkMRMLScriptedModuleNode.

Stands in for Slicer Base/Python/slicer/parameterNodeWrapper: wrapper.py (parameterNodeWrapper, connectGui),
serializers.py (Number, String, Bool, Path, Enum and NodeSerializer), parameterPack.py (ParameterPackSerializer),
validators.py, guiConnectors.py. The keys in the node are Slicer's, so scenes are the same. Lists, tuples,
dictionaries, unions and Any are not provided.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import slicer
import vtk

from .provided import LoudModule, NotProvided

PROPERTY = "SlicerParameterName"


class Validator:
    """Base of the bounds. Source: validators.py."""

    def validate(self, value: Any) -> None:
        raise NotProvided("Validator", "validate")


@dataclass(frozen=True)
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclass(frozen=True)
class Minimum(Validator):
    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be greater than {self.minimum}, is {value}")


@dataclass(frozen=True, eq=False)
class Choice(Validator):
    choices: typing.Sequence[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


@dataclass(frozen=True)
class Default:
    """The value of a field that has none after '='. Source: default.py."""

    value: Any


@dataclass(frozen=True)
class Field:
    """One typed choice. ``kind``: the type without annotations."""

    name: str
    kind: Any
    annotations: tuple[Any, ...]
    default: Any

    def check(self, value: Any) -> None:
        kind = (int, float) if self.kind is float else self.kind
        if value is None and not _is_node(self.kind):
            raise ValueError("Value must not be None")
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")
        for validator in self.annotations:
            if isinstance(validator, Validator):
                validator.validate(value)


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_pack(kind: Any) -> bool:
    return getattr(kind, "_is_parameterPack", False)


def _fields(cls: type) -> dict[str, Field]:
    found = {}
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        kind, *annotations = typing.get_args(Annotated[annotated, ""])[:-1]
        given = [a.value for a in annotations if isinstance(a, Default)]
        if name in vars(cls):
            default = vars(cls)[name]
        elif given:
            default = given[0]
        elif kind in (int, float):
            default = 0
        elif _is_enum(kind):
            default = next(iter(kind))
        elif _is_node(kind):
            default = None
        elif kind in (str, bool, Path) or _is_pack(kind):
            default = kind()
        else:
            raise NotProvided("parameterNodeWrapper", f"serializer for {kind}")
        found[name] = Field(name, kind, tuple(a for a in annotations if not isinstance(a, Default)), default)
        found[name].check(default)
    return found


# storage, with Slicer's keys


def _has(node: Any, key: str, field: Field) -> bool:
    if _is_pack(field.kind):
        first = next(iter(field.kind.allParameters.values()))
        return _has(node, f"{key}.{first.name}", first)
    return bool(node.HasParameter(key))


def _write(node: Any, key: str, field: Field, value: Any) -> None:
    field.check(value)
    if _is_pack(field.kind):
        for inner in field.kind.allParameters.values():
            _write(node, f"{key}.{inner.name}", inner, getattr(value, inner.name))
    elif _is_node(field.kind):
        node.SetParameter(key, "")
        node.SetNodeReferenceID(key, value.GetID() if value is not None else None)
    elif _is_enum(field.kind):
        node.SetParameter(key, value.name)
    else:
        node.SetParameter(key, str(value))


def _read(node: Any, key: str, field: Field) -> Any:
    if _is_pack(field.kind):
        values = {i.name: _read(node, f"{key}.{i.name}", i) for i in field.kind.allParameters.values()}
        return _observed(field.kind, values, lambda pack: _write_pack(node, key, field, pack))
    if _is_node(field.kind):
        return node.GetNodeReference(key)
    text = node.GetParameter(key)
    if field.kind is bool:
        return text == "True"
    if _is_enum(field.kind):
        try:
            return field.kind[text]
        except KeyError as wrong:
            raise ValueError(f"Found {text!r} in parameter node but it is not a name in {field.kind!r}") from wrong
    return field.kind(text)


def _write_pack(node: Any, key: str, field: Field, pack: Any) -> None:
    with slicer.util.NodeModify(node):
        _write(node, key, field, pack)


# packs


def parameterPack(cls: type) -> type:
    """A group of choices used as one field. Source: parameterPack.py."""
    fields = _fields(cls)
    if not fields:
        raise ValueError("Unable to find any members in parameterPack")

    def init(self: Any, *values: Any, **named: Any) -> None:
        given = dict(zip(fields, values, strict=False)) | named
        for name, field in fields.items():
            setattr(self, name, given.pop(name, field.default))
        if given:
            raise TypeError(f"__init__() got an unexpected keyword argument '{next(iter(given))}'")

    def set_value(self: Any, name: str, value: Any) -> None:
        top, _, rest = name.partition(".")
        if rest:
            set_value(getattr(self, top), rest, value)
        else:
            setattr(self, top, value)

    def get_value(self: Any, name: str) -> Any:
        top, _, rest = name.partition(".")
        return get_value(getattr(self, top), rest) if rest else getattr(self, top)

    for name, field in fields.items():
        setattr(cls, name, _pack_property(field))
    made: Any = cls
    made.__init__ = init
    made.__eq__ = lambda a, b: isinstance(b, cls) and all(getattr(a, n) == getattr(b, n) for n in fields)
    made.__hash__ = None
    made.allParameters = fields
    made._is_parameterPack = True
    made.setValue, made.getValue = set_value, get_value
    made.dataType = staticmethod(lambda name: _field_of(fields, name))
    return cls


def _pack_property(field: Field) -> property:
    key = f"_parameterPack_{field.name}_impl"

    def write(self: Any, value: Any) -> None:
        field.check(value)
        setattr(self, key, value)
        save = vars(self).get("_save")
        if save is not None:
            save(self)

    return property(lambda self: getattr(self, key), write)


def _observed(kind: type, values: dict[str, Any], save: Callable[[Any], None]) -> Any:
    pack = kind(**values)
    vars(pack)["_save"] = save
    return pack


def _field_of(fields: dict[str, Field], name: str) -> Field:
    top, _, rest = name.partition(".")
    if top not in fields:
        raise ValueError(f"Cannot find a param with the given name: {top}, found {sorted(fields)}")
    return _field_of(fields[top].kind.allParameters, rest) if rest else fields[top]


# the wrapper


def parameterNodeWrapper(cls: type) -> type:
    """Give a class of typed fields a parameter node. Source: wrapper.py."""
    fields = _fields(cls)
    methods = {name: value for name, value in vars(_Wrapper).items() if not name.startswith("__") or name == "__init__"}
    for name in methods:
        if name in fields:
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
    for name, value in methods.items():
        setattr(cls, name, value)
    for name, field in fields.items():
        setattr(cls, name, _node_property(field))
    made: Any = cls
    made.allParameters = fields
    made._is_parameter_node_wrapper = True
    return cls


def _node_property(field: Field) -> property:
    def write(self: Any, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            _write(self.parameterNode, field.name, field, value)

    def read(self: Any) -> Any:
        if not _has(self.parameterNode, field.name, field):
            write(self, field.default)
        return _read(self.parameterNode, field.name, field)

    return property(read, write)


class _Wrapper:
    """Methods that every wrapped class gets."""

    parameterNode: Any
    allParameters: dict[str, Field]

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        if prefix:
            raise NotProvided("parameterNodeWrapper", "prefix")
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[dict[str, _Connector], int]] = {}
        self._updating = False
        for field in self.allParameters.values():
            if not _has(parameterNode, field.name, field):
                _write(parameterNode, field.name, field, field.default)

    def getValue(self, name: str) -> Any:
        _field_of(self.allParameters, name)
        top, _, rest = name.partition(".")
        value = getattr(self, top)
        return value.getValue(rest) if rest else value

    def setValue(self, name: str, value: Any) -> None:
        _field_of(self.allParameters, name)
        top, _, rest = name.partition(".")
        if rest:
            getattr(self, top).setValue(rest, value)
        else:
            setattr(self, top, value)

    def dataType(self, name: str) -> Field:
        return _field_of(self.allParameters, name)

    def default(self, name: str) -> Default:
        return Default(_field_of(self.allParameters, name).default)

    def connectGui(self, gui: Any) -> int:
        widgets = gui.findChildren(_qt().QWidget) if hasattr(gui, "findChildren") else vars(gui).values()
        return self.connectParametersToGui({w.property(PROPERTY): w for w in widgets if w.property(PROPERTY)})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        connectors = {name: _Connector(w, _field_of(self.allParameters, name)) for name, w in mapping.items()}
        tag = max(self._guis, default=-1) + 1
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(partial(self._fromGui, name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._toGui())
        self._guis[tag] = (connectors, observer)
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        if tag is not None and tag in self._guis:
            connectors, observer = self._guis.pop(tag)
            for connector in connectors.values():
                connector.disconnect()
            self.RemoveObserver(observer)

    def _fromGui(self, name: str, connector: _Connector) -> None:
        if not self._updating:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _toGui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> Any:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: Any) -> Any:
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return int(self.parameterNode.AddObserver(event, callback, priority))

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def _qt() -> Any:
    import qt

    return qt


class _Connector:
    """One widget and one field. Source: guiConnectors.py, the class named in each branch."""

    def __init__(self, widget: Any, field: Field) -> None:
        import ctk
        import qt

        self._widget, self._field = widget, field
        self._signal: str | None = None
        self._callback: Any = None
        kind, shown = field.kind, type(widget)
        bounds = next((a for a in field.annotations if isinstance(a, WithinRange)), None)
        choice = next((a for a in field.annotations if isinstance(a, Choice)), None)
        if kind is bool and shown is qt.QCheckBox:  # QCheckBoxToBoolConnector
            self._use("checked", "stateChanged")
        elif kind is bool and shown is qt.QPushButton:  # QCheckablePushButtonToBoolConnector
            widget.checkable = True
            self._use("checked", "toggled")
        elif kind is int and shown in (qt.QSpinBox, qt.QSlider):  # QSliderOrSpinBoxToIntConnector
            if bounds is None and shown is qt.QSlider:
                raise RuntimeError("Cannot have a connection to QSlider where the int type is unbounded.")
            widget.setRange(*((bounds.minimum, bounds.maximum) if bounds else (-(2**31), 2**31 - 1)))
            self._use("value", "valueChanged")
        elif kind in (int, float) and shown in (qt.QDoubleSpinBox, ctk.ctkSliderWidget):
            # QDoubleSpinBoxCtkSliderWidgetToFloatIntConnector
            if bounds is None and shown is ctk.ctkSliderWidget:
                raise RuntimeError("Cannot have a connection to ctkSliderWidget where the float types is unbounded.")
            widget.minimum, widget.maximum = (bounds.minimum, bounds.maximum) if bounds else (-1e308, 1e308)
            if kind is int:
                widget.decimals = 0
            self._use("value", "valueChanged")
        elif shown is qt.QComboBox and kind in (int, float, str, bool):  # QComboBoxToStringableConnector
            if choice is None:
                raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
            self._useItems([(str(value), value) for value in choice.choices])
        elif shown is qt.QComboBox and _is_enum(kind):  # QComboBoxToEnumConnector
            label = getattr(kind, "label", lambda value: value.name)
            self._useItems([(label(value), value) for value in kind])
        elif kind is str and shown is qt.QLineEdit:  # QLineEditToStrConnector
            self._use("text", "textChanged")
        elif kind is str and shown is qt.QLabel:  # QLabelToStrConnector
            self._use("text", None)
        elif kind is str and shown is qt.QTextEdit:  # QTextEditPlainTextToStrConnector
            self._signal, self.read, self._set = "textChanged", widget.toPlainText, widget.setPlainText
        elif kind is Path and shown is ctk.ctkPathLineEdit:  # ctkPathLineEditToPathConnector
            self._signal = "currentPathChanged"
            self.read = lambda: Path(widget.currentPath)
            self._set = lambda value: setattr(widget, "currentPath", str(value))
        elif _is_node(kind) and shown is slicer.qMRMLNodeComboBox:  # qMRMLNodeComboBoxToNodeConnector
            widget.nodeTypes = [kind().GetClassName()]
            self._signal, self.read, self._set = "currentNodeChanged", widget.currentNode, widget.setCurrentNode
        else:
            raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{shown}'.")

    def _use(self, name: str, signal: str | None) -> None:
        self._signal = signal
        self.read = lambda: getattr(self._widget, name)
        self._set = lambda value: setattr(self._widget, name, value)

    def _useItems(self, items: list[tuple[str, Any]]) -> None:
        self._widget.clear()
        for text, _ in items:
            self._widget.addItem(text)
        values = [value for _, value in items]
        self._signal = "currentIndexChanged"
        self.read = lambda: values[self._widget.currentIndex]
        self._set = lambda value: setattr(self._widget, "currentIndex", values.index(value))

    def write(self, value: Any) -> None:
        if self.read() != value:
            self._set(value)

    def connect(self, changed: Callable[[], None]) -> None:
        if self._signal:
            self._callback = lambda *_: changed()
            getattr(self._widget, self._signal).connect(self._callback)

    def disconnect(self) -> None:
        if self._signal:
            getattr(self._widget, self._signal).disconnect(self._callback)


def isParameterNodeWrapper(kind: Any) -> bool:
    return getattr(kind, "_is_parameter_node_wrapper", False)


def isParameterPack(kind: Any) -> bool:
    return _is_pack(kind)


def module() -> LoudModule:
    """The module ``slicer.parameterNodeWrapper``."""
    made: Any = LoudModule("slicer.parameterNodeWrapper")
    for provided in (parameterNodeWrapper, parameterPack, isParameterNodeWrapper, isParameterPack):
        setattr(made, provided.__name__, provided)
    for kind in (Validator, WithinRange, Minimum, Choice, Default):
        setattr(made, kind.__name__, kind)
    made.SlicerParameterNamePropertyName = PROPERTY
    return made
