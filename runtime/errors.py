"""The exception types of pocketvlm: every error raised on purpose is one of these, also from the C++ core.

A message says where, what was found and what was expected, and the command that fixes it if there is one.
"""


class Error(Exception):
    """Base of all errors raised by pocketvlm."""


class FormatError(Error, ValueError):
    """A file is missing, damaged, or holds something other than its format says."""


class UnsupportedError(Error, RuntimeError):
    """A valid request for something this build, this CPU or this version does not have."""


class BackendError(Error):
    """A foreign runtime failed; its own exception is the cause."""


class OutOfBudgetError(Error, MemoryError):
    """The work would not fit the memory that is there; raised before the work starts."""


class InputError(Error, ValueError):
    """An image, a message or an argument of the caller that cannot be used."""


class ContextLengthError(InputError):
    """The prompt, with its image tokens, does not fit the context of the model."""


class Cancelled(Error):  # noqa: N818 (it is an answer to the caller's own request)
    """The caller asked a running computation to stop."""
