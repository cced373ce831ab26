"""Define errors that an operator can fix. Anything else is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
DIFFERENCE: Final = 3
INTERRUPTED: Final = 130


class UserError(Exception):
    """An error that an operator can fix.

    The message says what is wrong and where (file, line, key); the hint says what to do next.

    Attributes:
        exit_code: one of the contract's: 1 failed, 2 wrong use, 3 a check found a difference.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def list_errors(self) -> Sequence[UserError]:
        """Return the single errors to print, in order."""
        return (self,)

    def with_subject(self, what: str, *also: str) -> UserError:
        """Return the error with a message that begins with its subject.

        It stays as it is if the message has the subject, or one of ``also``, already.
        """
        if any(words in self.message for words in (what, *also)):
            return self
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.message = f"{what}: {self.message}"
        other.args = (other.message,)
        return other


class UserErrors(UserError):
    """Several errors reported together, each message once; never empty."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        unique = {e.message: e for error in errors for e in error.list_errors()}
        self.errors = tuple(unique.values())
        if not self.errors:
            raise ValueError("no errors to report")
        super().__init__(
            "\n".join(e.message for e in self.errors),
            exit_code=max(e.exit_code for e in self.errors),
        )

    def list_errors(self) -> Sequence[UserError]:
        return self.errors


def raise_all(errors: Sequence[UserError]) -> None:
    """Raise the errors: none, the only one, or all of them together."""
    if not errors:
        return
    together = UserErrors(errors)
    raise together.errors[0] if len(together.errors) == 1 else together
