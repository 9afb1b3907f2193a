"""Builds the compiled module, one CMake run behind setuptools' build_ext, and maps folders to packages."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configures and builds the CMake target `_core` and puts the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        destination = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build_folder = Path(self.build_temp).resolve()
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build_folder),
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={destination}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]
        jobs = str(self.parallel or os.cpu_count() or 1)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build_folder), "--parallel", jobs], check=True)


PACKAGE_DIR = {
    "pocketvlm": "runtime",
    "pocketvlm.backends": "runtime/backends",
    "pocketvlm.export": "export",
    "pocketvlm.export.onnx": "export/onnx",
    "pocketvlm.benchmarks": "benchmarks",
    "pocketvlm.benchmarks.conversions": "benchmarks/conversions",
    "pocketvlm.benchmarks.subjects": "benchmarks/subjects",
    "pocketvlm.demo_model": "examples/demo_model",
}
# The demo model is installed as it is run; the checkpoint that it was exported from stays in the repository.
PACKAGE_DATA = {
    "pocketvlm": ["py.typed", "_core.pyi"],
    "pocketvlm.export": ["FORMAT.md", "ONNX.md", "PARITY.md", "data/*/*"],
    "pocketvlm.benchmarks": ["run.schema.json"],
    "pocketvlm.demo_model": ["words.txt", "fonts/*", "model/*"],
}

setup(
    package_dir=PACKAGE_DIR,
    packages=list(PACKAGE_DIR),
    package_data=PACKAGE_DATA,
    ext_modules=[Extension("pocketvlm._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
