"""What a session brings into the scene, converted before the main thread sees it.

Converting a volume or closing a surface takes up to a second, writing the result into a node a few milliseconds: the
first happens here, in a thread of its own that touches no node, the second on the main thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import IntraopError

from ..navigate.distance import ResidualDistance, SurfaceDistance
from ..session import Plan
from ..session.updates import (
    BonesFound,
    HeatMeasured,
    ImageReady,
    MapReady,
    PlanCarried,
    Problem,
    ResidualFound,
    ScanPreview,
    ShiftFound,
    Update,
)
from . import conversion, recipes
from .bones import PreparedBone, prepared_bones
from .contents import Content


@dataclass(frozen=True, eq=False)
class PreparedPlan:
    """Nodes of a plan."""

    preoperative: Content
    tumour: Content | None
    at_risk: Mapping[str, Content]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Nodes and distances of one update; empty for updates that convert nothing."""

    content: Content | None = None
    #: Surface of the head or body, vtkPolyData, and the uid of the picture that it was made of.
    anatomy: tuple[Any, str] | None = None
    distance: ResidualDistance | None = None
    #: What shows the brain shift, by role.
    drawn: Mapping[str, Content] = field(default_factory=dict)
    #: Distance to each structure at risk by name: where the rigid pose puts it, and carried over (None: not offered).
    risks: Mapping[str, tuple[SurfaceDistance, SurfaceDistance | None]] = field(default_factory=dict)
    #: Maps of quantities and the picture below them, see :func:`.recipes.maps`.
    maps: Mapping[str, Content] = field(default_factory=dict)
    #: What is drawn of an ablation, see :func:`.recipes.heat`.
    heat: Mapping[str, Content] = field(default_factory=dict)
    #: Vertebrae that a person decides on, by key.
    bones: Mapping[str, PreparedBone] = field(default_factory=dict)
    #: Distance to each piece of the residual, by its number.
    pieces: Mapping[int, SurfaceDistance] = field(default_factory=dict)


def preparePlan(plan: Plan) -> PreparedPlan:
    """Convert a plan; in any thread."""
    tumour = None if plan.tumour is None else recipes.tumour(plan.tumour, "Tumour (preoperative)")
    volume = recipes.volume(plan.preoperative, plan.preoperative.name or "Preoperative volume")
    return PreparedPlan(volume, tumour, {name: recipes.at_risk(label, name) for name, label in plan.at_risk.items()})


def prepare(update: Update) -> Prepared:
    """Convert what an update carries; in any thread."""
    if isinstance(update, ImageReady):
        image = update.image
        return Prepared(recipes.volume(image, image.name or f"Intraoperative {update.role}"))
    if isinstance(update, MapReady):
        return Prepared(maps=recipes.maps(update))
    if isinstance(update, HeatMeasured):
        return Prepared(heat=recipes.heat(update))
    if isinstance(update, ScanPreview) and update.image is not None:
        return Prepared(recipes.preview(update.image, f"PREVIEW {update.fraction:.0%} of {update.protocol}"))
    if isinstance(update, ShiftFound):
        return Prepared(recipes.shift("Brain shift", update.deformable.shift))
    if isinstance(update, PlanCarried):
        return Prepared(risks={name: _distances(name, *labels) for name, labels in update.labels.items()})
    if isinstance(update, BonesFound):
        return Prepared(bones=prepared_bones(update))
    if isinstance(update, ResidualFound):
        found = update.assessment
        distance = ResidualDistance(found.residual) if np.any(found.residual.array) else None
        pieces = {piece.number: SurfaceDistance(piece.label, f"piece {piece.number}") for piece in found.listed}
        return Prepared(recipes.residual(found.residual, update.resected), distance=distance, pieces=pieces)
    return Prepared()


def behind(update: Update) -> Iterator[Prepared]:
    """What is drawn beside what an update shows and need not be waited for, a node at a time; in any thread.

    All at once they would hold the main thread for a tenth of a second.
    """
    if isinstance(update, ImageReady):
        yield Prepared(anatomy=(conversion.anatomySurface(update.image), update.image.uid))
    elif isinstance(update, ShiftFound):
        for role, content in recipes.brain_shift(update.deformable).items():
            yield Prepared(drawn={role: content})


def _distances(name: str, rigid: Image, now: Image | None) -> tuple[SurfaceDistance, SurfaceDistance | None]:
    return SurfaceDistance(rigid, name), None if now is None else SurfaceDistance(now, name)


class Preparer:
    """Prepares updates one after another, in order. Tell it to :meth:`close` at the end."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Update | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Update | None, Prepared]] = queue.SimpleQueue()
        self._closing = threading.Event()
        threading.Thread(target=self._run, name="intraop preparer", daemon=True).start()

    def put(self, update: Update) -> None:
        """Hand over an update. Never waits."""
        self._waiting.put(update)

    def next(self) -> tuple[Update | None, Prepared] | None:
        """The next update that is ready, None when there is none. Never waits.

        What :func:`behind` gives follows its update, without one.
        """
        try:
            return self._done.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the thread once it has finished what it works on; that result is dropped. Does not wait."""
        self._closing.set()
        self._waiting.put(None)

    def _run(self) -> None:
        while (update := self._waiting.get()) is not None and not self._closing.is_set():
            try:
                self._done.put((update, prepare(update)))
                for ready in behind(update):
                    self._done.put((None, ready))
            except IntraopError as error:
                self._done.put((Problem("show", str(error)), Prepared()))
            except Exception as error:
                # As in the session: a defect must be said on screen, not end a thread in silence.
                logging.getLogger(__name__).exception("defect while preparing %s", type(update).__name__)
                text = f"a defect in this software keeps a result from being shown ({type(error).__name__}: {error})"
                self._done.put((Problem("show", text), Prepared()))
