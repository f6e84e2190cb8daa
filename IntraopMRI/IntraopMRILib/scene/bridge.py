"""The only writer of a session's nodes. The world of the scene is intraoperative RAS, millimetres.

Preoperative nodes (volume, tumour, plan, targets) hang under one linear transform, ``intraop_from_preop``, and are
never hardened. A registration that follows the brain shift adds a second linear transform with a grid transform above
it: the volume and the tumour, which are judged and searched with it, hang there; targets, plans, structures at risk and
landmarks come there one by one, when a person has accepted it. Everything that rests on a registration disappears when
it is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util
import vtk
from IntraopMRIReconstructionLib.data import Image, Level, Pose, Verdict, checked_affine
from IntraopMRIReconstructionLib.errors import DataError, SessionError

from . import conversion, looks, recipes
from .contents import ATTRIBUTE, ROLE, Content, Ledger
from .display import Line
from .registration import Registration, described, readRegistration
from .roles import (
    AROUND,
    BONE,
    CARRIED,
    FOUND,
    FRAME,
    HEAT,
    INTRAOP,
    ITEMS,
    MAP,
    PIECE,
    POINTER,
    POINTER_POSE,
    PREOP,
    REGISTRATION,
    RESIDUAL,
    SHIFT,
    UNMOVED,
    Frame,
    belongs,
    isScan,
    legend,
    prefixOf,
)

REGISTRATION_NAME = "intraop_from_preop"
CARRIED_NAME = "intraop_from_preop, brain shift followed"
SCAN = "vtkMRMLScalarVolumeNode"
#: How faint a planned thing is that a person has not accepted where the brain shift is known.
UNDECIDED_OPACITY = 0.5
#: Two grids are the same when their matrices agree within this, mm: below any voxel, above float32 noise.
GRID_TOLERANCE_MM = 1e-3


class SceneBridge:
    """Writes a session into a MRML scene: main thread only, one bridge per scene.

    Every method checks and converts first and touches the scene last. ``with bridge.update():`` joins several calls:
    all of them take effect at the end of the block, or none when it is left by an exception.

    On a scene that was loaded with a session in it, nodes are taken over by role. Its registration waits in
    ``unconfirmed`` and all that rests on it stays hidden until :meth:`confirmRegistration`.
    """

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self.registration: Registration | None = None
        self.withdrawnBecause = ""
        self.unconfirmed: Registration | None = None
        self._ledger = Ledger(scene)
        self._wanted: dict[str, Content] = self._ledger.adopt()
        self._grids: dict[str, Image] = {}
        self._carried: frozenset[str] = frozenset()
        self._unmoved: Content | None = None
        self._arrowsShown = self._framed = False
        self._unshown: frozenset[str] = frozenset()
        self._inUpdate = False
        if self._wanted:
            self._distrustLoaded()

    @contextmanager
    def update(self) -> Iterator[SceneBridge]:
        """Join several changes into one that happens completely or not at all. Blocks may be nested.

        What takes long is the conversion: a ``content`` that a recipe has made in another thread spares it.
        """
        if self._inUpdate:
            yield self
            return
        before = (dict(self._wanted), dict(self._grids), self.registration, self.withdrawnBecause, self._carried)
        self._inUpdate = True
        try:
            yield self
        except BaseException:
            self._wanted, self._grids, self.registration, self.withdrawnBecause, self._carried = before
            raise
        finally:
            self._inUpdate = False
        self._ledger.apply(self._wanted)

    def node(self, role: str) -> Any | None:
        """The node of a role, e.g. ``preop.T1``, ``intraop.native``, ``result.residual``; None when there is none."""
        return self._ledger.node(role)

    def wants(self, node: Any) -> bool:
        """Whether a node of the scene is one of this session's that is to stay."""
        return node.GetAttribute(ROLE) in self._wanted

    def restore(self) -> None:
        """Put back nodes that somebody else has removed from the scene, and what hung under them where it was.

        A node of a loaded scene that nobody has filled since is let go: what it carried went with it.
        """
        self._wanted = {role: content for role, content in self._wanted.items() if self._ledger.canWrite(role, content)}
        self._ledger.renew(self._wanted)

    def roles(self) -> tuple[str, ...]:
        """Roles that the scene holds now."""
        return tuple(self._wanted)

    def legend(self) -> tuple[Line, ...]:
        """What the colours of the slices mean, one line for each kind of thing that is shown."""
        return legend(role for role, content in self._wanted.items() if content.visible)

    # Images

    def measure(self, scale: float) -> None:
        """Lines and names for views that have ``scale`` times the pixels that they were made for."""
        for role in self.roles():
            looks.measure(self.node(role), scale)

    def setPreoperative(self, image: Image, role: str = "volume", content: Content | None = None) -> None:
        """Show a preoperative volume (preoperative RAS) under the registration. ``content``: see :meth:`update`."""
        ready = content or recipes.volume(image, image.name or f"Preoperative {role}")
        if role == "volume":
            self._unmoved = replace(ready, saved=False)
        self._put(f"{PREOP}{role}", ready, frame="preop")

    def setIntraoperative(self, image: Image, role: str = "native", content: Content | None = None) -> None:
        """Show an intraoperative volume; ``role`` is ``native`` or ``contrast``. ``content``: see :meth:`update`.

        A registration that belonged to the image which this one replaces is withdrawn: it says nothing of this one.
        """
        key = f"{INTRAOP}{role}"
        content = content or recipes.volume(image, image.name or f"Intraoperative {role}")
        with self.update():
            replaced = self._grids.get(key)
            if self.registration and replaced and replaced.uid == self.registration.image_uid != image.uid:
                self.withdraw(f"the new image '{content.name}' is not registered yet")
            self._grids[key] = image
            self._put(key, content)

    def setLiveSlice(self, image: Image | None) -> None:
        """Show the latest 2D slice (k of size 1) where it lies in space; None takes it away."""
        if image is not None and image.array.shape[0] != 1:
            raise DataError(f"a live slice must have shape (1, j, i), got {image.array.shape}")
        self._put("live", recipes.volume(image, "Live slice") if image else None)

    def stopLiveSlice(self, words: str) -> None:
        """Say behind the name of the live slice that it stands still: views and lists show the name, not the time."""
        content = self._wanted.get("live")
        if content is not None:
            self._put("live", replace(content, attributes={**content.attributes, "Position": words}))

    def setPreview(self, content: Content | None) -> None:
        """Show a coarse picture of a scan that still arrives, see :func:`.recipes.preview`; None takes it away."""
        self._put("preview", content)

    def setMaps(self, contents: Mapping[str, Content]) -> None:
        """Maps of quantities, and the picture below them, by role below ``map.``: nothing else stays there.

        They lie where the scanner saw them: no registration moves them, and none that is withdrawn takes them away.
        """
        with self.update():
            self._drop("map")
            self._wanted |= {f"{MAP}{role}": content for role, content in contents.items()}
            self._frame(self._framed)

    def surround(self, shown: bool, scan: Any | None = None) -> None:
        """Draw the edge of the maps, and around it the node of a ``scan``, dimmed: it was taken at another time.

        Of maps of that very scan there is no outside.
        """
        uid = "" if scan is None else scan.GetAttribute(f"{ATTRIBUTE}Uid") or ""
        picture = self._wanted.get(f"{MAP}picture")
        if scan is not None and picture is not None and picture.attributes["Uid"] == uid:
            shown, scan = False, None
        self._framed, before = shown, self._wanted.get(AROUND)
        with self.update():
            self._frame(shown)
            if scan is None:
                self._wanted.pop(AROUND, None)
            elif before is None or before.attributes["Uid"] != uid:
                self._wanted[AROUND] = recipes.surroundings(scan)

    def setHeat(self, contents: Mapping[str, Content]) -> None:
        """What is drawn of an ablation, by role below ``heat.``: nothing else stays there. In the scanner's frame."""
        with self.update():
            self._drop("heat")
            self._wanted |= {f"{HEAT}{role}": content for role, content in contents.items()}

    # What is known before the operation

    def setTumour(self, labels: Image, name: str = "Tumour (preoperative)", content: Content | None = None) -> None:
        """Outline of the tumour before the operation. ``labels``: any preoperative grid, not 0 is tumour."""
        self._put(f"{PREOP}tumour", content or recipes.tumour(labels, name), frame="preop")

    def setStructureAtRisk(self, name: str, labels: Image, content: Content | None = None) -> None:
        """Outline of a structure to spare. ``labels``: any preoperative grid, not 0 belongs to it."""
        self._put(f"{PREOP}risk.{name}", content or recipes.at_risk(labels, name), frame="preop")

    def setPoint(
        self,
        name: str,
        point: npt.ArrayLike,
        frame: Frame = "preop",
        kind: Literal["target", "landmark"] = "target",
        below: bool = False,
    ) -> None:
        """A named point (3,), RAS mm in ``frame``; its name stands above it, or ``below``."""
        place = recipes.point(point, f"{kind} '{name}'")
        content = recipes.named_point(name, place, lambda node: looks.targets(node, below))
        self._put(f"{prefixOf(frame)}{kind}.{name}", content, frame=frame)

    def setPlan(
        self, name: str, entry: npt.ArrayLike, target: npt.ArrayLike, radius_mm: float = 1.0, frame: Frame = "preop"
    ) -> None:
        """Planned trajectory from ``entry`` to ``target`` ((3,) RAS mm in ``frame``): a line and its dashes."""
        contents = recipes.planned(name, entry, target, radius_mm)
        with self.update():
            for role, content in contents.items():
                self._put(prefixOf(frame) + role, content, frame=frame)

    # What was found

    def setRegistration(
        self,
        intraop_from_preop: npt.ArrayLike,
        verdict: Verdict,
        image_uid: str,
        uid: str,
        shift: Image | None = None,
        content: Content | None = None,
    ) -> None:
        """Bring the preoperative nodes into the world. A refused verdict withdraws instead, with its reasons.

        ``image_uid``: the intraoperative image it was made with. ``uid``: of the registration itself. Results that rest
        on another registration disappear. ``shift``: displacements (k, j, i, 3), RAS mm, from the world to where the
        rigid pose alone would have put the tissue; None without. ``content``: that shift's, when it is there already.
        """
        matrix = checked_affine(intraop_from_preop, "intraop_from_preop")
        if verdict.level is Level.REFUSED:
            self.withdraw(f"registration {verdict.text}")
            return
        self._accept(
            Registration(matrix, verdict, image_uid, uid),
            content if content is not None or shift is None else recipes.shift("Brain shift", shift),
        )

    def carry(self, key: str, follow: bool) -> None:
        """A person has decided whether a planned thing follows the brain shift, e.g. ``target.lead``, ``plan.screw``.

        Raises SessionError when no brain shift is known.
        """
        if follow and (self.registration is None or SHIFT not in self._wanted):
            raise SessionError(f"'{key}' cannot be carried over: no accepted registration follows the brain shift")
        with self.update():
            self._carried = self._carried | {key} if follow else self._carried - {key}
            for role, content in self._wanted.items():
                if self.registration is not None and belongs(role, key):
                    self._wanted[role] = self._placed(role, content)

    def leaveOut(self, keys: frozenset[str]) -> None:
        """Planned things that are not shown, e.g. those that nobody has decided on, while the pointer guides."""
        if keys == self._unshown:
            return
        changed, self._unshown = keys ^ self._unshown, keys
        with self.update():
            for role, content in self._wanted.items():
                if self.registration is not None and any(belongs(role, key) for key in changed):
                    self._wanted[role] = self._placed(role, content)

    def setBrainShift(self, drawn: Mapping[str, Content]) -> None:
        """Maps, arrows and cavity of :func:`recipes.brain_shift`, by role.

        Raises SessionError without an accepted registration.
        """
        registration = self._needed("the brain shift")
        with self.update():
            for role, content in drawn.items():
                attributes = {**content.attributes, "RegistrationUid": registration.uid}
                self._put(
                    role, replace(content, attributes=attributes, visible=role != recipes.ARROWS or self._arrowsShown)
                )

    def showArrows(self, shown: bool) -> None:
        """Draw the brain shift as arrows, or not."""
        self._arrowsShown = shown
        content = self._wanted.get(recipes.ARROWS)
        if content is not None and self.registration is not None and content.visible is not shown:
            self._put(recipes.ARROWS, replace(content, visible=shown))

    def confirmRegistration(self) -> None:
        """A person confirms the registration that came with a loaded scene. SessionError when none waits."""
        waiting = self.unconfirmed
        if waiting is None:
            raise SessionError("no loaded registration waits for a confirmation; register instead")
        self._accept(waiting, self._wanted.get(SHIFT))

    def setResidual(self, residual: Image, resected: Image | None = None, content: Content | None = None) -> None:
        """Residual (red) and resected part, labels on the grid of an intraoperative volume (not 0 is part of it).

        Raises SessionError without an accepted registration, DataError when the grid is no shown image's.
        """
        registration = self._needed("a residual")
        for labels in (residual, resected):
            if labels is not None and not any(_sameGrid(labels, image) for image in self._grids.values()):
                raise DataError(
                    f"labels '{labels.name}' of shape {labels.array.shape} lie on no intraoperative volume's grid"
                )
        content = content or recipes.residual(residual, resected)
        attributes = {**content.attributes, "RegistrationUid": registration.uid, "Uid": residual.uid}
        self._put(RESIDUAL, replace(content, attributes=attributes))

    def setPieceMark(self, number: int, at: npt.ArrayLike | None, radius_mm: float = 0.0) -> None:
        """Mark the piece of the residual of that ``number`` at a point (3,), intraoperative RAS mm; None of none.

        Raises SessionError without an accepted registration.
        """
        if at is None:
            self._put(PIECE, None)
            return
        registration = self._needed("a piece of the residual")
        content = recipes.piece_mark(f"Piece {number}", recipes.point(at, f"piece {number}"), radius_mm)
        self._put(PIECE, replace(content, attributes={"RegistrationUid": registration.uid}))

    def setActualImplant(self, name: str, entry: npt.ArrayLike, tip: npt.ArrayLike, radius_mm: float = 1.0) -> None:
        """Implant as found in the intraoperative image: axis line and cylinder, (3,) intraoperative RAS mm.

        Raises SessionError without an accepted registration: it was searched for where that puts its plan.
        """
        contents = recipes.actual(name, entry, tip, radius_mm)
        registration = self._needed("an implant")
        with self.update():
            for role, content in contents.items():
                attributes = {**content.attributes, "RegistrationUid": registration.uid}
                self._put(INTRAOP + role, replace(content, attributes=attributes))

    def setBones(self, contents: Mapping[str, Content]) -> None:
        """Vertebrae that were registered each on its own and what rests on them, by role below ``bone.``: nothing else
        stays there. In the world; they go with a withdrawn registration."""
        with self.update():
            self._drop("bone")
            self._wanted |= {f"{BONE}{role}": content for role, content in contents.items()}

    def setAnatomy(self, mesh: Any | None, name: str = "Brain surface") -> None:
        """Translucent surface (vtkPolyData, intraoperative RAS) for bearings in the 3D view; None removes it."""
        self._put(f"{INTRAOP}anatomy", None if mesh is None else recipes.model(name, mesh, looks.anatomy))

    def setPointer(self, pose: Pose | None) -> None:
        """Move the pointer; None, or a pose that the tracker calls invalid, hides it."""
        with self.update():
            visible = pose is not None and pose.valid
            shown = self._wanted.get(POINTER)
            if shown is None:
                shown = recipes.model("Pointer", conversion.pointerMesh(), looks.pointer, parent=POINTER_POSE)
            if shown.visible is not visible or POINTER not in self._wanted:
                # Never saved: a loaded scene must not show where a tool once was.
                self._wanted[POINTER] = replace(shown, visible=visible, saved=False)
            if pose is not None and visible:
                attributes = {"Tool": pose.tool, "ReceivedUtc": recipes.utc(pose.received_utc_s)}
                placed = recipes.transform("world_from_pointer", pose.ras_from_tool, attributes)
                self._wanted[POINTER_POSE] = replace(placed, saved=False)

    # Taking away

    def withdraw(self, reason: str) -> None:
        """Take away all that rests on the registration: preoperative nodes lose their place, results are hidden."""
        with self.update():
            self.registration = None
            self.withdrawnBecause = reason
            self._carried = frozenset()
            for role in (REGISTRATION, CARRIED, UNMOVED):
                self._wanted.pop(role, None)
            self._drop("bone")
            for role, content in self._wanted.items():
                if role.startswith((PREOP, *FOUND)):
                    self._wanted[role] = _hidden(content, reason)

    def remove(self, role: str) -> None:
        """Remove a role and all below it (``preop.plan.A`` removes line and dashes)."""
        with self.update():
            self._drop(role)

    def beginAnew(self) -> None:
        """Before another session: volumes that were scanned stay in the scene, as any others; all else goes."""
        for role in [role for role, content in self._wanted.items() if content.nodeClass == SCAN and isScan(role)]:
            self._ledger.release(role)
            del self._wanted[role]
        self.clear()

    def clear(self) -> None:
        """Remove every node of the session."""
        with self.update():
            self._wanted.clear()
            self._grids.clear()
            self._carried, self._unmoved = frozenset(), None
            self.registration = self.unconfirmed = None
            self.withdrawnBecause = ""

    def forget(self) -> None:
        """The scene was closed: start anew without touching a node."""
        self._ledger.forget()
        self._wanted, self._grids = {}, {}
        self._carried, self._unmoved = frozenset(), None
        self.registration = self.unconfirmed = None
        self.withdrawnBecause = ""

    # Helpers

    def _accept(self, registration: Registration, shift: Content | None) -> None:
        with self.update():
            for role, content in list(self._wanted.items()):
                if role.startswith(FOUND) and content.attributes.get("RegistrationUid") != registration.uid:
                    self._drop(role)
            self.registration = registration
            self.unconfirmed = None
            self.withdrawnBecause = ""
            self._carried = frozenset()
            for role in (SHIFT, CARRIED, UNMOVED):
                self._wanted.pop(role, None)
            rigid = registration.intraop_from_preop
            self._wanted[REGISTRATION] = recipes.transform(REGISTRATION_NAME, rigid, described(registration))
            if shift is not None:
                self._wanted[SHIFT] = shift
                self._wanted[CARRIED] = replace(recipes.transform(CARRIED_NAME, rigid, {}), parent=SHIFT)
                if self._unmoved is not None:
                    attributes = {**self._unmoved.attributes, "Position": "rigid"}
                    self._wanted[UNMOVED] = replace(self._unmoved, attributes=attributes)
            for role, content in self._wanted.items():
                if role.startswith((PREOP, *FOUND)):
                    self._wanted[role] = self._placed(role, content)

    def _needed(self, what: str) -> Registration:
        if self.registration is None:
            reason = self.withdrawnBecause or "no registration was accepted yet"
            raise SessionError(f"{what} cannot be shown: {reason}; register first")
        return self.registration

    def _placed(self, role: str, content: Content) -> Content:
        """The content where the accepted registration puts it, marked where that is not where its tissue is now."""
        attributes = {
            key: value for key, value in content.attributes.items() if key not in ("HiddenBecause", "Position")
        }
        if not role.startswith(PREOP):
            visible = role != recipes.ARROWS or self._arrowsShown
            return replace(content, parent="", visible=visible, attributes=attributes)
        visible = not any(belongs(role, key) for key in self._unshown)
        if SHIFT not in self._wanted:
            opacity = 1.0 if content.opacity is not None else None
            return replace(content, parent=REGISTRATION, visible=visible, attributes=attributes, opacity=opacity)
        item = role.removeprefix(PREOP).startswith(ITEMS)
        followed = role != UNMOVED and (not item or any(belongs(role, key) for key in self._carried))
        if not followed:
            attributes["Position"] = "rigid"
        opacity = None if not item else 1.0 if followed else UNDECIDED_OPACITY
        parent = CARRIED if followed else REGISTRATION
        return replace(content, parent=parent, visible=visible, attributes=attributes, opacity=opacity)

    def _distrustLoaded(self) -> None:
        for role, content in self._wanted.items():
            if role.startswith(INTRAOP) and content.nodeClass == SCAN:
                node: Any = self.node(role)
                matrix = vtk.vtkMatrix4x4()
                node.GetIJKToRASMatrix(matrix)
                array, uid = slicer.util.arrayFromVolume(node), content.attributes.get("Uid", "")
                self._grids[role] = Image(array, slicer.util.arrayFromVTKMatrix(matrix), content.name, uid=uid)
        node = self.node(REGISTRATION)
        if node is not None:
            matrix = vtk.vtkMatrix4x4()
            node.GetMatrixTransformToParent(matrix)
            self.unconfirmed = readRegistration(
                slicer.util.arrayFromVTKMatrix(matrix), self._wanted[REGISTRATION].attributes
            )
        self.withdraw("the scene was loaded: confirm the registration")

    def _put(self, role: str, content: Content | None, frame: Frame = "intraop") -> None:
        with self.update():
            if content is None:
                self._wanted.pop(role, None)
            elif frame == "intraop":
                self._wanted[role] = content
            elif self.registration is None:
                self._wanted[role] = _hidden(content, self.withdrawnBecause or "not registered yet")
            else:
                self._wanted[role] = self._placed(role, content)

    def _frame(self, shown: bool) -> None:
        content = self._wanted.get(FRAME)
        if content is not None and content.visible is not shown:
            self._wanted[FRAME] = replace(content, visible=shown)

    def _drop(self, dropped: str) -> None:
        for role in [role for role in self._wanted if role == dropped or role.startswith(f"{dropped}.")]:
            del self._wanted[role]
            self._grids.pop(role, None)


def _hidden(content: Content, reason: str) -> Content:
    return replace(content, parent="", visible=False, attributes={**content.attributes, "HiddenBecause": reason})


def _sameGrid(labels: Image, image: Image) -> bool:
    return labels.array.shape == image.array.shape[:3] and bool(
        np.abs(labels.ras_from_ijk - image.ras_from_ijk).max() <= GRID_TOLERANCE_MM
    )
