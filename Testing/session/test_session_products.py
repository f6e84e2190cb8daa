"""What a scan is made for comes through a session over the link: combined pictures, and maps that nobody registers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.session import Link, Session
from IntraopMRILib.session.products import Products
from IntraopMRILib.session.updates import (
    ImageReady,
    ImplantFound,
    MapReady,
    Problem,
    Registered,
    ScanPreview,
    Update,
)
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, no_progress
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.live import LiveScan
from IntraopMRIReconstructionLib.reconstruct.products import Wanted, make
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.simulate.metal_scans import metal_scan
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan, epi_scan, heating_scan, multi_echo_scan
from IntraopMRIReconstructionLib.simulate.spine import SpineCase, make_spine_case
from IntraopMRIReconstructionLib.wire.adapters import message_from_image
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server
from session.conftest import PATIENT, send, wait_for, wait_with_all
from session.test_session_spine import check, plan_of

SEMAC_STEPS = 4
#: Weak enough that a slice of the spine's scan would be bent by a millimetre.
SLICE_HZ_PER_MM = 500.0


def named(scan: RawScan, **metadata: str) -> RawScan:
    """The scan of this session's patient, with more in its header."""
    known = {**scan.encoding.metadata, **metadata}
    return replace(scan, encoding=replace(scan.encoding, patient_id=PATIENT, metadata=known))


def send_raw(scanner: Server, scan: RawScan) -> None:
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    for block in scan.blocks:
        scanner.send(message_from_acquisition(block, form="image"))


def made(products: Products, scan: RawScan) -> Reconstruction:
    live = LiveScan(scan.encoding)
    for block in scan.blocks:
        live.add(block)
    return products.made(live, no_progress)


def test_a_scan_whose_orientation_somebody_has_assumed_is_not_taken() -> None:
    scan = epi_scan(32, 2)
    with pytest.raises(SessionError, match="assumed axial: nobody knows: it may be mirrored"):
        made(Products(1), named(scan, geometry="assumed axial: nobody knows"))


def collected(scan: RawScan) -> Any:
    made_of = collector(scan.encoding)
    for block in scan.blocks:
        made_of.add(block)
    return made_of


def everything(session: Session, enough: Callable[[list[Update]], bool]) -> list[Update]:
    """All updates until they are enough."""
    told: list[Update] = []
    deadline = time.monotonic() + 60.0
    while not enough(told):
        assert time.monotonic() < deadline, told
        told += session.drain()
        time.sleep(0.01)
    return told


def of_kind(updates: list[Update], kind: type[Any]) -> list[Any]:
    return [update for update in updates if isinstance(update, kind)]


@pytest.mark.parametrize(
    ("scan", "quantity", "unit", "beside"),
    [
        (named(heating_scan(48, 4, 4), scan_for="temperature"), "temperature change", "°C", "min"),
        (named(multi_echo_scan(48, 4), scan_for="field map"), "off-resonance", "Hz", "Hz"),
    ],
)
def test_a_map_has_its_name_and_unit_and_is_no_scan(
    session: Session, scanner: Server, scan: RawScan, quantity: str, unit: str, beside: str
) -> None:
    send_raw(scanner, scan)
    updates = everything(session, lambda told: bool(of_kind(told, ScanPreview) and isinstance(told[-1], MapReady)))
    found = updates[-1]
    assert isinstance(found, MapReady)
    assert of_kind(updates, ScanPreview)[-1].image is None
    first, second = found.maps
    assert (first.metadata["quantity"], first.metadata["unit"]) == (quantity, unit)
    assert second.metadata["unit"] == beside
    assert found.picture is not None
    assert found.picture.metadata["quantity"] == "magnitude"
    # The preview of the scan is gone, and the next scan finds a worker that registers.
    send_raw(scanner, named(metal_scan(slices=8, steps=1)))
    later, _ready = wait_with_all(session, ImageReady)
    assert not of_kind([*updates, *later], Registered)
    record = session.journal.record
    assert [image.name for image in record.images] == ["Beside metal"]
    assert any(event.kind == "map" and unit in event.text for event in record.events)


def test_temperature_is_shown_frame_by_frame_while_the_scan_goes_on(session: Session, scanner: Server) -> None:
    scan = named(heating_scan(48, 4, 5), scan_for="temperature")
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    maps = []
    for number, block in enumerate(scan.blocks):
        scanner.send(message_from_acquisition(block, form="image"))
        _, found = wait_with_all(session, MapReady)
        maps.append(found)
        record = session.journal.record
        assert any(event.kind == "map" for event in record.events) is (number == 4)
    tops = [float(np.nanmax(found.maps[0].array)) for found in maps]
    assert tops == sorted(tops)
    assert tops[-1] > 15
    expected = make(collected(scan), Wanted())
    np.testing.assert_allclose(maps[-1].maps[0].array, expected.image.array, atol=1e-3)
    assert maps[-1].maps[0].metadata["unit"] == "°C"


def test_a_map_leaves_the_registration_alone(session: Session, scanner: Server, scans: dict[str, Any]) -> None:
    send(scanner, scans["T1 native"])
    wait_for(session, Registered)
    before = session.journal.record
    send_raw(scanner, named(heating_scan(48, 4, 3), scan_for="temperature"))
    wait_for(session, MapReady)
    assert session.journal.record.registration == before.registration is not None
    assert session.journal.record.images == before.images


def test_a_finished_map_is_never_taken_for_a_scan(session: Session, scanner: Server) -> None:
    result = made(Products(1), named(heating_scan(48, 4, 3), scan_for="temperature"))
    scanner.send(message_from_image(replace(result.image, patient_id=PATIENT), "heat", version=2))
    updates, found = wait_with_all(session, MapReady)
    assert found.maps[0].metadata["unit"] == "°C"
    assert found.picture is None
    np.testing.assert_array_equal(found.maps[0].array, result.image.array)
    assert not of_kind(updates, ImageReady)
    with pytest.raises(SessionError, match="holds °C, no picture of the patient"):
        session.offer_scan(result.image, "native")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scan_for": "beauty"}, "may name a scan for temperature or field map, got 'beauty'"),
        ({"scan_for": "field map"}, "at least two echoes"),
    ],
)
def test_what_cannot_be_made_is_said(session: Session, scanner: Server, changes: dict[str, str], words: str) -> None:
    send_raw(scanner, named(heating_scan(48, 4, 3), **changes))
    _, said = wait_with_all_problems(session)
    assert words in said.text
    assert said.fatal


def wait_with_all_problems(session: Session) -> tuple[list[Update], Problem]:
    return wait_with_all(session, Problem, lambda problem: problem.fatal)


def test_parts_of_a_scan_beside_metal_come_together(session: Session, scanner: Server) -> None:
    scan = named(metal_scan())
    send_raw(scanner, scan)
    updates, ready = wait_with_all(session, ImageReady)
    assert ready.reconstruction is not None
    assert ready.reconstruction.method == "SEMAC (fft)"
    assert float(ready.image.metadata["slice_covered_mm"]) == 14.0
    assert not [problem.text for problem in of_kind(updates, Problem)]


def test_spectral_bins_come_together_with_their_frequencies(session: Session, scanner: Server) -> None:
    echoes = multi_echo_scan(48, 4)
    send_raw(scanner, named(echoes, bin_centres_hz="-1000 0 1000"))
    updates, found = wait_with_all(session, MapReady)
    (ready,) = of_kind(updates, ImageReady)
    assert ready.reconstruction.method == "multi-spectral (fft)"
    assert [each.metadata["unit"] for each in found.maps] == ["Hz"]
    assert found.picture is ready.image


def test_the_second_of_two_opposed_epi_scans_is_straight() -> None:
    products = Products(1)
    up, down = (named(epi_scan(shift_voxels=2.5, blips=way), blips=name) for way, name in ((1, "up"), (-1, "down")))
    first, second = made(products, up), made(products, down)
    true = made(Products(1), named(epi_scan()))
    assert any("a scan with opposite blips puts it right" in text for text in first.warnings)
    assert "distortion by opposed blips" in second.provenance["corrections"]
    assert not any("displaced" in text for text in second.warnings)
    bent, straight = (np.linalg.norm(each.image.array - true.image.array) for each in (first, second))
    assert straight < 0.5 * bent
    # A third one has nothing to be compared with, nor has one of another place or the same way.
    assert any("opposite blips puts" in text for text in made(products, down).warnings)
    assert any("opposite blips puts" in text for text in made(products, down).warnings)
    moved = replace(up, encoding=replace(up.encoding, ras_from_ijk=np.diag([3.0, 3.0, 5.0, 1.0])))
    assert any("grid" in text for text in made(products, moved).warnings)
    assert any("does not name which way" in text for text in made(products, named(epi_scan(), blips="left")).warnings)


@pytest.fixture(scope="module")
def spine() -> SpineCase:
    return make_spine_case(1, spacing_mm=1.5, bend_deg=5.0, slide_mm=2.0)


def semac_of(case: SpineCase, semac: bool) -> RawScan:
    """The spine as slices of one coil, each step of slice encoding alike: nothing lies beside its slice."""
    image = case.noisy()
    z, y, x = image.array.shape
    spacing = image.spacing_mm
    facts = case.scan.facts()
    metadata = {
        "rf_bandwidth_hz": repr(SLICE_HZ_PER_MM * float(spacing[2])),
        "slice_thickness_mm": repr(float(spacing[2])),
        "spectral_bin_hz": facts["spectral_bin_hz"],
    }
    steps = SEMAC_STEPS if semac else 1
    if semac:
        metadata["semac_fov_mm"] = repr(float(steps * spacing[2]))
    fov = (float(z * spacing[2]), float(y * spacing[1]), float(x * spacing[0]))
    encoding = Encoding(
        "spine", "cartesian", (z, y, x), (z, y, x), fov, fov, 1, image.ras_from_ijk, is_3d=False, contrasts=steps,
        protocol="Spine", patient_id=PATIENT, field_t=float(facts["field_t"]),
        dwell_time_s=1 / (float(facts["readout_hz_per_mm"]) * fov[2]), metadata=metadata,
    )  # fmt: skip
    array = np.asarray(image.array, dtype=np.float32)
    planes = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(array, (1, 2)), norm="ortho"), (1, 2)).astype(np.complex64)
    lines = np.arange(y, dtype=np.int32)
    blocks = [
        Acquisition("spine", planes[k][:, None], lines, np.full(y, k, np.int32), contrast=step)
        for step in range(steps)
        for k in range(z)
    ]
    return RawScan(encoding, (*blocks[:-1], replace(blocks[-1], last=True)))


@pytest.mark.slow
def test_alignment_rests_on_what_a_scan_beside_metal_leaves_of_the_void(spine: SpineCase) -> None:
    """From the header over the link to the interval of a screw: slices in place, only the readout's shift is left."""
    found: dict[bool, ImplantFound] = {}
    for semac in (False, True):
        with Server() as server, Session(plan_of(spine)) as session:
            session.connect(Link("127.0.0.1", server.port))
            assert server.wait_for_peer(10.0)
            send_raw(server, semac_of(spine, semac))
            found[semac] = wait_for(session, ImplantFound)
    for each in found.values():
        check(each, spine)
        assert each.detected.shift is not None
    plain, put_back = found[False].detected, found[True].detected
    assert plain.shift is not None
    assert put_back.shift is not None
    assert plain.shift.slice_mm > 0.1
    assert put_back.shift.slice_mm == 0.0
    assert put_back.shift.readout_mm == pytest.approx(plain.shift.readout_mm, rel=0.2)
    assert put_back.uncertainty_mm < plain.uncertainty_mm
    said = {m.name: m for m in found[True].measurements}
    readout = next(m for name, m in said.items() if name.endswith("possible shift of the void, readout"))
    assert "slices put in place up to" in readout.definition
    width = next(m for name, m in said.items() if name.endswith("possible width of the void, slice direction"))
    assert width.value == pytest.approx(put_back.shift.slice_void_mm)
