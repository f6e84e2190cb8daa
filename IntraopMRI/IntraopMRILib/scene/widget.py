"""The session panel: one page per phase of the procedure, one prominent next action."""

from IntraopMRIReconstructionLib.scene.panel import Panel


class SessionPanel(Panel):
    """Case, connect, register, scan and review, navigate, decide and report."""
