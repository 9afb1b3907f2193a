#!/usr/bin/env bash
# Runs the tests of the C++ side against a core built with sanitizers: sanitize.sh PYTHON KIND, KIND being
# "address,undefined" or "thread". PYTHON is an environment with the installed wheel and its tests' needs; the wheel's
# Python files are used with the sanitized core. A finding ends the run with an error.
set -euo pipefail
python=$1
kind=$2
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/sanitize/${kind/,/-}
site=$build/site
mkdir -p "$build"

cmake -S "$root" -B "$build/core" -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DPOCKETVLM_SANITIZE="$kind" \
  -DPOCKETVLM_BUILD_TESTS=ON \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" > "$build/build.log"
cmake --build "$build/core" --parallel "$(nproc)" >> "$build/build.log"
"$build/core/differential"
installed=$("$python" -P -c 'import pathlib, pocketvlm; print(pathlib.Path(pocketvlm.__file__).parent)')
rm -rf "$site"
mkdir -p "$site"
cp -r "$installed" "$site/pocketvlm"
rm "$site"/pocketvlm/_core*.so
cp "$build"/core/_core*.so "$site/pocketvlm"

library() { "${CXX:-g++}" -print-file-name="$1"; }
case $kind in
  thread) preload=$(library libtsan.so) ;;
  *) preload="$(library libasan.so) $(library libubsan.so)" ;;
esac
# The interpreter does not free all it allocates, and libraries that are not instrumented look like races.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 die_after_fork=0"  # a test forks
export OPENBLAS_NUM_THREADS=1 PYTHONPATH=$site PYTHONSAFEPATH=1
# libstdc++ has to be there before a module throws through it. Left out: the 256M shape, which takes too long, tests
# that measure memory, which counts what sanitizers keep of their own, and what builds programs: one ran above, the
# other counts instructions.
LD_PRELOAD="$preload $(library libstdc++.so)" "$python" -m pytest "$root/tests/csrc" "$root/tests/model" \
  -m "not full" -k "not 256m and not hostile and not load_memory and not differential \
  and not instruction_counts" "${@:3}"
