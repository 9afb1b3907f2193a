"""Values of options: what is read, what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pocketvlm.errors import InputError
from pocketvlm.export.options import name_list, positive, require_writable


def test_a_list_keeps_its_order_and_says_each_name_once() -> None:
    assert name_list("--types", "q8_0, f32,q8_0", ["f32", "q8_0"]) == ["q8_0", "f32"]


def test_a_list_with_a_name_that_is_not_known() -> None:
    with pytest.raises(InputError, match="--types: found 'q9', expected some of f32,q8_0"):
        name_list("--types", "f32,q9", ["f32", "q8_0"])


def test_a_number_under_one() -> None:
    assert positive("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="found 0, expected at least 1"):
        positive("0")


def test_a_file_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    require_writable(tmp_path / "new.json")
    for path in (tmp_path, tmp_path / "missing" / "new.json"):
        with pytest.raises(InputError, match="expected a file in a folder that is there"):
            require_writable(path)
