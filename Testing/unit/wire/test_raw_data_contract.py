"""Live k-space over OpenIGTLink: the contract, there and back, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, cartesian_kspace, ring_of_coils
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader, message_from_acquisition, messages_from_encoding

ENCODING = Encoding(
    scan_id="scan-1",
    trajectory="cartesian",
    encoded_matrix=(4, 8, 16),
    recon_matrix=(4, 8, 8),
    encoded_fov_mm=(40.0, 80.0, 160.0),
    recon_fov_mm=(40.0, 80.0, 80.0),
    coils=3,
    ras_from_ijk=np.diag([10.0, 10, 10, 1]),
    is_3d=True,
    acceleration=(1, 2),
    calibration_lines=(4, 4),
    centre=(2, 3, 8),
    contrasts=2,
    repetitions=5,
    averages=2,
    protocol="T1 Größe",
    patient_id="42",
    field_t=1.5,
    echo_times_s=(0.01, 0.02),
    dwell_time_s=1e-5,
    metadata={"a": "b"},
)


def _acquisition(**changes: Any) -> Acquisition:
    rng = np.random.default_rng(3)
    samples = (rng.standard_normal((5, 3, 16)) + 1j * rng.standard_normal((5, 3, 16))).astype(np.complex64)
    start = Acquisition(
        scan_id="scan-1",
        samples=samples,
        ky=np.arange(5, dtype=np.int32),
        kz=np.full(5, 2, np.int32),
        flags=np.array([0, 0, LineFlag.CALIBRATION, 0, LineFlag.REVERSED], np.uint32),
        contrast=1,
        repetition=4,
        average=1,
    )
    return replace(start, **changes)


def _sent(message: codec.Message) -> codec.Message:
    raw = codec.encode(message)
    return codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])


def _reader(encoding: Encoding = ENCODING) -> RawDataReader:
    reader = RawDataReader()
    for message in messages_from_encoding(encoding):
        assert reader.feed(_sent(message)) is not None
    return reader


def test_encoding_there_and_back(directions: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * [10.0, 10.0, 10.0]
    matrix[:3, 3] = (1.5, 2.5, -3.5)
    encoding = replace(ENCODING, ras_from_ijk=matrix)
    (message,) = messages_from_encoding(encoding)
    back = RawDataReader().feed(_sent(message))
    assert isinstance(back, Encoding)
    for name in Encoding.__dataclass_fields__:
        if name == "ras_from_ijk":
            np.testing.assert_array_equal(back.ras_from_ijk, matrix)
        else:
            assert getattr(back, name) == getattr(encoding, name), name


def test_encoding_in_lps_leads_to_ras() -> None:
    (message,) = messages_from_encoding(ENCODING)
    assert isinstance(message, codec.StringMessage)
    fields = json.loads(message.text)
    fields["coordinate_system"] = "LPS"
    back = RawDataReader().feed(replace(message, text=json.dumps(fields)))
    assert isinstance(back, Encoding)
    np.testing.assert_array_equal(np.diag(back.ras_from_ijk), (-10, -10, 10, 1))


@pytest.mark.parametrize("form", ["ndarray", "image"])
def test_lines_there_and_back(form: Literal["ndarray", "image"]) -> None:
    sent = _acquisition(last=True)
    back = _reader().feed(_sent(message_from_acquisition(sent, form=form)))
    assert isinstance(back, Acquisition)
    np.testing.assert_array_equal(back.samples, sent.samples)
    assert back.samples.dtype == np.complex64
    for name in ("ky", "kz", "flags"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sent, name))
    assert (back.contrast, back.repetition, back.average, back.last) == (1, 4, 1, True)


def test_image_form_is_not_copied() -> None:
    message = _sent(message_from_acquisition(_acquisition(), form="image"))
    assert isinstance(message, codec.ImageMessage)
    back = _reader().feed(message)
    assert isinstance(back, Acquisition)
    assert np.shares_memory(back.samples, message.array)


def test_complex128_lines() -> None:
    start = message_from_acquisition(_acquisition())
    message = replace(start, array=_acquisition().samples.astype(np.complex128))
    back = _reader().feed(_sent(message))
    assert isinstance(back, Acquisition)
    np.testing.assert_array_equal(back.samples, _acquisition().samples)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_trajectory_travels_with_its_lines(dimensions: int) -> None:
    encoding = replace(ENCODING, trajectory="radial")
    trajectory = np.random.default_rng(4).standard_normal((5, 16, dimensions)).astype(np.float32)
    back = _reader(encoding).feed(_sent(message_from_acquisition(_acquisition(trajectory=trajectory))))
    assert isinstance(back, Acquisition)
    assert back.trajectory is not None
    np.testing.assert_array_equal(back.trajectory, trajectory)
    with pytest.raises(WireError, match="has no trajectory"):
        _reader(encoding).feed(_sent(message_from_acquisition(_acquisition())))


def test_other_messages_are_left_alone() -> None:
    reader = RawDataReader()
    assert reader.feed(codec.StringMessage(device="x", text="hello")) is None
    assert reader.feed(codec.NDArrayMessage(device="x", array=np.zeros(3))) is None
    assert reader.feed(codec.TransformMessage(device="x")) is None


def test_lines_before_any_encoding() -> None:
    with pytest.raises(WireError, match="before any encoding"):
        RawDataReader().feed(message_from_acquisition(_acquisition()))


def test_lines_after_the_last() -> None:
    reader = _reader()
    reader.feed(message_from_acquisition(_acquisition(last=True)))
    with pytest.raises(WireError, match="'scan-1' has ended"):
        reader.feed(message_from_acquisition(_acquisition()))


def _with_nan() -> np.ndarray:
    samples = _acquisition().samples.copy()
    samples[3, 1, 7] = complex(0.0, np.nan)
    return samples


def _with_both_infinities() -> np.ndarray:
    samples = _acquisition().samples.copy()
    samples[0, 0, :2] = (np.inf, -np.inf)
    return samples


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scan_id": "scan-2"}, "belongs to scan 'scan-2'"),
        ({"samples": np.zeros((5, 4, 16), np.complex64)}, "4 coils"),
        ({"samples": np.zeros((5, 3, 17), np.complex64)}, "17 samples a line, scan 'scan-1' announced 16"),
        ({"samples": np.zeros((5, 3, 8), np.complex64)}, "centre at sample 8, which a readout so short lacks"),
        ({"ky": np.full(5, 8, np.int32)}, "'ky' must be 5 integers from 0 to 7"),
        ({"ky": np.full(5, -1, np.int32)}, "'ky'"),
        ({"kz": np.full(5, 4, np.int32)}, "'kz'"),
        ({"contrast": 2}, "'contrast'"),
        ({"repetition": 5}, "'repetition'"),
        ({"average": 2}, "'average'"),
    ],
)
def test_lines_that_cannot_be_trusted(changes: dict[str, Any], match: str) -> None:
    reader = _reader()
    with pytest.raises(WireError, match=match):
        reader.feed(_sent(message_from_acquisition(_acquisition(**changes))))
    # One bad block does not end the scan.
    assert isinstance(reader.feed(message_from_acquisition(_acquisition())), Acquisition)


@pytest.mark.parametrize("form", ["ndarray", "image"])
def test_short_readouts_come_through_when_the_encoding_names_their_centre(form: Literal["ndarray", "image"]) -> None:
    short = _acquisition(samples=_acquisition().samples[..., :11])
    back = _reader().feed(_sent(message_from_acquisition(short, form=form)))
    assert isinstance(back, Acquisition)
    np.testing.assert_array_equal(back.samples, short.samples)


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"centre": None}, "needs 'centre' in the encoding"), ({"trajectory": "epi"}, "11 samples a line")],
)
def test_short_readouts_without_a_known_centre_are_refused(changes: dict[str, Any], match: str) -> None:
    reader = _reader(replace(ENCODING, **changes))
    with pytest.raises(WireError, match=match):
        reader.feed(_sent(message_from_acquisition(_acquisition(samples=_acquisition().samples[..., :11]))))
    assert isinstance(reader.feed(message_from_acquisition(_acquisition())), Acquisition)


def test_an_asymmetric_echo_over_the_wire_becomes_the_image_of_the_whole_one() -> None:
    """The same head read from its echo's eighth on: what is missing is completed, and it lies in the same place."""
    size, first = 64, 20
    whole = cartesian_kspace((size, size), (240.0, 240.0), HEAD_2D, ring_of_coils(3, 240.0))
    header = replace(
        ENCODING,
        encoded_matrix=(1, size, size),
        recon_matrix=(1, size, size),
        encoded_fov_mm=(5.0, 240.0, 240.0),
        recon_fov_mm=(5.0, 240.0, 240.0),
        ras_from_ijk=np.diag([3.75, 3.75, 5.0, 1.0]),
        is_3d=False,
        acceleration=(1, 1),
        calibration_lines=(0, 0),
        contrasts=1,
        repetitions=1,
        averages=1,
    )
    images = []
    for start in (0, first):
        encoding = replace(header, centre=(0, size // 2, size // 2 - start))
        reader, assembler = _reader(encoding), Assembler(encoding)
        ky = np.arange(size, dtype=np.int32)
        samples = np.ascontiguousarray(whole[..., start:].swapaxes(0, 1))
        got = reader.feed(_sent(message_from_acquisition(Acquisition("scan-1", samples, ky, ky * 0))))
        assert isinstance(got, Acquisition)
        assembler.add(got)
        images.append(reconstruct(assembler.kspace()))
    assert [image.method for image in images] == ["fft", "homodyne"]
    reference, found = images[0].image.array, images[1].image.array
    assert np.linalg.norm(found - reference) < 0.1 * np.linalg.norm(reference)


@pytest.mark.parametrize("samples", [_with_nan(), _with_both_infinities()])
def test_a_sample_that_is_not_finite_costs_no_other_line(samples: np.ndarray) -> None:
    back = _reader().feed(_sent(message_from_acquisition(_acquisition(samples=samples))))
    assert isinstance(back, Acquisition)
    np.testing.assert_array_equal(back.samples, samples)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"ky": "0,1,2,3"}, "'ky' must be 5"),
        ({"ky": "a,b,c,d,e"}, "'ky' must be 5 integers"),
        ({"flags": "1,2"}, "'flags'"),
        ({"trajectory_shape": "5,16,2", "trajectory": "***"}, "base64"),
        ({"trajectory_shape": "5,16,2", "trajectory": "AAAA"}, "needs 640 bytes"),
        ({"trajectory_shape": "5,15,2", "trajectory": "AAAA"}, "must have shape"),
    ],
)
def test_metadata_that_cannot_be_trusted(metadata: dict[str, str], match: str) -> None:
    message = message_from_acquisition(_acquisition())
    with pytest.raises(WireError, match=match):
        _reader().feed(replace(message, metadata={**message.metadata, **metadata}))


def test_array_of_another_kind() -> None:
    message = message_from_acquisition(_acquisition())
    with pytest.raises(WireError, match="must be float32 of shape"):
        _reader().feed(replace(message, array=np.zeros((5, 3, 16, 2), np.int16)))


def test_noise_lines_may_have_another_length() -> None:
    noise = _acquisition(samples=np.zeros((5, 3, 40), np.complex64), flags=np.full(5, LineFlag.NOISE, np.uint32))
    assert isinstance(_reader().feed(message_from_acquisition(noise)), Acquisition)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"coils": 0}, "coils"),
        ({"coils": "many"}, "cannot be used"),
        ({"trajectory": "zigzag"}, "trajectory must be one of"),
        ({"coordinate_system": "XYZ"}, "RAS or LPS"),
        ({"ras_from_ijk": [[1, 2], [3, 4]]}, "shape"),
        ({"ras_from_ijk": None}, "cannot be used"),
        ({"encoded_matrix": [1, 2]}, "three positive"),
        ({"encoded_matrix": None}, "cannot be used"),
        ({"recon_fov_mm": [1, 2, float("nan")]}, "positive lengths"),
        ({"centre": [2, 3]}, "centre must be three indices"),
        ({"centre": [2, 3, 16]}, "within the encoded matrix"),
        ({"centre": [2, -1, 8]}, "within the encoded matrix"),
        ({"centre": "8"}, "centre must be three indices"),
        ({"metadata": 3}, "cannot be used"),
        ({"scan_id": None}, ""),
    ],
)
def test_encodings_that_cannot_be_used(changes: dict[str, Any], match: str) -> None:
    (message,) = messages_from_encoding(ENCODING)
    assert isinstance(message, codec.StringMessage)
    fields = json.loads(message.text) | changes
    if changes == {"scan_id": None}:
        del fields["scan_id"]
        match = "lacks scan_id"
    with pytest.raises(WireError, match=match):
        RawDataReader().feed(replace(message, text=json.dumps(fields)))


def test_another_patient_is_refused() -> None:
    reader = _reader()
    (other,) = messages_from_encoding(replace(ENCODING, patient_id="43", scan_id="scan-2"))
    with pytest.raises(WireError, match="patient '43', this session is of '42'"):
        reader.feed(other)
    assert isinstance(reader.feed(message_from_acquisition(_acquisition())), Acquisition)
