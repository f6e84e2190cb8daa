"""How objects refer to others: by class and instance, and series by series in their study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset


def reference(to: Dataset) -> Dataset:
    """An item that names one object."""
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = to.SOPClassUID, to.SOPInstanceUID
    return made


def refer(made: Dataset, all_series: Iterable[Sequence[Dataset]]) -> None:
    """Write the Common Instance Reference (PS3.3, C.12.2): series of the object's own study, then those of others."""
    apart: dict[str, Dataset] = {}
    for objects in (objects for objects in all_series if objects):
        part = Dataset()
        part.SeriesInstanceUID = objects[0].SeriesInstanceUID
        part.ReferencedInstanceSequence = [reference(each) for each in objects]
        study = str(objects[0].StudyInstanceUID)
        holder = made
        if study != made.StudyInstanceUID:
            holder = apart.setdefault(study, Dataset())
            holder.StudyInstanceUID = study
        holder.ReferencedSeriesSequence = [*holder.get("ReferencedSeriesSequence", ()), part]
    if apart:
        made.StudiesContainingOtherReferencedInstancesSequence = list(apart.values())
