"""``make screenshots``: pictures of every page during one simulated session, for the README and the catalogue."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host.fixtures import ROOT, running, wait_until
from PySide6 import QtCore

FOLDER = ROOT / "Resources" / "Screenshots"
SIZE = (1280, 800)
#: Where the pointer is in a picture: its tip beside the residual, and not in it.
NEAREST_MM, NEAR_MM = 2.0, 12.0
#: The ablation is shown when so much has reached the lethal dose.
LETHAL_CM3 = 0.1
NAMES = {
    "CASE": "1-case", "CONNECT": "2-connect", "REGISTER": "3-register", "SCAN": "4-scan", "NAVIGATE": "5-navigate",
    "DECIDE": "6-decide", "PLAN": "4-plan", "CROSS-CHECK": "4-cross-check", "IMPLANT": "5-implant",
    "ABLATION": "4-ablation",
}  # fmt: skip


class Session:
    """Clicks through a session and takes pictures."""

    def __init__(self, folder: Path) -> None:
        import slicer

        self.app = running()
        self.folder = folder
        self.slicer = slicer
        slicer.util.selectModule("IntraopMRI")
        self.window = slicer.util.mainWindow()
        self.window.resize(*SIZE)
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        self.running = self.panel.running
        self.pages = {phase.name: page for phase, page in self.panel.pages.items()}

    def open(self, name: str) -> None:
        self.panel.open(self.pages[name].phase)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        wait_until(condition, 300, what)

    def guided(self) -> bool:
        """Whether the pointer guides now, beside the residual."""
        guidance = self.pages["NAVIGATE"].guidance
        if guidance is None or guidance.residual is None or self.running.view.readout().pose_problem:
            return False
        # From afar nothing is seen of what it points at.
        return bool(guidance.residual.value is not None and NEAREST_MM <= guidance.residual.value <= NEAR_MM)

    def pose_is_live(self) -> bool:
        """Whether the views may show the pointer, where there is one."""
        if self.running.view is None:
            return True
        return not self.running.view.readout().pose_problem

    def take(self, name: str, settled: Callable[[], Any] | None = None) -> None:
        """A picture once all views have been drawn and ``settled`` holds."""
        views = [self.app.layoutManager().sliceWidget(n).sliceView() for n in self.app.layoutManager().sliceViewNames()]
        views.append(self.app.layoutManager().threeDWidget(0).threeDView())
        for _ in range(60):
            self.app.processEvents()
        views[-1].renderer().SetUseDepthPeeling(True)
        self.wait(settled or self.pose_is_live, name)
        self.panel._slow_s = 0.0
        self.panel._tick()
        for view in views:
            view.forceRender()
        for _ in range(5):
            self.app.processEvents()  # what has just become invisible still has its place
        # Drawing has held up the poses, which the next look says: page and views show one that is live, and the same.
        self.panel._tick()
        self.wait(settled or self.pose_is_live, name)
        self.panel.refresh()
        self.panel._slow_s = 0.0
        self.panel._tick()
        for view in views:
            view.forceRender()
        views[-1].renderer().SetUseDepthPeeling(False)
        for _ in range(5):
            self.app.sendPostedEvents(None, QtCore.QEvent.Type.LayoutRequest.value)  # texts that have just grown
        self.window.grab().save(str(self.folder / f"{name}.png"))
        print(self.folder / f"{name}.png", flush=True)

    def run(self) -> None:
        case = self.pages["CASE"].ui
        # A frame of thermometry takes three seconds, and a scan forty of them.
        self.panel.theatreOptions = {"scanner": ["--frame-seconds", "1.2"]}
        case.simulateButton.click()
        self.wait(lambda: self.running.theatre is not None and self.running.task is None, "the theatre")
        self.take(NAMES["CASE"], lambda: not self.running.busy and self.panel.ui.nextButton.enabled)
        self.open("CONNECT")
        self.pages["CONNECT"].ui.connectButton.click()
        self.wait(lambda: self.running.connected and self.running.pose is not None, "the links")
        self.take(NAMES["CONNECT"])
        self.open("REGISTER")
        self.take(NAMES["REGISTER"])
        self.open("SCAN")
        self.wait(lambda: self.running.residual is not None, "the residual")
        centroid = self.running.view.centroid
        for name in self.app.layoutManager().sliceViewNames():
            self.app.layoutManager().sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*centroid)
        self.take(NAMES["SCAN"])
        self.running.confirm()
        self.panel.parameters.surgeon = "Dr. Example"
        scan = self.pages["SCAN"].ui
        scan.acceptButton.click()
        self.take(NAMES["PLAN"])
        while scan.acceptButton.enabled:
            scan.acceptButton.click()
        self.cross_check(scan)
        self.open("NAVIGATE")
        self.take(NAMES["NAVIGATE"], self.guided)
        self.open("DECIDE")
        self.pages["DECIDE"].ui.decisionBox.currentIndex = 1
        self.pages["DECIDE"].ui.reportFolderEdit.currentPath = "~/IntraopMRI-report"
        self.take(NAMES["DECIDE"], self.guided)
        self.ablate()

    def ablate(self) -> None:
        """What is left is heated: temperature, dose, and what has reached the lethal one."""
        from IntraopMRILib.scene.heat_texts import gone
        from IntraopMRILib.scene.panels.scan import PROTOCOLS

        scan = self.pages["SCAN"].ui
        self.open("SCAN")
        self.panel.parameters.followPointer = False
        scan.protocolBox.currentIndex = [protocol for protocol, *_ in PROTOCOLS].index("Thermometry")
        scan.scanButton.click()
        self.wait(lambda: scan.markHottestButton.enabled, "the heat")
        spot = self.running.heat.hottest_ras_mm
        scan.markHottestButton.click()
        for name in self.app.layoutManager().sliceViewNames():
            self.app.layoutManager().sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*spot)

        def telling() -> bool:
            heat = self.running.heat
            lethal = None if heat is None else heat.numbers.volume.value
            # At the end of a scan the dose stays, and no fresher temperature comes.
            fresh = heat is not None and (heat.ended or not gone(heat, time.monotonic()))
            return fresh and lethal is not None and lethal > LETHAL_CM3

        self.wait(telling, "the lethal dose")
        self.take(NAMES["ABLATION"], telling)

    def cross_check(self, scan: Any) -> None:
        """Where another program finds the tissue elsewhere, where that program is installed."""
        scan.engineBox.currentIndex = 1
        scan.compareSection.collapsed = False
        scan.crossCheckButton.click()
        if self.running.problem:
            print(self.running.problem)
            self.running.problem = ""
        else:
            self.wait(lambda: self.running.task is None, "the cross-check")
            self.take(NAMES["CROSS-CHECK"])
        scan.compareSection.collapsed = True
        self.panel.parameters.shiftMap = type(self.panel.parameters.shiftMap).NONE

    def run_spine(self) -> None:
        """The implant against its plan, in a session of its own."""
        self.running.close()
        self.slicer.mrmlScene.Clear(0)
        case = self.pages["CASE"].ui
        self.open("CASE")
        case.simulationCaseBox.currentIndex = 1
        case.simulateButton.click()
        self.wait(lambda: self.running.theatre is not None and self.running.task is None, "the theatre")
        self.open("CONNECT")
        self.pages["CONNECT"].ui.connectButton.click()
        self.wait(lambda: self.running.implants, "the screw")
        self.wait(lambda: self.running.progress is None, "the end of the work")
        centroid = self.running.view.centroid
        for name in self.app.layoutManager().sliceViewNames():
            self.app.layoutManager().sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*centroid)
        self.running.confirm()
        self.open("NAVIGATE")
        self.take(NAMES["IMPLANT"], lambda: self.running.trusted)


def main() -> int:
    """Write all pictures; a folder may be named instead of Resources/Screenshots."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder)
    session.run()
    session.run_spine()
    problems = list(session.app.problems)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
