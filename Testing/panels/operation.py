"""A session in the panel without a scanner: what is known of it is exact, so that tests can ask what is made of it."""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
import slicer
from host.fixtures import wait_until
from IntraopMRIReconstructionLib.data import Image, Level, Pose, Reason, Verdict
from IntraopMRIReconstructionLib.geometry import apply, rotation_about

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
REFUSED = Verdict((Reason("folded tissue", 3.0, "%", "none", Level.REFUSED),))
MOVED = np.array([3.0, -2.0, 4.0])
SIZE, SPACING_MM = 50, 2.0
TARGET, DEEP, RISK = np.array([0.0, 5.0, 10.0]), np.array([0.0, 0.0, -48.0]), np.array([20.0, 0.0, 0.0])
SHIFT_MM = float(np.linalg.norm(MOVED))


def product(module: str) -> Any:
    """A module of the extension as it is now: the tests beside this one reload it."""
    return importlib.import_module(f"IntraopMRILib.{module}")


def grid() -> np.ndarray:
    matrix = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    matrix[:3, 3] = -SPACING_MM * (SIZE - 1) / 2
    return matrix


def places() -> np.ndarray:
    k, j, i = np.indices((SIZE, SIZE, SIZE))
    return np.asarray(apply(grid(), np.stack([i, j, k], axis=-1).astype(float)))


def ball(centre: np.ndarray, radius_mm: float) -> np.ndarray:
    return np.asarray(np.linalg.norm(places() - centre, axis=-1) < radius_mm)


def pose() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((0, 0, 1), 20.0)
    matrix[:3, 3] = (2.0, 1.0, -1.0)
    return matrix


def markups(name: str, points: dict[str, np.ndarray]) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for label, point in points.items():
        node.AddControlPoint(*point, label)
    return node


def volume(name: str = "T1") -> Any:
    """A small volume node of noise."""
    return slicer.util.addVolumeFromArray(np.random.default_rng(0).random((12, 14, 16)).astype(np.float32), name=name)


def line(points: int = 2) -> Any:
    """A planned screw, as far as it has been placed."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L4 left")
    for index in range(points):
        node.AddControlPoint(0, 0, 30 * index)
    return node


def plan_screw(parameters: Any) -> None:
    """A patient, a volume and a planned screw: what must be there before somebody connects."""
    parameters.patientId, parameters.preopVolume, parameters.plannedImplant = "P-1", volume(), line()


def segmentation(name: str, matrix: np.ndarray, masks: dict[str, np.ndarray]) -> Any:
    """A node with a segment for each of the ``masks``, which lie on one grid of ``matrix``."""
    colors, conversion = product("scene.colors"), product("scene.conversion")
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for value, mask in enumerate(masks.values(), 1):
        labels[mask] = value
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segments = {value: (label, label, colors.AT_RISK) for value, label in enumerate(masks, 1)}
    node.SetAndObserveSegmentation(conversion.segmentationOf(Image(labels, matrix), segments))
    node.CreateDefaultDisplayNodes()
    return node


def texts(operation: Operation, view: str) -> list[str]:
    """All words over a view, banners included."""
    drawn = operation.panel.overlay._texts.get(view)
    if drawn is None:
        return []
    return [
        prop.GetInput() for _state, props in drawn[1]._parts.values() for prop in props if hasattr(prop, "GetInput")
    ]


class Operation:
    """A session without a scanner, brought into the panel as the links would: what is known of it is exact."""

    def __init__(self, earlier: str = "") -> None:
        """``earlier``: folder of the results of an earlier operation."""
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        p = self.panel.parameters
        head = ball(np.zeros(3), 48.0) * (300 + 200 * np.sin(places()[..., 0] / 6.0))
        p.patientId, p.patientName, p.surgeon = "P-1", "Test", ""
        p.preopVolume = slicer.util.addVolumeFromArray(head.astype(np.float32), grid(), "T1 before")
        p.tumourSegmentation = segmentation("Tumour", grid(), {"enhancing": ball(np.array([-20.0, 0, 10]), 9.0)})
        p.riskSegmentation = segmentation("Risk", grid(), {"Motor tract": ball(RISK, 6.0)})
        p.plannedTarget = markups("Target", {"Biopsy": TARGET})
        p.plannedLandmarks = markups("Landmarks", {"Tent": DEEP})
        case = self.page("CASE")
        case.ui.earlierResults.currentPath = earlier
        plan = product("scene.panels.nodes").planLater(p, case.baseline())()
        self.session = product("session").Session(plan)
        self.running = self.panel.running
        self.running._connected((self.session, product("scene.prepared").preparePlan(self.session.plan)))
        self.image = self.scan()

    def scan(self) -> Image:
        array = ball(np.zeros(3), 48.0) * (300 + 200 * np.sin(places()[..., 0] / 6.0))
        return Image(array.astype(np.float32), grid(), "T1 contrast", acquired_utc_s=1_700_000_000.0)

    def arrive(self, image: Image) -> None:
        self.session.journal.image(image, "contrast")
        self.session._tell(product("session.updates").ImageReady(image, "contrast", None, 0.0))
        self.until(lambda: self.running.image is not None and self.running.image.image is image, "the image")

    def register(self, verdict: Verdict = GOOD) -> None:
        """A rigid pose, and the brain shift: all of the brain moved by MOVED."""
        self.arrive(self.image)
        rigid = product("register.rigid").RigidRegistration(
            pose(), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0, self.image.uid, "preop"
        )
        push = np.broadcast_to(MOVED, (SIZE, SIZE, SIZE, 3)).astype(np.float32)
        brain = Image(ball(np.zeros(3), 42.0).astype(np.uint8), grid())
        cavity = Image(ball(np.array([-20.0, 0.0, 10.0]), 8.0).astype(np.uint8), grid())
        doubt = Image(np.full((SIZE, SIZE, SIZE), 1.2, np.float32), grid())
        found = product("register.deformable").DeformableRegistration(
            pose(), Image(-push, grid()), Image(push, grid()), cavity, brain, doubt, verdict, False, 1.0, self.image.uid
        )
        self.session._registered(rigid, self.image)
        if verdict.level is not Level.REFUSED:
            shift_found = product("session.resection").shift_found
            self.session._shifted(shift_found(rigid, found, self.image, self.session.plan.tumour))
            self.until(lambda: any(item.offered for item in self.running.view.items.values()), "the plan")
        else:
            self.until(lambda: self.running.view.items, "the plan")
        self.open("SCAN")

    def until(self, condition: Any, what: str) -> None:
        wait_until(condition, 20, what)
        self.panel.refresh()

    def page(self, name: str) -> Any:
        return next(page for phase, page in self.panel.pages.items() if phase.name == name)

    def open(self, name: str) -> None:
        self.panel.open(self.page(name).phase)

    def rows(self) -> dict[str, list[str]]:
        table = self.page("SCAN").ui.carriedTable
        texts = [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]
        return {row[0]: row[1:] for row in texts}

    def choose(self, name: str) -> None:
        table = self.page("SCAN").ui.carriedTable
        table.selectRow(next(row for row in range(table.rowCount) if table.item(row, 0).text() == name))

    def where(self, role: str) -> np.ndarray:
        place = [0.0, 0.0, 0.0]
        self.running.view.bridge.node(role).GetNthControlPointPositionWorld(0, place)
        return np.array(place)

    def point(self, place: np.ndarray) -> None:
        """Hold the pointer still at a place until it is trusted."""
        matrix = np.eye(4)
        matrix[:3, 3] = place
        for _ in range(60):
            self.running.place(Pose(matrix, "Pointer", time.monotonic(), time.time()))
            self.running._move()
            self.page("NAVIGATE").poseArrived()
        self.panel.refresh()
