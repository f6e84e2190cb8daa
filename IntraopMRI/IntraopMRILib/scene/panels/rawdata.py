"""The reconstruction panel inside page 2: another scan, or a recording, beside the session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from IntraopMRIReconstructionLib.scene.widget import ReconstructionPanel

MODULE = "IntraopMRIReconstruction"


class RawDataSection:
    """Made when its section is opened for the first time; follows the scene only while it can be seen."""

    def __init__(self, section: Any, pageIsShown: Callable[[], bool]) -> None:
        self._section, self._pageIsShown = section, pageIsShown
        self.panel: ReconstructionPanel | None = None
        section.connect("contentsCollapsed(bool)", self._onCollapsed)

    @property
    def isShown(self) -> bool:
        """Whether a person can see it now."""
        return bool(self._pageIsShown() and not self._section.collapsed)

    def enter(self) -> None:
        """The page is open: make the panel, or let it follow the scene again."""
        if not self.isShown:
            return
        if self.panel is None:
            ui = Path(slicer.util.modulePath(MODULE)).parent / "Resources" / "UI" / f"{MODULE}.ui"
            logic = slicer.util.getModuleLogic(MODULE)
            self.panel = ReconstructionPanel(str(ui), logic, lambda: self.isShown)
            # One action of the page is prominent, and it is the session's.
            self.panel.prominent = False
            self.panel.ui.noticeLabel.visible = False
            self._section.layout().addWidget(self.panel.widget)
        self.panel.enter()

    def leave(self) -> None:
        """Nobody sees it: let go of the parameter node; a scan that is on its way goes on."""
        if self.panel is not None:
            self.panel.exit()

    def close(self) -> None:
        """The session panel or its scene goes away: end threads and observers."""
        panel, self.panel = self.panel, None
        if panel is not None:
            panel.cleanup()
            panel.widget.setParent(None)
            panel.widget.deleteLater()

    def _onCollapsed(self, collapsed: bool) -> None:
        if collapsed:
            self.leave()
        else:
            self.enter()
