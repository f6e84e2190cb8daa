"""What a loaded scene brings of an earlier session: nobody has verified it in this one, and the views say so.

Main thread only. A session that begins takes all of it away, see :meth:`.bridge.SceneBridge.beginAnew`.
"""

from __future__ import annotations

import datetime
from typing import Any

from slicer.i18n import tr as _

from ..scan_facts import local_text
from . import looks
from .contents import ATTRIBUTE, ROLE
from .display import Line
from .roles import isMeasured, isScan, legend


class StoredSession:
    """Nodes of a session that are in the scene while none runs. :meth:`look` once they may have come."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._found: list[Any] = []

    def look(self) -> None:
        """A scene was loaded, or a session has gone without its nodes: what it measured loses the look of now."""
        nodes = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        self._found = [node for node in nodes if node.GetAttribute(ROLE)]
        for node in self._found:
            if isMeasured(node.GetAttribute(ROLE)):
                looks.stored(node)

    def forget(self) -> None:
        """The scene goes."""
        self._found.clear()

    def words(self) -> str:
        """What the views say of it; empty when there is nothing of an earlier session."""
        nodes = self._nodes()
        if not nodes:
            return ""
        scans = [node for node in nodes if isScan(node.GetAttribute(ROLE))]
        taken = [time for node in scans if (time := node.GetAttribute(f"{ATTRIBUTE}AcquiredUtc"))]
        if not taken:
            return _("earlier session, time unknown")
        seconds = datetime.datetime.fromisoformat(max(taken)).timestamp()
        # Without seconds it stands on one line of a small view.
        return _("scan of {time}").format(time=local_text(seconds).rpartition(":")[0])

    def legend(self) -> tuple[Line, ...]:
        """What the colours of the slices mean."""
        shown = [node for node in self._nodes() if getattr(node, "GetDisplayVisibility", lambda: False)()]
        return legend((node.GetAttribute(ROLE) for node in shown), stored=True)

    def measure(self, scale: float) -> None:
        """As :meth:`.bridge.SceneBridge.measure`."""
        for node in self._nodes():
            looks.measure(node, scale)

    def _nodes(self) -> list[Any]:
        return [node for node in self._found if node.GetScene() is self._scene and node.GetAttribute(ROLE)]
