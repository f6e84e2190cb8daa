"""The family of errors that a person may see. Every message names the value, what was expected and what to do."""


class IntraopError(Exception):
    """Base of every error that this extension raises on purpose."""


class DataError(IntraopError):
    """A value that no stage may work on: wrong shape, unit, frame or content."""


class WireError(IntraopError):
    """A message or a link that cannot be trusted."""


class OpenChoice(WireError):
    """Raw data that can be read in several ways, or only when a person says what they do not say.

    ``problem``: what is open, in words. ``option``: the reader's option that settles it, ``group`` or a field of
    MrdOptions; ``values``: what it may be.
    """

    def __init__(self, problem: str, option: str, values: tuple[int | str, ...]) -> None:
        super().__init__(f"{problem}; choose with {option}: {', '.join(map(str, values))}")
        self.problem, self.option, self.values = problem, option, values


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
