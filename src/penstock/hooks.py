"""What the hooks of a task are given about an error."""

from __future__ import annotations

HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
"""The methods that a subclass of `Task` may redefine."""


class ErrorInfo:
    """An error and its traceback as text, as hooks get it."""

    def __init__(self, exception: BaseException, traceback: str) -> None:
        self.exception, self.traceback = exception, traceback
        self.type = type(exception)

    def __str__(self) -> str:
        return self.traceback

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """With the traceback that the error carries."""
        import traceback  # only for errors

        return cls(error, "".join(traceback.format_exception(error)))
