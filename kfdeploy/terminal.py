"""Print errors and results, set exit codes, and handle ^C."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NoReturn

from kfdeploy.codec import to_json
from kfdeploy.errors import DIFFERENCE, DONE, FAILED, INTERRUPTED, WRONG_USE, UserError
from kfdeploy.files import STOP_SIGNALS

_ALIKE, _ALIKE_SHOWN = 5, 3


def _print_interrupt(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print no traceback for ^C while Python imports modules; Python ends as by the signal."""
    if issubclass(kind, KeyboardInterrupt):
        print(_INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


_INTERRUPTED = "interrupted; run the same command again to go on"
sys.excepthook = _print_interrupt


def run_command(command: Callable[[], int | None]) -> NoReturn:
    """Run the command line and end with its exit code; the only place that prints errors."""
    # A command lives for seconds and makes few cycles: looking for them took a tenth of a render.
    gc.set_threshold(100_000, 20, 20)
    stop = _StopHandler()
    for number in STOP_SIGNALS:
        # A signal that is ignored stays so: nohup ignores SIGHUP.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)
    code = _run_reporting_errors(command, stop)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the exit code tells how it ended
    gc.freeze()  # Python would look for cycles once more as it ends
    sys.exit(code)


def _run_reporting_errors(command: Callable[[], int | None], stop: _StopHandler) -> int:
    """Run a command, print what it raises, and return the exit code."""
    try:
        code = command() or DONE
        if code == INTERRUPTED:  # typer turns ^C into an exit code
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code
    except UserError as error:
        print_errors(error.list_errors())
        return error.exit_code
    except KeyboardInterrupt:
        return _report_interrupt()
    except BrokenPipeError:
        _drop_output()
        return FAILED
    except OSError as error:
        return _report_machine_error(error)
    except Exception as error:
        return _report_interrupt() if stop.was_signalled else _report_usage_error(error)


def _report_interrupt() -> int:
    print(_INTERRUPTED, file=sys.stderr)
    return INTERRUPTED


class _StopHandler:
    """Turns ^C and its like into KeyboardInterrupt.

    Where a class is being made, Python and pydantic turn that into errors of their own, so it is
    noted here.

    Attributes:
        was_signalled: whether a signal came.
    """

    was_signalled = False

    def __call__(self, number: int, frame: Any) -> NoReturn:
        self.was_signalled = True
        raise KeyboardInterrupt


def print_errors(errors: Sequence[UserError]) -> None:
    """Print errors to stderr. Those in a row with the same hint share it.

    Of many errors of one registry that tell nothing about their images, a few are printed.
    """
    for hint, group in groupby(errors, key=lambda error: error.hint):
        alike = list(group)
        # A registry that says the same to each of a hundred questions.
        is_one_matter = len(alike) > _ALIKE and all(
            getattr(e, "is_inconclusive", False) for e in alike
        )
        shown = alike[:_ALIKE_SHOWN] if is_one_matter else alike
        for error in shown:
            print(f"error: {error.message}", file=sys.stderr)
        if is_one_matter:
            print(f"  and {len(alike) - len(shown)} more like these", file=sys.stderr)
        if hint:
            print(f"  hint: {hint}", file=sys.stderr)


def _report_machine_error(error: OSError) -> int:
    """Print an error about a full disk or a limit of this machine; anything else is a bug."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE):
        raise error
    import tempfile

    _drop_output()
    where = f"{error.filename}: " if error.filename else ""
    print(f"error: {where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
    if not where:
        folder = tempfile.gettempdir()
        print(
            f"  hint: check the free space of {folder} (TMPDIR) and of the output", file=sys.stderr
        )
    return FAILED


def _drop_output() -> None:
    """Discard output that would be flushed at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage_error(error: Exception) -> int:
    """Print click's own errors about arguments; anything else is a bug and keeps its traceback."""
    import typer

    if isinstance(error, typer.Abort):  # ^C at a question
        return _report_interrupt()
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "exit_code"):
        raise error
    show()
    return WRONG_USE


def exit_if_drift(check: bool, changed: bool) -> None:
    """End with exit code 3 if a check found something to change."""
    if check and changed:
        import typer

        raise typer.Exit(DIFFERENCE)


def print_json(data: Any) -> None:
    """Write a result, as `codec.to_json` has it, to stdout."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False, default=to_json)
    sys.stdout.write("\n")


def print_warnings(lines: Iterable[str]) -> None:
    """Print lines to stderr."""
    sys.stderr.writelines(f"{line}\n" for line in lines)


def print_lines(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
