"""Layouts and constants of MRD (ISMRMRD) 1.x: file and stream share them. All numbers are little-endian.

Source: the ISMRMRD specification, acquisition, image and waveform headers, version 1.
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np

_VECTOR = ("<f4", (3,))

#: Counters of a readout, 34 bytes.
COUNTERS = np.dtype(
    [
        ("kspace_encode_step_1", "<u2"),
        ("kspace_encode_step_2", "<u2"),
        ("average", "<u2"),
        ("slice", "<u2"),
        ("contrast", "<u2"),
        ("phase", "<u2"),
        ("repetition", "<u2"),
        ("set", "<u2"),
        ("segment", "<u2"),
        ("user", "<u2", (8,)),
    ]
)

#: Head of one readout, 340 bytes.
ACQUISITION_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", *_VECTOR),
        ("read_dir", *_VECTOR),
        ("phase_dir", *_VECTOR),
        ("slice_dir", *_VECTOR),
        ("patient_table_position", *_VECTOR),
        ("idx", COUNTERS),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)

#: Head of one image, 198 bytes.
IMAGE_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("data_type", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("matrix_size", "<u2", (3,)),
        ("field_of_view", *_VECTOR),
        ("channels", "<u2"),
        ("position", *_VECTOR),
        ("read_dir", *_VECTOR),
        ("phase_dir", *_VECTOR),
        ("slice_dir", *_VECTOR),
        ("patient_table_position", *_VECTOR),
        ("average", "<u2"),
        ("slice", "<u2"),
        ("contrast", "<u2"),
        ("phase", "<u2"),
        ("repetition", "<u2"),
        ("set", "<u2"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("image_type", "<u2"),
        ("image_index", "<u2"),
        ("image_series_index", "<u2"),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
        ("attribute_string_len", "<u4"),
    ]
)

#: Head of one waveform (ECG, respiration, navigator trace), 40 bytes in memory and on the wire.
WAVEFORM_HEAD = np.dtype(
    {
        "names": [
            "version",
            "flags",
            "measurement_uid",
            "scan_counter",
            "time_stamp",
            "number_of_samples",
            "channels",
            "sample_time_us",
            "waveform_id",
        ],
        "formats": ["<u2", "<u8", "<u4", "<u4", "<u4", "<u2", "<u2", "<f4", "<u2"],
        "offsets": [0, 8, 16, 20, 24, 28, 30, 32, 36],
        "itemsize": 40,
    }
)

#: Version of the layouts above.
LAYOUT_VERSION = 1

#: Pixel types of images.
PIXEL_TYPES = {
    code: np.dtype(kind) for code, kind in enumerate(("<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "<c8", "<c16"), start=1)
}

#: What the pixels of an image are.
IMAGE_TYPES = {1: "magnitude", 2: "phase", 3: "real", 4: "imaginary", 5: "complex", 6: "rgb"}


class MrdFlag(IntFlag):
    """Flags of a readout that change what it is for."""

    LAST_IN_REPETITION = 1 << 13
    NOISE = 1 << 18
    CALIBRATION = 1 << 19
    CALIBRATION_AND_IMAGE = 1 << 20
    REVERSE = 1 << 21
    NAVIGATION = 1 << 22
    PHASE_CORRECTION = 1 << 23
    LAST_IN_MEASUREMENT = 1 << 24
    HP_FEEDBACK = 1 << 25
    DUMMY_SCAN = 1 << 26
    RT_FEEDBACK = 1 << 27
    SURFACE_COIL_CORRECTION = 1 << 28
    PHASE_STABILISATION_REFERENCE = 1 << 29
    PHASE_STABILISATION = 1 << 30
    COMPRESSION = 0b1111 << 52


#: Readouts that belong to no image: left out, counted and named. So do those for the correction of phases, of all scans
#: but EPI.
NOT_FOR_IMAGES = (
    MrdFlag.NAVIGATION,
    MrdFlag.HP_FEEDBACK,
    MrdFlag.DUMMY_SCAN,
    MrdFlag.RT_FEEDBACK,
    MrdFlag.SURFACE_COIL_CORRECTION,
    MrdFlag.PHASE_STABILISATION_REFERENCE,
    MrdFlag.PHASE_STABILISATION,
)
