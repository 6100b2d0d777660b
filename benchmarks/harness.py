"""What the benchmarks share: their options, fair timing of several ways to do the same, and their report.

Ways take turns in one process, so that other load affects all equally, and each is compared with the first in the same
round. A report says the median and the quartiles of the rounds, on what machine they were, and with which options.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import define, field, frozen
from torch.utils.benchmark import timer

from robustok_core.values.devices import device_name

Clock = Literal["seconds", "processor_seconds"]


@frozen
class Spread:
    """The median and the quartiles of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(*values * 3)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def text(self, factor: float = 1.0) -> str:
        """ "1.52 (1.50 to 1.55)", each times `factor`."""
        middle, low, high = (number(factor * value) for value in (self.median, self.low, self.high))
        return f"{middle} ({low} to {high})" if low != high else middle


def number(value: float) -> str:
    """A number of three significant digits, without exponents."""
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3 if abs(value) >= 0.01 else 6
    return f"{value:,.{digits}f}"


@frozen(kw_only=True)
class Comparison:
    """Measured ways, the first of which the others are compared with.

    Attributes:
        seconds, processor_seconds: of each round, by way.
        peak_bytes: the most memory of a CUDA device at once, by way; none elsewhere.
        results: what each way returned last.
    """

    seconds: Mapping[str, Sequence[float]]
    processor_seconds: Mapping[str, Sequence[float]]
    peak_bytes: Mapping[str, int]
    results: Mapping[str, Any]

    def times_as_fast(self, clock: Clock = "seconds") -> dict[str, Spread]:
        """How many times as fast as the first way each is: of the times of the same round."""
        times = getattr(self, clock)
        first = next(iter(times.values()))
        return {
            name: Spread.of([one / other for one, other in zip(first, own, strict=True)]) for name, own in times.items()
        }

    def rates(self, amount: float, clock: Clock = "seconds") -> dict[str, Spread]:
        """How many of `amount` things a round each way does a second."""
        return {name: Spread.of([amount / value for value in own]) for name, own in getattr(self, clock).items()}


def compare(ways: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1) -> Comparison:
    """Runs each way once in each round, in turn.

    Args:
        ways: by name. rounds: that count. warm_up: rounds before them, which do not count.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    peaks, results, cuda = dict[str, int](), dict[str, Any](), torch.cuda.is_available()
    for turn in range(-warm_up, rounds):
        for name, way in ways.items():
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            processor, start = time.process_time(), timer()  # it waits for the device
            results[name] = way()
            duration = timer() - start
            if turn >= 0:
                spent[name].append((duration, time.process_time() - processor))
            if cuda:
                peaks[name] = max(peaks.get(name, 0), torch.cuda.max_memory_allocated())
    clocks = ({name: [pair[clock] for pair in pairs] for name, pairs in spent.items()} for clock in (0, 1))
    return Comparison(seconds=next(clocks), processor_seconds=next(clocks), peak_bytes=peaks, results=results)


@define
class Report:
    """What a benchmark found: a table in Markdown, and JSON.

    Attributes:
        options: of the command line. rows: of the table, by column. found: everything else, by name.
    """

    options: argparse.Namespace
    rows: list[dict[str, str]] = field(factory=list)
    found: dict[str, Any] = field(factory=dict)

    def compared(
        self,
        what: str,
        comparison: Comparison,
        *,
        amount: float = 1.0,
        unit: str = "",
        clock: Clock = "seconds",
        columns: Callable[[str], Mapping[str, str]] = lambda name: {},
    ) -> None:
        """Adds ways that were compared.

        Args:
            what: what they do. comparison: their times.
            amount, unit: how many of what a round makes, such as 8 "images"; without a unit, times are reported.
            clock: which time counts.
            columns: further columns of a way.
        """
        rates, faster = comparison.rates(amount, clock), comparison.times_as_fast(clock)
        times = {name: Spread.of(values) for name, values in getattr(comparison, clock).items()}
        entries = {}
        for name in rates:
            shown = {f"{unit}/s": rates[name].text()} if unit else {"ms": times[name].text(1e3)}
            shown["times as fast"] = faster[name].text() if len(rates) > 1 else ""
            peak = comparison.peak_bytes.get(name)
            shown["peak GiB"] = "" if peak is None else number(peak / 2**30)
            self.rows.append({"what": what, "way": name, **shown, **columns(name)})
            entries[name] = {
                "seconds": list(comparison.seconds[name]),
                "processor_seconds": list(comparison.processor_seconds[name]),
                "median_ms": 1e3 * times[name].median,
                "times_as_fast": faster[name].median,
                **({f"{unit}_per_second": rates[name].median} if unit else {}),
                **({} if peak is None else {"peak_bytes": peak}),
                **columns(name),
            }
        self.found[what] = entries

    def table(self) -> str:
        """The rows in Markdown; columns that are empty everywhere are left out."""
        names = [name for name in dict.fromkeys(name for row in self.rows for name in row) if self._used(name)]
        lines = [names, ["---"] * len(names), *([row.get(name, "") for name in names] for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _used(self, name: str) -> bool:
        return any(row.get(name) for row in self.rows)

    def content(self) -> dict[str, Any]:
        """Everything, for JSON."""
        options = {name: value for name, value in vars(self.options).items() if name not in ("json", "markdown")}
        return {"options": options, "machine": machine(self.options.device), **self.found}

    def finish(self) -> dict[str, Any]:
        """Prints the table and what is not in it, writes the files asked for, and returns the content."""
        content = self.content()
        if self.rows:
            print(self.table())
        compared = {row["what"] for row in self.rows}
        print(json.dumps({name: value for name, value in content.items() if name not in compared}, default=str))
        if self.options.json:
            self.options.json.write_text(json.dumps(content, indent=2, default=str) + "\n")
        if self.options.markdown:
            self.options.markdown.write_text(self.table() + "\n")
        return content


def machine(device: str) -> dict[str, Any]:
    """Where it was measured."""
    return {
        "device": device_name(torch.device(device)),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


class Parser(argparse.ArgumentParser):
    """The options of a benchmark. Whole numbers are given with their defaults: `Parser(__doc__, {"batch": 8}, ...)`.

    Args:
        doc: the script's docstring.
        sizes: options that are whole numbers, by name, with their defaults.
        quick: what `--quick` has instead of defaults.
        rounds: default of the rounds.
    """

    def __init__(
        self,
        doc: str | None,
        sizes: Mapping[str, int] = {},
        *,
        quick: Mapping[str, Any] = {},
        rounds: int = 5,
    ) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._quick = {"rounds": 1, "threads": 1, **quick}
        for name, default in {**sizes, "rounds": rounds}.items():
            self.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")
        if "threads" not in sizes:
            self.add_argument("--threads", type=int, help="of the CPU; default: all cores")
        self.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
        self.add_argument("--quick", action="store_true", help="tiny sizes, which only show that it runs")
        self.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
        self.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")

    def options(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """The options given, and the threads set."""
        if "--quick" in (sys.argv[1:] if arguments is None else arguments):
            self.set_defaults(**self._quick)
        options = self.parse_args(arguments)
        options.threads = options.threads or torch.get_num_threads()
        torch.set_num_threads(options.threads)
        return options


def autocast(device: str, precision: str) -> torch.autocast:
    """bfloat16 under autocast for the precision "bf16"; float32 for "no"."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
