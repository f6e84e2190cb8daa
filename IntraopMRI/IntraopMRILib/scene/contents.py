"""What a session wants to have in the scene, and the one place that makes the scene so.

A :class:`Content` is prepared completely (all checks and conversions done) before any node is touched; the ledger then
brings the nodes in line. So an update that fails or is cancelled on the way leaves the scene as it was, and replaced
contents never leave nodes behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .colors import Color

#: Prefix of the node attributes of a session, e.g. ``IntraopMRI.Role``.
ATTRIBUTE = "IntraopMRI."
ROLE = ATTRIBUTE + "Role"
#: What a segmentation's display calls "no colour other than the segment's own".
OWN_COLOR = (-1.0, -1.0, -1.0)


@dataclass(frozen=True, eq=False)
class Content:
    """One node as it shall be.

    ``fill`` replaces what the node carries, ``show`` sets up its display once, when the node is made.
    ``parent``: role of the transform above it, empty for the world (intraoperative RAS).
    ``saved``: whether the node goes into a saved scene.
    ``attributes``: written with the prefix; those of the content before that are not named again are removed.
    The attribute ``Position`` is said behind the name. ``opacity``: None leaves it to ``show``.
    ``tints``: colours of segments, by id, while the session shows them. They stand in the display, which is not saved:
    Slicer tells nobody that a scene is about to be saved, so what must not outlive the session is not in the data. A
    loaded segmentation without a display gets Slicer's default one, in the segments' own colours.
    """

    nodeClass: str
    name: str
    fill: Callable[[Any], None]
    show: Callable[[Any], None] = lambda _: None
    parent: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    visible: bool = True
    saved: bool = True
    opacity: float | None = None
    tints: Mapping[str, Color] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name with what its position rests on, where that must be said."""
        return self.name + _behind(self.attributes)


class Ledger:
    """Keeps nodes in line with contents, by role. Main thread only."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self._applied: dict[str, Content] = {}
        self._nodes: dict[str, Any] = {}

    def node(self, role: str) -> Any | None:
        """The node that plays ``role`` and is still in the scene, or None. A loaded scene's nodes are found by role."""
        known = self._nodes.get(role)
        if known is not None and known.GetScene() is self.scene:
            return known
        found = nodeOf(self.scene, role)
        if found is None:
            self._nodes.pop(role, None)
        else:
            self._nodes[role] = found
        return found

    def adopt(self) -> dict[str, Content]:
        """Contents of a loaded scene's nodes, by role; the nodes keep what they carry until it is replaced."""
        for index in range(self.scene.GetNumberOfNodes()):
            node = self.scene.GetNthNode(index)
            role = node.GetAttribute(ROLE)
            if not role:
                continue
            while role in self._nodes:
                # Two scenes were loaded into one: the node of the second plays no part, and goes with the others.
                role += "'"
                node.SetAttribute(ROLE, role)
            self._nodes[role] = node
            names = [name for name in node.GetAttributeNames() if name.startswith(ATTRIBUTE) and name != ROLE]
            attributes = {name.removeprefix(ATTRIBUTE): node.GetAttribute(name) for name in names}
            above = node.GetParentTransformNode() if hasattr(node, "GetParentTransformNode") else None
            parent = (above.GetAttribute(ROLE) or "") if above is not None else ""
            name = node.GetName().removesuffix(_behind(attributes))
            self._applied[role] = Content(node.GetClassName(), name, _keep, parent=parent, attributes=attributes)
        return dict(self._applied)

    def canWrite(self, role: str, content: Content) -> bool:
        """Whether the node is there, or could be made again from its content."""
        return content.fill is not _keep or self.node(role) is not None

    def renew(self, wanted: Mapping[str, Content]) -> None:
        """As :meth:`apply`, writing every node anew, whatever was known of it."""
        self._applied.clear()
        self.apply(wanted)

    def release(self, role: str) -> None:
        """Leave the node of a role in the scene as one that has none."""
        node = self.node(role)
        self._nodes.pop(role, None)
        self._applied.pop(role, None)
        if node is not None:
            node.RemoveAttribute(ROLE)

    def forget(self) -> None:
        """Drop all knowledge of nodes, touching none: the scene was closed."""
        self._applied.clear()
        self._nodes.clear()

    def apply(self, wanted: Mapping[str, Content]) -> None:
        """Make the scene hold exactly ``wanted``; contents that are the same object as before are left alone."""
        for role in [role for role in self._applied if role not in wanted]:
            self._remove(role)
        # Transforms first under which others hang: these refer to them.
        parents = {content.parent for content in wanted.values()}
        for role in sorted(wanted, key=lambda role: role not in parents):
            content = wanted[role]
            if self._applied.get(role) is not content:
                self._write(role, content)
        self._applied = dict(wanted)

    def _write(self, role: str, content: Content) -> None:
        node = self.node(role)
        made = node is None
        if node is None:
            node = self.scene.CreateNodeByClass(content.nodeClass)
            node.UnRegister(None)
            node.SetAttribute(ROLE, role)
        wasModifying = node.StartModify()
        try:
            node.SetName(content.title)
            before = self._applied[role].attributes if role in self._applied else {}
            for key in {**before, **content.attributes}:
                node.SetAttribute(ATTRIBUTE + key, content.attributes.get(key))
            if made:
                node = self.scene.AddNode(node)
                self._nodes[role] = node
                # A transform is drawn only when its content asks for it, a colour table never.
                if "Transform" not in content.nodeClass and hasattr(node, "CreateDefaultDisplayNodes"):
                    node.CreateDefaultDisplayNodes()
            content.fill(node)
            if hasattr(node, "SetAndObserveTransformNodeID"):
                above = self.node(content.parent) if content.parent else None
                node.SetAndObserveTransformNodeID(above.GetID() if above else None)
            if made:
                content.show(node)
                node.SetSaveWithScene(content.saved)
                for child in _owned(node, "Display"):
                    child.SetSaveWithScene(content.saved)
            display = node.GetDisplayNode() if hasattr(node, "GetDisplayNode") else None
            if display is not None and content.opacity is not None:
                display.SetOpacity(content.opacity)
            if display is not None and content.tints:
                # What is hidden keeps its display in a saved scene: without one it would be seen there.
                display.SetSaveWithScene(content.saved and not content.visible)
                for segment, color in content.tints.items():
                    display.SetSegmentOverrideColor(segment, *(color if content.visible else OWN_COLOR))
        finally:
            node.EndModify(wasModifying)
        # Only now: while the node holds its events back, slice views miss that it was hidden.
        if display is not None:
            display.SetVisibility(content.visible)

    def _remove(self, role: str) -> None:
        node = self.node(role)
        self._nodes.pop(role, None)
        if node is None:
            return
        owned = [*_owned(node, "Display"), *_owned(node, "Storage")]
        self.scene.RemoveNode(node)
        for child in owned:
            if child.GetScene() is self.scene:
                self.scene.RemoveNode(child)


def nodeOf(scene: Any, role: str) -> Any | None:
    """The node that plays ``role``, None when there is none."""
    nodes = (scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes()))
    return next((node for node in nodes if node.GetAttribute(ROLE) == role), None)


def _behind(attributes: Mapping[str, str]) -> str:
    return f" ({attributes['Position']})" if attributes.get("Position") else ""


def _owned(node: Any, kind: str) -> list[Any]:
    """Display or storage nodes of a node."""
    count = getattr(node, f"GetNumberOf{kind}Nodes", lambda: 0)()
    found = [getattr(node, f"GetNth{kind}Node")(index) for index in range(count)]
    return [child for child in found if child is not None]


def _keep(_node: Any) -> None:
    """Fill nothing in."""
