"""What the sections of the report are made of: escaped words, tables of numbers with their definitions, pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from IntraopMRIReconstructionLib.errors import DataError

from .text import interval_text, joined, value_text
from .trust import checked

_MIME = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file's bytes with the caption under it.

    ``piece``: number of the piece of the residual that it shows, so that it stands in its row; 0 for none.
    """

    data: bytes
    caption: str
    piece: int = 0


def escaped(value: Any) -> str:
    """Text that is safe inside HTML and its attributes."""
    return escape(str(value), quote=True)


_e = escaped


def table(measurements: Sequence[Document], document: Document) -> str:
    """One row a number, as far as ``document`` lets it be shown, with its definition and source."""
    rows = []
    sources = {m["source"] for m in measurements}
    # One source for all is named once, under the table.
    common = sources.pop() if len(sources) == 1 and len(measurements) > 2 else ""
    for one in (checked(m, document) for m in measurements):
        if one["value"] is None:
            shown = f'<td colspan="2" class="none">No value: {_e(one["missing_because"])}</td>'
        else:
            number, unit = value_text(one["value"], one["unit"])
            shown = (
                f'<td class="number">{_e(joined(number, unit))}</td><td class="number">{_e(interval_text(one))}</td>'
            )
        source = f'<span class="source">{_e(one["source"])}</span>' if one["source"] and not common else ""
        rows.append(f"<tr><th>{_e(one['name'])}</th>{shown}<td>{_e(one['definition'])}{source}</td></tr>")
    return (
        '<table><thead><tr><th>Measurement</th><th class="number">Value</th><th class="number">Interval</th>'
        f"<th>Definition and source</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        + (f'<p class="note">Source: {_e(common)}</p>' if common else "")
    )


def data_uri(picture: Picture) -> str:
    """The picture inside the file. Raises DataError for what is neither PNG nor JPEG."""
    for magic, mime in _MIME.items():
        if picture.data.startswith(magic):
            return f"data:{mime};base64," + base64.b64encode(picture.data).decode("ascii")
    raise DataError(f"the picture '{picture.caption}' is neither PNG nor JPEG: it starts with {picture.data[:4]!r}")
