"""Pictures against known geometry: what lies right, anterior, superior is found at the right pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vtk
from IntraopMRILib.scene import colors, conversion
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.corner_text import ViewTexts, orientationLetters
from IntraopMRILib.scene.display import Banner, Corners, Line, Readout, Tone
from IntraopMRILib.scene.headless import HeadlessScene, useOffscreenOpenGL
from IntraopMRILib.scene.offscreen import OffscreenViews, Picture, writePng
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre
from PIL import Image as PngImage

GOOD = Verdict((Reason("edge distance", 0.6, "mm", "below 1.5", Level.GOOD),))
REFUSED = Verdict((Reason("overlap", 0.2, "", "0.6 to 1", Level.REFUSED),))
SIZE = (640, 480)
HEIGHT_MM = 100.0
MM_PER_PIXEL = HEIGHT_MM / (SIZE[1] // 2 - 1)
#: Half a voxel and a pixel.
TOLERANCE_PIXELS = 2.5
RED = np.round(np.array(colors.RESIDUAL) * 255)


def volume(directions: np.ndarray, *balls: tuple[tuple[float, float, float], float, float]) -> Image:
    """80 mm cube of grey 100 with balls (centre RAS, radius mm, grey)."""
    matrix = corner_from_centre(directions, (0.0, 0.0, 0.0), (81, 81, 81))
    k, j, i = np.indices((81, 81, 81))
    points = apply(matrix, np.stack([i, j, k], axis=-1))
    array = np.full((81, 81, 81), 100.0, np.float32)
    array[0, 0, 0] = 1000.0  # keeps the grey of the cube dark
    for centre, radius, grey in balls:
        array[np.linalg.norm(points - centre, axis=-1) <= radius] = grey
    return Image(array, matrix, name="volume")


def mask(of: Image, grey: float) -> Image:
    return Image((of.array == grey).astype(np.uint8), of.ras_from_ijk, name="mask")


def quarter(picture: Picture, name: str) -> Picture:
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    row, column = {"Axial": (0, 0), "3D": (0, 1), "Coronal": (1, 0), "Sagittal": (1, 1)}[name]
    return picture[row * (height + 1) : row * (height + 1) + height - 1, column * (width + 1) :][:, : width - 1]


def offset_mm(picture: Picture, found: np.ndarray) -> tuple[float, float]:
    """Centre of the found pixels from the middle of the view: mm to the right, mm up."""
    rows, columns = np.nonzero(found)
    assert rows.size, "nothing found"
    height, width = picture.shape[:2]
    right = (columns.mean() - (width - 1) / 2) * MM_PER_PIXEL
    return float(right), float(((height - 1) / 2 - rows.mean()) * MM_PER_PIXEL)


def reddish(picture: Picture) -> np.ndarray:
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return (red > 90) & (red - green > 100) & (red - blue > 100)


#: Where right, anterior and superior are in each view: screen right and up in RAS.
SCREEN = {
    "Axial": ((-1, 0, 0), (0, 1, 0)),
    "Coronal": ((-1, 0, 0), (0, 0, 1)),
    "Sagittal": ((0, -1, 0), (0, 0, 1)),
}


def test_slices_show_each_side_where_it_is(headless: HeadlessScene, directions: np.ndarray) -> None:
    centre = np.array((3.0, -2.0, 5.0))
    ball = centre + np.array((12.0, 14.0, 10.0))
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(volume(directions, (tuple(ball), 5.0, 900.0)))
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        for name, (right, up) in SCREEN.items():
            # The plane goes through the ball, the middle of the view is where centre projects.
            normal = np.cross(right, up)
            on_plane = centre + normal * (normal @ (ball - centre))
            views.show(bridge.node("intraop.native"), centre=on_plane, heightMm=HEIGHT_MM)
            view = quarter(views.fourUp(), name)
            bright = view[..., 0] > 180
            found = offset_mm(view, bright)
            expected = np.array(right) @ (ball - on_plane), np.array(up) @ (ball - on_plane)
            np.testing.assert_allclose(found, expected, atol=TOLERANCE_PIXELS * MM_PER_PIXEL)
            area = bright.sum() * MM_PER_PIXEL**2
            assert area == pytest.approx(np.pi * 25.0, rel=0.2)


def test_preoperative_volume_is_drawn_where_the_registration_puts_it(headless: HeadlessScene) -> None:
    shift = np.eye(4)
    shift[:3, 3] = (0.0, 15.0, 0.0)
    bridge = SceneBridge(headless.scene)
    bridge.setPreoperative(volume(np.eye(3), ((10.0, 0.0, 0.0), 5.0, 900.0)))
    bridge.setRegistration(shift, GOOD, "image", "registration")
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("preop.volume"), heightMm=HEIGHT_MM)
        view = quarter(views.fourUp(), "Axial")
        np.testing.assert_allclose(offset_mm(view, view[..., 0] > 180), (-10.0, 15.0), atol=1.2)
        bridge.withdraw("moved")
        views.show(bridge.node("preop.volume"), heightMm=HEIGHT_MM)
        assert quarter(views.fourUp(), "Axial").max() == 0


def test_residual_is_red_where_it_lies_and_gone_when_withdrawn(headless: HeadlessScene, directions: np.ndarray) -> None:
    scan = volume(directions, ((8.0, 6.0, 0.0), 6.0, 500.0))
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(scan)
    bridge.setRegistration(np.eye(4), GOOD, scan.uid, "registration")
    bridge.setResidual(mask(scan, 500.0))
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
        view = quarter(views.fourUp(), "Axial")
        np.testing.assert_allclose(offset_mm(view, reddish(view)), (-8.0, 6.0), atol=1.2)
        assert reddish(view).sum() * MM_PER_PIXEL**2 == pytest.approx(np.pi * 36.0, rel=0.25)
        assert reddish(quarter(views.fourUp(), "3D")).any()
        bridge.withdraw("moved")
        for name in ("Axial", "Coronal", "Sagittal", "3D"):
            assert not reddish(quarter(views.fourUp(), name)).any()


def test_foreground_covers_background_by_its_opacity(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    left = volume(np.eye(3), ((10.0, 0.0, 0.0), 6.0, 900.0))
    bridge.setIntraoperative(left, "native")
    bridge.setIntraoperative(volume(np.eye(3), ((-10.0, 0.0, 0.0), 6.0, 900.0)), "contrast")
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        levels = []
        for opacity in (0.0, 0.5, 1.0):
            views.show(bridge.node("intraop.native"), bridge.node("intraop.contrast"), opacity, heightMm=HEIGHT_MM)
            view = quarter(views.fourUp(), "Axial")
            row, column = view.shape[0] // 2, view.shape[1] // 2
            aside = round(10.0 / MM_PER_PIXEL)
            levels.append((int(view[row, column - aside, 0]), int(view[row, column + aside, 0])))
    assert levels[0][0] > 180 > levels[0][1]
    assert levels[2][1] > 180 > levels[2][0]
    assert levels[1][0] == pytest.approx(levels[1][1], abs=3)


def test_pointer_tip_is_drawn_at_the_tip(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(volume(np.eye(3)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # shaft towards anterior
    matrix[:3, 3] = (6.0, -4.0, 0.0)
    bridge.setPointer(Pose(matrix, "pointer", 0.0, 0.0))
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
        view = quarter(views.fourUp(), "Axial")
        white = view.min(axis=-1) > 200
        rows, columns = np.nonzero(white)
        tip = columns[rows == rows.max()].mean(), rows.max()
        x = (tip[0] - (view.shape[1] - 1) / 2) * MM_PER_PIXEL
        y = ((view.shape[0] - 1) / 2 - tip[1]) * MM_PER_PIXEL
        np.testing.assert_allclose((x, y), (-6.0, -4.0), atol=1.2)
        bridge.setPointer(None)
        assert not (quarter(views.fourUp(), "Axial").min(axis=-1) > 200).any()


def test_planned_and_actual_are_seen_in_their_hues(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(volume(np.eye(3)))
    bridge.setRegistration(np.eye(4), GOOD, "scan", "registration")
    bridge.setPlan("screw", (10.0, 20.0, 0.0), (10.0, -20.0, 0.0), radius_mm=2.0, frame="intraop")
    bridge.setActualImplant("screw", (-10.0, 20.0, 0.0), (-10.0, -20.0, 0.0), radius_mm=2.0)
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
        view = quarter(views.fourUp(), "Axial").astype(int)
    bluish = view[..., 2] - view[..., 0] > 60
    orange = view[..., 0] - view[..., 2] > 60
    np.testing.assert_allclose(offset_mm(view, bluish), (-10.0, 0.0), atol=1.5)
    np.testing.assert_allclose(offset_mm(view, orange), (10.0, 0.0), atol=1.5)
    along = bluish.any(axis=1)[bluish.any(axis=1).argmax() : -bluish.any(axis=1)[::-1].argmax()]
    assert not along.all(), "the plan must be dashed"
    assert orange.any(axis=1).sum() * MM_PER_PIXEL == pytest.approx(40.0, abs=2.0)


def test_alarms_are_on_every_view(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(volume(np.eye(3)))
    stale = Readout(verdict=GOOD, pose_trust="stale", pose_age_s=1.3)
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
        for readout, color in ((stale, colors.CAUTION), (replace(stale, verdict=REFUSED), colors.DANGER_BAND)):
            views.annotate(readout)
            picture = views.fourUp()
            for name in ("Axial", "Coronal", "Sagittal", "3D"):
                top = quarter(picture, name)[1, :, :]
                np.testing.assert_allclose(np.median(top, axis=0), np.array(color) * 255, atol=2)
        views.annotate(replace(stale, pose_trust="live", pose_age_s=0.1))
        np.testing.assert_array_equal(quarter(views.fourUp(), "Coronal")[1, 4, :], 0)


def test_numbers_are_drawn_and_blanked(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(volume(np.eye(3)))
    residual = Measurement("residual", 5.4, "cm3", "definition", interval=(4.3, 5.9))
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
        views.annotate(Readout(residual=residual, verdict=GOOD))
        shown = quarter(views.fourUp(), "3D")
        views.annotate(Readout(residual=residual, verdict=None))
        blanked = quarter(views.fourUp(), "3D")
    height, width = shown.shape[:2]
    corner = np.s_[: height // 3, : width // 2]
    assert reddish(shown[corner]).sum() > 100
    assert not reddish(blanked[height // 3 :]).any()


def test_scale_bar_has_its_length(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    bridge.setIntraoperative(volume(np.eye(3)))
    with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
        views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
        views.annotate(Readout(verdict=GOOD))
        view = quarter(views.fourUp(), "Sagittal")
    longest = (view[-14:].min(axis=-1) > 200).sum(axis=1).max()
    assert longest * MM_PER_PIXEL == pytest.approx(20.0, abs=1.0)


def test_views_come_and_go_without_a_trace(headless: HeadlessScene) -> None:
    bridge = SceneBridge(headless.scene)
    scan = volume(np.eye(3), ((5.0, 5.0, 0.0), 6.0, 500.0))
    bridge.setIntraoperative(scan)
    bridge.setAnatomy(conversion.anatomySurface(scan))
    bridge.setRegistration(np.eye(4), GOOD, scan.uid, "registration")
    bridge.setResidual(mask(scan, 500.0))
    pictures, counts = [], []
    for _ in range(4):
        with OffscreenViews(headless.scene, headless.applicationLogic, SIZE) as views:
            views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
            views.annotate(Readout(verdict=GOOD, image_age_s=1.0), bridge.legend())
            pictures.append(views.fourUp())
        counts.append(headless.scene.GetNumberOfNodes())
    assert len(set(counts)) == 1
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])
    # The scene lives on without its views.
    bridge.setResidual(mask(scan, 100.0))
    bridge.clear()


def test_two_scenes_side_by_side(headless: HeadlessScene) -> None:
    other = HeadlessScene()
    pictures = []
    for host, grey in ((headless, 900.0), (other, 100.0)):
        bridge = SceneBridge(host.scene)
        bridge.setIntraoperative(volume(np.eye(3), ((0.0, 0.0, 0.0), 6.0, grey)))
        with OffscreenViews(host.scene, host.applicationLogic, SIZE) as views:
            views.show(bridge.node("intraop.native"), heightMm=HEIGHT_MM)
            pictures.append(views.fourUp())
    assert (pictures[0] != pictures[1]).any()


def test_anatomy_surface_encloses_the_body(directions: np.ndarray) -> None:
    matrix = corner_from_centre(directions * (1.0, 1.0, 1.3), (4.0, -6.0, 9.0), (64, 70, 54))
    k, j, i = np.indices((54, 70, 64))
    points = apply(matrix, np.stack([i, j, k], axis=-1))
    distance = np.linalg.norm(points - (4.0, -6.0, 9.0), axis=-1)
    array = np.where(distance < 25.0, 100.0, 2.0).astype(np.float32)
    array[distance < 12.0] = 3.0
    surface = conversion.anatomySurface(Image(array, matrix), spacingMm=2.0)
    vertices = np.array([surface.GetPoint(index) for index in range(surface.GetNumberOfPoints())])
    radii = np.linalg.norm(vertices - (4.0, -6.0, 9.0), axis=1)
    assert np.abs(radii - 25.0).max() < 2.5
    assert abs(radii.mean() - 25.0) < 0.5


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "R"),
        ((-1, 0, 0), "L"),
        ((0, 1, 0), "A"),
        ((0, 0, -2), "I"),
        ((1, 1, 0), "RA"),
        ((0.1, -1, 0.6), "PS"),
    ],
)
def test_orientation_letters(direction: tuple[float, float, float], letters: str) -> None:
    assert orientationLetters(direction) == letters


@pytest.mark.parametrize("size", [(421, 369), (280, 760)])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("lines", [0, 4, 7])
@pytest.mark.parametrize("below", [0, 3])
def test_a_letter_of_the_side_is_never_covered(size: tuple[int, int], count: int, lines: int, below: int) -> None:
    """The legend comes down to where the letter stands; a letter gives way, or lies on top of it."""
    useOffscreenOpenGL()
    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(1)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    banner = Banner("REGISTRATION REFUSED", "overlap 0.31 where at least 0.6 is expected", Tone.DANGER)
    texts = ViewTexts(renderer)
    shown = Corners(
        topLeft=tuple(Line(f"Legend {number}", bold=True) for number in range(lines)),
        bottomLeft=tuple(Line(f"Shift {number}") for number in range(below)),
        banners=(banner,) * count,
    )
    texts.update(Corners(), np.diag([-1.0, 1.0, 1.0, 1.0]), 0.5)
    texts.update(shown, np.diag([-1.0, 1.0, 1.0, 1.0]), 0.5)
    props = [prop for prop in renderer.GetViewProps() if isinstance(prop, vtk.vtkTextActor)]
    boxes = {}
    for prop in props:
        box = [0.0] * 4
        prop.GetBoundingBox(renderer, box)
        x, y = prop.GetPosition()
        boxes[prop.GetInput()] = (x + box[0], x + box[1], y + box[2], y + box[3])
    left, right, low, high = boxes.pop("R")
    order = [prop.GetInput() for prop in props]
    for words, (x0, x1, y0, y1) in boxes.items():
        covers = x0 < right and left < x1 and y0 < high and low < y1
        if covers:
            assert order.index("R") > order.index(words), f"'{words}' lies over the letter"
            assert (count, lines + below >= 7) == (2, True), f"'{words}' has room beside the letter"
    texts.close()
    window.Finalize()


def test_png_is_written_completely(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    path = writePng(picture, tmp_path / "picture.png")
    np.testing.assert_array_equal(np.asarray(PngImage.open(path)), picture)
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_tiny_pictures_are_refused(headless: HeadlessScene) -> None:
    with pytest.raises(DataError, match="at least 200 pixels"):
        OffscreenViews(headless.scene, headless.applicationLogic, (100, 100))
