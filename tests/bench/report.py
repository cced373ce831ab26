"""The results as a table."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.measure import Samples
from tests.bench.result import Result

_HEAD = ("benchmark", "release", "ours", "", "against", "", "value", "target", "", "cpu")


def table(results: Sequence[Result]) -> list[str]:
    """Lines with columns; the first is the head."""
    rows = [_HEAD, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(result: Result) -> tuple[str, ...]:
    name, number = _side(result.ours, result.unit)
    other, their_number = _side(result.theirs, result.unit) if result.theirs else ("", "")
    state = {True: "met", False: "NOT MET", None: ""}[result.is_met]
    target = "" if result.target is None else f"<= {_show(result, result.target)}"
    value = _show(result, result.value)
    return (
        *(result.benchmark, result.release, name, number, other, their_number),
        *(value, target, state),
        "" if result.cpu_ratio is None else _ratio(result.cpu_ratio),
    )


def _side(samples: Samples, unit: str) -> tuple[str, str]:
    return samples.name, f"{_number(samples.median, unit)} {unit}"


def _number(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "s" else f"{value:.0f}"


def _show(result: Result, value: float) -> str:
    if result.kind == "ratio":
        return _ratio(value)
    return f"{_number(value, result.unit)} {result.unit}"


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value >= 0.1 else f"{value:.3f}x"
