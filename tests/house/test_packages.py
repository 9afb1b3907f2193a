"""The mapping of folders to packages keeps its promises: guards, layers, and a stub that tells the truth."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pocketvlm

ROOT = Path(__file__).parents[2]


def package_dir() -> dict[str, str]:
    """PACKAGE_DIR of setup.py: package -> folder."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGE_DIR":
            mapping: dict[str, str] = ast.literal_eval(node.value)
            return mapping
    raise AssertionError("setup.py has no PACKAGE_DIR")


PACKAGES = package_dir()

# What stubtest sees in every pybind11 class: its metaclass, and an __init__ that raises if there is none.
PYBIND11_ITSELF = re.compile(
    r"metaclass differs$|__init__ is inconsistent, stub does not have \*args parameter"
)


def run_python(code: str, *, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` as a person would who started python in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=inherited | environment,
        check=False,
        capture_output=True,
        text=True,
    )


def test_every_folder_with_python_files_is_a_mapped_package() -> None:
    folders = {
        path.parent.relative_to(ROOT)
        for folder in PACKAGES.values()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {str(folder) for folder in folders} == set(PACKAGES.values())


@pytest.mark.parametrize(("package", "folder"), PACKAGES.items())
def test_a_folder_of_the_checkout_refuses_to_be_imported(package: str, folder: str) -> None:
    path = ROOT / folder
    result = run_python(f"import {path.name}", folder=path.parent)
    assert result.returncode == 1
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: ")
    assert package in last_line
    assert "install" in last_line


def test_the_tests_run_on_the_installed_wheel() -> None:
    assert ROOT not in Path(pocketvlm.__file__).resolve().parents or "site-packages" in pocketvlm.__file__


def test_importing_the_runtime_pulls_in_nothing_heavy(tmp_path: Path) -> None:
    """Stand-ins of the foreign packages are importable here, so that also a guarded import is noticed."""
    foreign = ["torch", "transformers", "onnx", "onnxruntime", "llama_cpp", "gguf"]
    for name in foreign:
        (tmp_path / f"{name}.py").write_text("")
    # Backends on foreign packages are imported when they are asked for.
    others = (
        "pocketvlm.export",
        "pocketvlm.benchmarks",
        "pocketvlm.demo_model",
        "pocketvlm.__main__",
        "pocketvlm.backends.onnx",
        "pocketvlm.backends.llama",
    )
    runtime = [
        module.name
        for module in pkgutil.walk_packages(pocketvlm.__path__, "pocketvlm.")
        if not module.name.startswith(others)
    ]
    assert "pocketvlm.engine" in runtime
    assert "pocketvlm.cli" in runtime
    forbidden = {*foreign, "pocketvlm.export", "pocketvlm.benchmarks", "pocketvlm.demo_model"}
    code = f"import sys, {', '.join(runtime)}; print(*(set(sys.modules) & {forbidden!r}))"
    result = run_python(code, folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_core_stub_matches_the_compiled_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy.stubtest", "pocketvlm._core", "--concise"]
    result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    differences = [line for line in result.stdout.splitlines() if not PYBIND11_ITSELF.search(line)]
    assert not differences, "\n".join(differences)
    assert not result.stderr
