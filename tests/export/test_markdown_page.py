"""A page gets its table between its markers, and keeps everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvlm.errors import InputError
from pocketvlm.export.markdown_page import markdown_table, replace_part, require_part

BEGIN, END = "<!-- speed -->", "<!-- /speed -->"


def test_a_table_is_aligned_for_a_terminal() -> None:
    assert markdown_table(["a", "one", "figure"], [["long name", "1", "2.5"], ["b", "10,000", ""]]) == (
        "| a         |    one | figure |\n"
        "| --------- | -----: | -----: |\n"
        "| long name |      1 |    2.5 |\n"
        "| b         | 10,000 |        |"
    )


def test_a_page_keeps_everything_around_its_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter <!-- other -->\n")
    for _ in range(2):
        require_part(page, "speed")
        replace_part(page, "speed", "| new |")
        assert page.read_text() == f"# Before\n\n{BEGIN}\n| new |\n{END}\n\nAfter <!-- other -->\n"


@pytest.mark.parametrize("content", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_a_page_without_a_place_for_the_table(content: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    for put in (lambda: require_part(page, "speed"), lambda: replace_part(page, "speed", "new")):
        with pytest.raises(InputError, match="expected one line"):
            put()
    assert page.read_text() == content


def test_a_page_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        require_part(tmp_path / "page.md", "speed")
