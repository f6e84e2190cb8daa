"""From a pose to the view: what one pose costs, and how long the main thread is held while heavy work runs.

Ours: :class:`Guidance` (smoothing, planes, distances with direction, alarms) and the writing of nodes. Peer: VTK's
implicit distance to the same surfaces, which Slicer's own Breach Warning module uses for its distance. Rendering is
excluded. The panel runs in the host; its views are paused, so that only its own work is measured. The holds are those
of a whole simulated case. On a computer that does something else as well, two rows tell which part was its own: the
CPU time of the main thread, and the hold less the time that the thread was ready and waited for a core (Linux).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Row, report
from host.fixtures import running

POSES = 300
LIMIT_S = 4e-3
BLOCK_S = 50e-3


def ball(radius_mm: float, centre: tuple[float, float, float]) -> Any:
    """A label image of a ball, 1 mm, 96 voxels a side."""
    from IntraopMRIReconstructionLib.data import Image

    k, j, i = np.ogrid[:96, :96, :96]
    x, y, z = centre
    label = (k - z) ** 2 + (j - y) ** 2 + (i - x) ** 2 < radius_mm**2
    return Image(label.astype(np.uint8), np.eye(4))


def pose(step: int) -> Any:
    """A pointer that travels toward the ball, at 60 Hz."""
    from IntraopMRIReconstructionLib.data import Pose
    from IntraopMRIReconstructionLib.geometry import rotation_about

    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1.0, 0.2, 0.1), 20.0 + 0.05 * step)
    matrix[:3, 3] = 20.0 + 0.1 * step, 48.0, 48.0
    now = time.monotonic()
    return Pose(matrix, "Pointer", now, time.time())


def each(work: Callable[[int], None]) -> np.ndarray:
    """Seconds of every call."""
    taken = []
    for step in range(POSES):
        began = time.perf_counter()
        work(step)
        taken.append(time.perf_counter() - began)
    return np.array(taken)


def pose_to_view() -> list[Row]:
    """One pose: guidance and nodes."""
    import slicer
    from IntraopMRILib.navigate.distance import ResidualDistance, SurfaceDistance
    from IntraopMRILib.scene.bridge import SceneBridge
    from IntraopMRILib.scene.panels.overlay import Guidance, Overlay
    from IntraopMRILib.scene.parameters import Reslice

    residual, risk = ball(9.0, (60, 48, 48)), ball(14.0, (48, 70, 48))
    guidance = Guidance(ResidualDistance(residual), (SurfaceDistance(risk, "tract"),), np.array([60.0, 48.0, 48.0]))
    overlay, bridge = Overlay(), SceneBridge(slicer.mrmlScene)
    slicer.app.pauseRender()

    def ours(step: int) -> None:
        now = pose(step)
        bridge.setPointer(now)
        guidance.process(now, Reslice.IN_PLANE, 5.0, time.monotonic)
        assert guidance.pose is not None
        overlay.follow(guidance.pose, guidance.planes)

    peers = [vtk_distance(label) for label in (residual, risk)]
    mine = each(ours)
    theirs = each(lambda step: measure(peers, pose(step).tip_ras_mm))
    slicer.app.resumeRender()
    p95, peer95 = float(np.percentile(mine, 95)), float(np.percentile(theirs, 95))
    tip = pose(200).tip_ras_mm
    true = float(np.linalg.norm(tip - [60, 48, 48])) - 9.0
    error = abs(ResidualDistance(residual).at(tip).distance_mm - true)
    peer_error = abs(peers[0].EvaluateFunction(*tip) - true)
    return [
        Row(
            "pose to view, p95, s (peer: distances only)", p95, peer95, peer95 / p95, "p95 <= 4 ms", p95 <= LIMIT_S,
            float(error), float(peer_error),
        )
    ]  # fmt: skip


def measure(surfaces: list[Any], tip: np.ndarray) -> None:
    """Distance of the tip to each surface, by the peer."""
    for surface in surfaces:
        surface.EvaluateFunction(*tip)


def vtk_distance(label: Any) -> Any:
    """VTK's signed distance to the surface of a label."""
    import vtk
    from IntraopMRILib.scene.conversion import vtkImageOf

    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(vtkImageOf(label.array.astype(np.float32)))
    surface.SetValue(0, 0.5)
    surface.Update()
    distance = vtk.vtkImplicitPolyDataDistance()
    distance.SetInput(surface.GetOutput())
    return distance


class Holds:
    """How long the main thread was held, by what the case was doing, s."""

    def __init__(self) -> None:
        #: Of every hold: wall clock, its own CPU time, and wall clock less the waiting for a core.
        self.all: dict[str, list[tuple[float, float, float]]] = {}

    def of(self, work: Callable[[], Any], doing: str) -> None:
        """One piece of work on the main thread."""
        wall, cpu, waited = time.perf_counter(), time.thread_time(), waited_for_a_core()
        work()
        wall, cpu, waited = time.perf_counter() - wall, time.thread_time() - cpu, waited_for_a_core() - waited
        self.all.setdefault(doing, []).append((wall, cpu, max(0.0, wall - waited)))

    def longest(self, column: int) -> float:
        """Longest hold of the whole case."""
        return max(hold[column] for holds in self.all.values() for hold in holds)

    def until(self, done: Callable[[], Any], doing: str, seconds: float = 240.0) -> None:
        """What the main thread does by itself until ``done``."""
        import slicer

        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise RuntimeError(f"waited {seconds:g} s in vain: {doing}")
            self.of(slicer.app.processEvents, doing)
            time.sleep(0.002)


def waited_for_a_core() -> float:
    """Seconds that this thread has been ready without a core so far; 0 where the system does not tell."""
    told = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    return int(told.read_text().split()[1]) / 1e9 if told.exists() else 0.0


def responsiveness() -> list[Row]:
    """A whole case from the first click to navigation: two 3D scans received, reconstructed, registered, assessed.

    The processes of the simulated theatre, the receiver and the worker run beside it. Peer: the same panel, idle.
    """
    import slicer

    slicer.util.selectModule("IntraopMRI")
    slicer.app.pauseRender()
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    pages = {phase.name: page for phase, page in panel.pages.items()}
    running_ = panel.running
    idle, case = Holds(), Holds()
    end = time.monotonic() + 3.0
    idle.until(lambda: time.monotonic() > end, "idle")
    pages["CASE"].ui.simulationSizeBox.currentIndex = 1
    case.of(pages["CASE"].ui.simulateButton.click, "new case")
    case.until(lambda: running_.theatre is not None and running_.task is None, "new case")
    case.of(lambda: panel.open(pages["CONNECT"].phase), "connect")
    case.of(pages["CONNECT"].ui.connectButton.click, "connect")
    case.until(lambda: running_.connected, "connect")
    case.of(lambda: panel.open(pages["SCAN"].phase), "scans to overlays")
    case.until(lambda: running_.residual is not None and running_.progress is None, "scans to overlays")
    case.of(running_.confirm, "navigate")
    case.of(lambda: panel.open(pages["NAVIGATE"].phase), "navigate")
    end = time.monotonic() + 5.0
    case.until(lambda: time.monotonic() > end, "navigate")
    running_.close()
    slicer.app.resumeRender()
    rows = []
    for doing, holds in case.all.items():
        walls = [hold[0] for hold in holds]
        held, rest, over = max(walls), idle.longest(0), sum(wall > BLOCK_S for wall in walls)
        work = f"longest hold of the main thread, {doing}, s ({over} of {len(walls)} over 50 ms; peer: idle)"
        rows.append(Row(work, held, rest, rest / held, "no hold over 50 ms", held <= BLOCK_S))
    for column, what in ((2, "without waiting for a core"), (1, "its own CPU time")):
        held, rest = case.longest(column), idle.longest(column)
        work = f"longest hold over the whole case, {what}, s (peer: idle)"
        rows.append(Row(work, held, rest, rest / held, "no hold over 50 ms", held <= BLOCK_S))
    return rows


def main() -> None:
    """Run both."""
    running()
    report("navigation", [*pose_to_view(), *responsiveness()])


if __name__ == "__main__":
    main()
