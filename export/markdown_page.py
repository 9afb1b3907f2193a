"""Tables in Markdown, and pages that show one between two markers: written by a program, never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .options import require_writable


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a Markdown table, aligned for terminals too: names to the left, figures to the right."""
    widths = [max(3, *map(len, column)) for column in zip(headings, *rows, strict=True)]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (headings, rule, *rows)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def find_part(page: str, name: str, where: str) -> tuple[int, int]:
    """Returns where in the text of a page the part between `<!-- name -->` and `<!-- /name -->` lies.

    Raises:
        InputError: The markers are not there, each once and in this order. `where` names the page.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    begin, end = page.find(first), page.find(last)
    if page.count(first) != 1 or page.count(last) != 1 or end < begin:
        raise InputError(f"{where}: expected one line {first} and after it one line {last}")
    return begin + len(first), end


def require_part(path: Path, name: str) -> None:
    """Raises InputError unless `replace_part` can be done: to be known before hours of work."""
    require_writable(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file to put the tables into")
    find_part(path.read_text(encoding="utf-8"), name, str(path))


def replace_part(path: Path, name: str, text: str) -> None:
    """Puts a text between the markers of a page. Errors as `find_part`."""
    page = path.read_text(encoding="utf-8")
    begin, end = find_part(page, name, str(path))
    path.write_text(f"{page[:begin]}\n{text}\n{page[end:]}", encoding="utf-8")
