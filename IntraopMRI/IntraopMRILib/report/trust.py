"""Which numbers of a session record may be shown: what rests on a refused registration loses its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .text import level_of

Document = Mapping[str, Any]

WITHHELD = "the registration was refused, so nothing that rests on it is shown"


def checked(measurement: Document, document: Document) -> Document:
    """The measurement, or the same without its value when the registration that carries it was refused.

    Where bones were found each on its own, what is measured rests on those.
    """
    registration = document.get("registration")
    if registration is not None and level_of(registration["verdict"]) == "refused" and not found_parts(document):
        return {**measurement, "value": None, "interval": None, "missing_because": WITHHELD}
    return measurement


def found_parts(document: Document) -> list[Document]:
    """Bones that numbers may rest on: those that a person accepted; those that were found where nobody was asked."""
    found = [part for part in document.get("parts", ()) if level_of(part["verdict"]) != "refused"]
    if all(part.get("decision", "open") == "open" for part in found):
        return found
    return [part for part in found if part["decision"] == "accepted"]
