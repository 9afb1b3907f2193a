"""The nm gate notices what it is there for, and ISA files include nothing that could bring it about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATE = Path(__file__).parent / "check_isa_objects.py"
ISA_FILES = sorted(path for prefix in ("x86", "arm") for path in ROOT.glob(f"csrc/kernels/**/{prefix}_*.cc"))

CLEAN = "namespace { float twice(float x) { return x + x; } }  float entry(float x) { return twice(x); }"
LEAKS = {
    "a template": "template <typename T> __attribute__((noinline)) T twice(T x) { return x + x; }\n"
    "float entry(float x) { return twice(x); }",
    "an inline function": "__attribute__((noinline)) inline float twice(float x) { return x + x; }\n"
    "float entry(float x) { return twice(x); }",
    "an inline variable": "inline int calls = 0;  int entry() { return ++calls; }",
}


def run_gate(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Compile `code` as the one ISA kernel of a made-up source tree and run the gate over it."""
    kernels = folder / "csrc" / "kernels" / "gemm"
    kernels.mkdir(parents=True)
    objects = folder / "build" / "some.dir" / "csrc" / "kernels" / "gemm"
    objects.mkdir(parents=True)
    prefix = "arm" if os.uname().machine in ("aarch64", "arm64") else "x86"
    source = kernels / f"{prefix}_made_up.cc"
    source.write_text(code)
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "clang++"
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-c", source, "-o", objects / f"{source.name}.o"], check=True
    )
    return gate(folder)


def gate(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GATE), str(folder / "csrc"), str(folder / "build")]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_gate_passes_a_clean_object(tmp_path: Path) -> None:
    result = run_gate(tmp_path, CLEAN)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 objects" in result.stdout


@pytest.mark.parametrize("code", LEAKS.values(), ids=LEAKS.keys())
def test_gate_notices(tmp_path: Path, code: str) -> None:
    result = run_gate(tmp_path, code)
    assert result.returncode == 1
    assert "made_up.cc.o: " in result.stdout


def test_gate_does_not_pass_an_object_that_is_not_there(tmp_path: Path) -> None:
    run_gate(tmp_path, CLEAN)
    shutil.rmtree(tmp_path / "build")
    (tmp_path / "build").mkdir()
    result = gate(tmp_path)
    assert result.returncode == 1
    assert "no object of" in result.stderr


@pytest.mark.parametrize("path", ISA_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_isa_files_include_no_std_header(path: Path) -> None:
    """Intrinsics, C headers that define nothing, and headers of this project that keep to the same."""
    allowed = {"cstdint", "cstddef", "cstring", "immintrin.h", "arm_neon.h"}
    pending, seen = [path], set()
    while pending:
        file = pending.pop()
        seen.add(file)
        text = file.read_text()
        foreign = set(re.findall(r"#\s*include\s*<([^>]+)>", text)) - allowed
        assert not foreign, f"{file.relative_to(ROOT)} includes {sorted(foreign)}"
        for name in re.findall(r'#\s*include\s*"([^"]+)"', text):
            header = next(place / name for place in (file.parent, ROOT / "csrc") if (place / name).exists())
            if header not in seen:
                pending.append(header)


def test_there_are_isa_files() -> None:
    assert ISA_FILES
