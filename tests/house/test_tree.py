"""What may not stand in any file of the tree: paths of one machine, and hosts that belong into a setting."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

# One letter of each in brackets, so that this file passes its own test.
FORBIDDEN = re.compile(r"[p]ypi\.org|[p]ythonhosted|/[w]ork/|/[r]oot/|/tmp/[d]ev")
TEXT_SUFFIXES = {"", ".py", ".pyi", ".cc", ".h", ".inl", ".md", ".toml", ".txt", ".sh"}
MADE = {".git", "build", "dist", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", "__pycache__"}


def text_files() -> list[Path]:
    return [
        path
        for path in ROOT.rglob("*")
        if path.suffix in TEXT_SUFFIXES
        and not MADE & set(path.relative_to(ROOT).parts)
        and not any(part.endswith(".egg-info") for part in path.relative_to(ROOT).parts)
        and path.is_file()
    ]


def test_no_registry_hosts_and_no_paths_of_a_machine() -> None:
    files = text_files()
    assert ROOT / "README.md" in files
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_pattern_finds_what_it_is_for() -> None:
    assert FORBIDDEN.search("https://" + "pypi" + ".org/simple")
    assert FORBIDDEN.search("cd /wo" + "rk/main")
