"""What reaches the terminal: errors, results, exit codes, and the answer to ^C."""

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
from kfdeploy.errors import DIFFERENCE, FAILED, INTERRUPTED, WRONG_USE, UserError

_ALIKE, _ALIKE_SHOWN = 5, 3


def _print_interrupt(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """^C while Python still reads the modules: no traceback, and Python ends as by the signal."""
    if issubclass(kind, KeyboardInterrupt):
        print(_INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


_INTERRUPTED = "interrupted; run the same command again to go on"
sys.excepthook = _print_interrupt


def run_command(command: Callable[[], int | None]) -> NoReturn:
    """Run the command line, and end with its exit code; the one place that prints errors."""
    # A command lives for seconds and makes few cycles: looking for them took a tenth of a render.
    gc.set_threshold(100_000, 20, 20)
    stop = _StopHandler()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # not under nohup
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)
    try:
        code = command() or 0
        if code == INTERRUPTED:  # typer makes an exit code of ^C itself
            raise KeyboardInterrupt
        sys.stdout.flush()
    except UserError as error:
        print_errors(error.list_errors())
        code = error.exit_code
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        code = FAILED
    except OSError as error:
        code = _report_machine_error(error)
    except Exception as error:
        if stop.was_signalled:
            print(_INTERRUPTED, file=sys.stderr)
            code = INTERRUPTED
        else:
            code = _report_usage_error(error)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it is done, and says so with its code
    gc.freeze()  # Python would look once more as it ends
    sys.exit(code)


class _StopHandler:
    """The answer to ^C and its like: KeyboardInterrupt.

    Where a class is being made, Python and pydantic turn that into errors of their own.

    Attributes:
        came: whether there was one.
    """

    was_signalled = False

    def __call__(self, number: int, frame: Any) -> NoReturn:
        self.was_signalled = True
        raise KeyboardInterrupt


def print_errors(errors: Sequence[UserError]) -> None:
    """Each error; those with the same hint share it, and of one registry's many a few will do."""
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
    """A full disk or a limit of this machine, wherever it was met; anything else is a bug."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE):
        raise error
    import tempfile

    _drop_output()
    where = f"{error.filename}: " if error.filename else ""
    print(f"error: {where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
    if not where:
        folder = tempfile.gettempdir()
        print(f"  hint: look at the disks of {folder} (TMPDIR) and of the output", file=sys.stderr)
    return FAILED


def _drop_output() -> None:
    """What is still to be flushed at the end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage_error(error: Exception) -> int:
    """Click's own errors about arguments; anything else is a bug and keeps its traceback."""
    import typer

    if isinstance(error, typer.Abort):  # ^C at a question
        print(_INTERRUPTED, file=sys.stderr)
        return INTERRUPTED
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "exit_code"):
        raise error
    show()
    return WRONG_USE


def exit_if_drift(check: bool, changed: bool) -> None:
    """A check that found something to change."""
    if check and changed:
        import typer

        raise typer.Exit(DIFFERENCE)


def print_json(data: Any) -> None:
    """Write a result, as `codec.to_json` has it, to stdout."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False, default=to_json)
    sys.stdout.write("\n")


def print_warnings(lines: Iterable[str]) -> None:
    """Lines to stderr."""
    sys.stderr.writelines(f"{line}\n" for line in lines)


def print_lines(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
