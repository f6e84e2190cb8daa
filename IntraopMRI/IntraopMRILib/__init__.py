"""The surgical session: register, assess, navigate, report. Builds on IntraopMRIReconstructionLib."""
