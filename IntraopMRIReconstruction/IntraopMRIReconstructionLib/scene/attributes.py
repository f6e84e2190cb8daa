"""Names of the node attributes that tell how a volume came about and when it was taken."""

#: Node attribute of a preview: percent of the scan that it was made of.
PREVIEW_ATTRIBUTE = "IntraopMRI.PreviewPercent"
#: Prefix of the attributes that tell how a volume came about.
PROVENANCE_ATTRIBUTE = "IntraopMRI.Reconstruction."
#: Attribute of a volume whose voxels are a quantity: its unit.
UNIT_ATTRIBUTE = "IntraopMRI.Unit"
#: When the scan was taken (ISO 8601) and of whom, where that is known.
ACQUIRED_ATTRIBUTE, PATIENT_ATTRIBUTE = "IntraopMRI.AcquiredUtc", "IntraopMRI.PatientId"
#: What a person has said of a volume: where its time comes from, and as which scan of a session it was used.
TAKEN_FROM_ATTRIBUTE, SCAN_ROLE_ATTRIBUTE = SAID_ATTRIBUTES = "IntraopMRI.Source.TakenFrom", "IntraopMRI.ScanRole"
