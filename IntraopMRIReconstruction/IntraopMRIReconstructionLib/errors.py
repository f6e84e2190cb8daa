"""The family of errors that a person may see. Every message names the value, what was expected and what to do."""


class IntraopError(Exception):
    """Base of every error that this extension raises on purpose."""


class DataError(IntraopError):
    """A value that no stage may work on: wrong shape, unit, frame or content."""


class WireError(IntraopError):
    """A message or a link that cannot be trusted."""


class ReconstructionError(IntraopError):
    """Raw data from which no honest image can be made."""


class RegistrationError(IntraopError):
    """Two images that cannot be brought together."""


class AssessmentError(IntraopError):
    """A measurement that cannot be made from what is there."""


class SessionError(IntraopError):
    """A step of the session that cannot be done now."""


class Cancelled(IntraopError):
    """A person stopped the work; nothing was changed."""
