"""The README and CONTRIBUTING name only commands, options, make targets and files that exist."""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pocketvlm
from pocketvlm.cli import _DEFAULT_COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md")
WITH_SUBCOMMANDS = ("export", "bench")


def code_of(page: str) -> list[str]:
    """Every line of a fenced block and every span of inline code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line.strip() for block in blocks for line in block.splitlines()] + spans


def commands_of(page: str, program: str) -> list[str]:
    return [line.removeprefix("$ ") for line in code_of(page) if re.match(rf"(\$ )?{program} ", line)]


@functools.cache
def help_of(*words: str) -> str:
    command = [sys.executable, "-m", "pocketvlm", *words, "--help"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(words)}: {result.stderr}"
    return result.stdout


COMMANDS = sorted({command for page in PAGES for command in commands_of(page, "pocketvlm")})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command: str) -> None:
    words = command.split("#")[0].split()[1:]
    path = words[: 2 if words[0] in WITH_SUBCOMMANDS else 1]
    if path[-1].startswith("-"):  # `bench --json FILE` is `bench run --json FILE`
        path[-1] = _DEFAULT_COMMANDS[path[0]]
    options = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(*path)))
    assert options <= known, f"pocketvlm {' '.join(path)} --help knows {sorted(known)}"


def test_the_readme_shows_every_command() -> None:
    shown = {tuple(re.findall(r"[a-z]+", command)[1:3]) for command in COMMANDS}
    for first in re.findall(r"^    ([a-z]+) ", help_of(), re.MULTILINE):
        if first in WITH_SUBCOMMANDS:
            for second in re.findall(r"^    ([a-z]+) ", help_of(first), re.MULTILINE):
                assert (first, second) in shown
        else:
            assert first in {words[0] for words in shown}


def test_the_python_examples_run(tiny_f32: Path, photo: Path) -> None:
    """One after the other, as they stand, but for the names of models and of the image."""
    text = (ROOT / "README.md").read_text()
    code = "".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    files = {
        "HuggingFaceTB/SmolVLM-256M-Instruct": tiny_f32,
        "checkpoints/SmolVLM-256M": tiny_f32,
        "photo.jpg": photo,
    }
    for name, path in files.items():
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', repr(str(path)))
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_the_json_fields_are_those_of_a_result() -> None:
    table = (ROOT / "README.md").read_text().split("`pocketvlm describe --json` prints:")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    shown = {field: text for first, text in rows for field in re.findall(r"`(\w+)`", first)}
    assert set(shown) == {field.name for field in dataclasses.fields(pocketvlm.GenerationResult)}
    for name, parts in (("timings", pocketvlm.Timings), ("memory", pocketvlm.Memory)):
        assert set(re.findall(r"`(\w+)`", shown[name])) == {field.name for field in dataclasses.fields(parts)}


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.split()[1] for command in commands_of(page, "make")}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """Inline code and links that look like a path of the tree."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build"}
    paths = [span for span in code_of(page) if re.fullmatch(r"[\w./-]+", span) and span.split("/")[0] in tops]
    missing = [path for path in [*links, *paths] if "/" in path and not (ROOT / path).exists()]
    assert not missing
