"""The session as DICOM objects: volumes, segmentation, measurement report, registrations; and their way."""
