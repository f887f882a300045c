"""Arguments, exit codes, and what goes where."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ..errors import BrickworkError, CheckpointError
from ..io._convert import FORMATS, convert
from ..io._source import UnverifiableError
from ._compare import diff
from ._entries import open_file, show_size, working
from ._inspect import inspect

_EXIT = (
    "exit codes: 0 all is well; 1 the files differ, or the file is damaged; 2 wrong usage, or a file that can't be read"
)


_WIDTH = 160  # of what goes into files and pipes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: those after the program's name; by default those of the process.
    """
    given = _parser().parse_args(arguments)
    try:
        return given.run(given)
    except BrokenPipeError:  # of a reader that has seen enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (BrickworkError, OSError) as error:
        if given.json:
            _print({"error": str(error)})
        else:
            Console(stderr=True).print(Text(f"brickwork {given.command}: {error}", style="red"), soft_wrap=True)
        return 1 if given.command == "verify" and not isinstance(error, (FileNotFoundError, PermissionError)) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("brickwork", description="Look into checkpoints of any format.", epilog=_EXIT)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=summary, description=summary, epilog=_EXIT)
        found.add_argument("--json", action="store_true", help="print JSON")
        found.set_defaults(run=run)
        return found

    it = command("inspect", _inspect, "Show names, shapes, dtypes, sizes, ties and metadata of a file.")
    it.add_argument("file", metavar="FILE")
    it.add_argument("--stats", action="store_true", help="also the minimum, mean, maximum and number of NaNs")
    it.add_argument("--tree", action="store_true", help="show names as a tree with sizes")
    it = command("convert", _convert, "Write the contents of a file in another format.")
    it.add_argument("input", metavar="IN")
    it.add_argument("output", metavar="OUT")
    it.add_argument("--to", choices=FORMATS, help="the format of OUT; found from its ending by default")
    it.add_argument("--force", action="store_true", help="replace OUT if it exists")
    it = command("diff", _diff, "Compare two files: names, shapes, dtypes, and the largest differences.")
    it.add_argument("first", metavar="A")
    it.add_argument("second", metavar="B")
    it = command("verify", _verify, "Read a whole file and compare it with its checksums.")
    it.add_argument("file", metavar="FILE")
    return parser


def _print(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()  # here, where a closed pipe is expected


def _show(given: argparse.Namespace, report: dict[str, Any], text: Any) -> None:
    if given.json:
        _print(report)
    else:
        width = None if sys.stdout.isatty() else _WIDTH
        Console(width=width).print(text, soft_wrap=isinstance(text, Text))


def _inspect(given: argparse.Namespace) -> int:
    _show(given, *inspect(given.file, stats=given.stats, tree=given.tree))
    return 0


def _diff(given: argparse.Namespace) -> int:
    report, text = diff(given.first, given.second)
    _show(given, report, text)
    return 0 if report["equal"] else 1


def _verify(given: argparse.Namespace) -> int:
    try:
        with working(given.file, "reading all bytes"):
            contents, entries = open_file(given.file, verify=True)
        found = "intact"
    except UnverifiableError:
        contents, entries = open_file(given.file)
        found = "well-formed, but without checksums: damage inside of arrays can't be seen"
    count, size = sum(e.is_array and not e.tied for e in entries), sum(e.nbytes for e in entries)
    report = {"file": given.file, "kind": contents.kind, "arrays": count, "bytes": size, "checksums": found == "intact"}
    _show(given, report, Text(f"{given.file}: {found} ({contents.kind}, {count} arrays, {show_size(size)})"))
    return 0


def _convert(given: argparse.Namespace) -> int:
    if os.path.exists(given.output) and not given.force:
        raise CheckpointError(f"{given.output} exists; --force replaces it")
    with working(given.input, "writing"):
        kind, written = convert(given.input, given.output, given.to)
    report = {"input": given.input, "output": given.output, "from": kind, "to": written}
    _show(given, report, Text(f"{given.output}: {written}, from {given.input} ({kind})"))
    return 0
