"""The codes that the objects use: of DICOM, SNOMED CT, LOINC and UCUM, and our own where none of them has one."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

from pydicom.dataset import Dataset

#: Coding scheme of concepts that no standard has; announced in each object that uses it.
OWN_SCHEME, OWN_NAME = "99INTRAOPMRI", "IntraopMRI session record"
#: A code (VR SH) has at most this many characters.
LONGEST_CODE = 16


class Coded(NamedTuple):
    """Value, scheme and meaning."""

    value: str
    scheme: str
    meaning: str


ABNORMAL = Coded("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Coded("85756007", "SCT", "Tissue")
NEOPLASM = Coded("108369006", "SCT", "Neoplasm")
BODY_CAVITY = Coded("91806002", "SCT", "Body cavity")
VOLUME = Coded("118565006", "SCT", "Volume")
MRI = Coded("25056-3", "LN", "MRI unspecified body region")
REPORT = Coded("126000", "DCM", "Imaging Measurement Report")
COMMENT = Coded("121106", "DCM", "Comment")
PROCESSING_EQUIPMENT = Coded("109102", "DCM", "Processing Equipment")
SAME_FRAME = Coded("125021", "DCM", "Frame of Reference Identity")
IMAGE_CONTENT = Coded("125024", "DCM", "Image Content-based Alignment")
SEGMENTATION_FAMILY = Coded("123104", "DCM", "Morphological Operations")
#: UCUM code and meaning of the units that measurements use.
UNITS = {
    "cm3": ("cm3", "cubic centimeter"),
    "ml": ("mL", "milliliter"),
    "mm": ("mm", "millimeter"),
    "mm2": ("mm2", "square millimeter"),
    "deg": ("deg", "degree"),
    "%": ("%", "percent"),
    "s": ("s", "second"),
    "": ("1", "no units"),
}


def item(code: Coded) -> Dataset:
    """A code as the item of a sequence."""
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = code
    return made


def own(meaning: str) -> Coded:
    """Our own code for a concept: readable, and another one for other words."""
    words = re.sub(r"[^A-Z0-9]+", "_", meaning.upper()).strip("_")
    if len(words) > LONGEST_CODE or not words:
        words = f"{words[:9]}_{zlib.crc32(meaning.encode()) & 0xFFFFFF:06X}"
    return Coded(words, OWN_SCHEME, meaning[:64])


def unit(text: str) -> Coded:
    """The unit of a measurement in UCUM; one that is not known there is kept as an annotation."""
    value, meaning = UNITS.get(text, (f"{{{text}}}", text))
    return Coded(value, "UCUM", meaning)


def own_scheme() -> Dataset:
    """Says whose the codes are that no standard has."""
    made = Dataset()
    made.CodingSchemeDesignator, made.CodingSchemeName = OWN_SCHEME, OWN_NAME
    made.CodingSchemeResponsibleOrganization = OWN_NAME.split()[0]
    return made
