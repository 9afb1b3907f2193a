# What a person runs here; `make help` lists it. Each works as the first command on a fresh clone that finds Python 3.11 or
# newer, a C++ compiler and CMake. Everything made lies under build/; stamp files there make the second run quick.

PYTHON ?= python3
IMAGE ?= examples/photo.jpg
LLAMA := llama-cpp-python==0.3.36

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PACKAGES := $(shell find runtime export benchmarks csrc examples/demo_model -type f -not -name '*.pyc' -not -path '*/checkpoint/*')
SOURCES := $(PACKAGES) setup.py pyproject.toml CMakeLists.txt README.md LICENSE
CXX_FILES := $(filter %.cc %.h %.inl,$(PACKAGES)) $(wildcard tests/csrc/differential/*.cc tests/csrc/differential/*.h tests/csrc/instruction_counts/*.cc)
WHEEL := build/wheels/pocketvlm-*.whl
PIP = bin/pip --disable-pip-version-check --quiet

.PHONY: help demo test test-full test-arm lint sanitize format clean tools

help:  ## list the commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 16

demo: build/demo/installed $(if $(MODEL),,build/demo/exported)  ## describe a picture: make demo [IMAGE=file] [MODEL=folder or hub id]
	@$(if $(MODEL),,printf '%s\n' '' \
	  'The weights of this model are synthetic: random numbers in the exact shape of SmolVLM-256M-Instruct.' \
	  'Times and memory are those of the real model; the answer below is noise. For a real answer, give a' \
	  'real checkpoint, a folder or a hub id: make demo MODEL=HuggingFaceTB/SmolVLM-256M-Instruct' \
	  'At the end a small model answers that was trained: it sees what we draw.')
	@printf '\n$$ build/demo/venv/bin/pocketvlm describe %s -m %s --max-new-tokens 48 --stats\n\n' '$(IMAGE)' $(or $(MODEL),build/demo/model)
	@build/demo/venv/bin/pocketvlm describe '$(IMAGE)' -m $(or $(MODEL),build/demo/model) --max-new-tokens 48 --stats
	@$(if $(MODEL),,printf '\n$$ build/demo/venv/bin/pocketvlm demo --out build/demo/picture.png\n\n'; \
	  build/demo/venv/bin/pocketvlm demo --out build/demo/picture.png)

test: build/test/installed build/llama/installed  ## build the wheel, install it, run every test against it
	$(call run_tests,-m "not full")

test-full: build/test/installed build/llama/installed build/converter/installed  ## as test, with the long ones
	$(call run_tests)

test-arm:  ## compile the core for AArch64 and compare its image kernels with the scalar ones, under qemu
	@missing=; for tool in cmake:cmake aarch64-linux-gnu-g++:g++-aarch64-linux-gnu qemu-aarch64:qemu-user; do \
	  command -v "$${tool%%:*}" >/dev/null || missing+=" $${tool#*:}"; done; \
	  [[ -z $$missing ]] || { echo "make: missing; install (names of Debian packages):$$missing" >&2; exit 1; }
	cmake -S . -B build/arm -DCMAKE_TOOLCHAIN_FILE=tests/csrc/differential/aarch64.cmake \
	  -DPOCKETVLM_PYTHON=OFF -DPOCKETVLM_BUILD_TESTS=ON
	cmake --build build/arm --parallel "$$(nproc)"
	qemu-aarch64 build/arm/differential | tee build/arm/differential.log
	@grep -q '^neon .* equal' build/arm/differential.log  # the row was there

lint: build/test/installed  ## ruff, mypy and clang-format, and nm over the objects of the vector kernels
	build/test/venv/bin/ruff check .
	build/test/venv/bin/ruff format --check .
	cd build/test && venv/bin/mypy --config-file ../../pyproject.toml --strict -p pocketvlm
	@echo "clang-format over $(words $(CXX_FILES)) files"; build/test/venv/bin/clang-format --dry-run -Werror $(CXX_FILES)
	build/test/venv/bin/python tests/house/check_isa_objects.py csrc build/temp.*

sanitize: build/test/installed  ## run the tests of the C++ side under ASan and UBSan, then under TSan
	@build/test/venv/$(PIP) install "$$(echo $(WHEEL))[sanitize]"
	tests/sanitize.sh $(CURDIR)/build/test/venv/bin/python address,undefined $(PYTEST_ARGS)
	tests/sanitize.sh $(CURDIR)/build/test/venv/bin/python thread $(PYTEST_ARGS)

format: build/test/installed  ## rewrite Python and C++ files in the house format
	build/test/venv/bin/ruff check --fix .
	build/test/venv/bin/ruff format .
	build/test/venv/bin/clang-format -i $(CXX_FILES)

clean:  ## remove everything that was made
	rm -rf build *.egg-info

# Tests see the installed wheel alone: PYTHONSAFEPATH keeps this folder off the path of every Python they start.
define run_tests
env -u PYTHONPATH PYTHONSAFEPATH=1 POCKETVLM_LLAMA_PYTHON=$(CURDIR)/build/llama/venv/bin/python \
  POCKETVLM_PEERS=$(CURDIR)/build/peers \
  POCKETVLM_CONVERTER=$(CURDIR)/build/converter/llama.cpp \
  POCKETVLM_CONVERTER_PYTHON=$(CURDIR)/build/converter/venv/bin/python \
  build/test/venv/bin/pytest $(1) $(PYTEST_ARGS)
endef

build/wheels/built: $(SOURCES) | tools
	@echo "Building the wheel"
	@rm -rf build/lib* build/bdist* $(WHEEL)  # setuptools would put files deleted since into the wheel
	@test -x build/wheels/venv/bin/pip || $(PYTHON) -m venv build/wheels/venv
	@build/wheels/venv/$(PIP) wheel --no-deps --wheel-dir build/wheels .
	@touch $@

build/demo/installed: build/wheels/built
	@echo "Installing it into build/demo/venv"
	@test -x build/demo/venv/bin/pip || $(PYTHON) -m venv build/demo/venv
	@build/demo/venv/$(PIP) install $(WHEEL)
	@build/demo/venv/$(PIP) install --no-deps --force-reinstall $(WHEEL)  # the version stays while sources change
	@touch $@

build/demo/exported: $(filter export/%,$(PACKAGES)) | build/demo/installed
	@echo "Making a checkpoint in the shape of SmolVLM-256M-Instruct and exporting it as q8_0"
	@build/demo/venv/bin/pocketvlm export synthetic 256m build/demo/smolvlm-256m-synthetic --force
	@build/demo/venv/bin/pocketvlm export gguf build/demo/smolvlm-256m-synthetic build/demo/model --type q8_0 --force
	@touch $@

build/test/installed: build/wheels/built
	@echo "Installing it into build/test/venv, with what tests and linters need"
	@test -x build/test/venv/bin/pip || $(PYTHON) -m venv build/test/venv
	@build/test/venv/$(PIP) install "$$(echo $(WHEEL))[test,lint]"
	@build/test/venv/$(PIP) install --no-deps --force-reinstall $(WHEEL)
	@touch $@

build/llama/installed: | tools
	@echo "Building $(LLAMA) for the comparison with llama.cpp: once, about four minutes"
	@test -x build/llama/venv/bin/pip || $(PYTHON) -m venv build/llama/venv
	@build/llama/venv/$(PIP) wheel --no-deps --find-links build/wheels --wheel-dir build/wheels $(LLAMA)
	@build/llama/venv/$(PIP) install --find-links build/wheels $(LLAMA)
	@touch $@

build/converter/installed: | tools
	@echo "Getting llama.cpp's converter, which needs torch, out of $(LLAMA): once"
	@rm -rf build/converter/llama.cpp build/converter/llama_cpp_python-*
	@test -x build/converter/venv/bin/pip || $(PYTHON) -m venv build/converter/venv
	@build/converter/venv/$(PIP) download --no-deps --no-binary llama-cpp-python --dest build/converter $(LLAMA)
	@mkdir build/converter/llama.cpp
	@tar -xzf build/converter/llama_cpp_python-*.tar.gz -C build/converter/llama.cpp --strip-components=3 --wildcards \
	  '*/vendor/llama.cpp/*.py'
	@build/converter/venv/$(PIP) install torch==2.13.0
	@build/converter/venv/$(PIP) install transformers==5.23.0 sentencepiece pyyaml requests
	@touch $@

tools:
	@need() { echo "make: $$1" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || need '$(PYTHON) is missing or older than Python 3.11; name another: make PYTHON=python3.12 ...'; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || need '$(PYTHON) cannot make virtual environments; install its venv module (Debian: python3-venv)'; \
	$(PYTHON) -c 'import sys, sysconfig, pathlib; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' \
	  || need '$(PYTHON) has no Python.h; install its headers (Debian: python3-dev)'; \
	command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
	  || need 'no C++ compiler found; install one (Debian: g++) or name it: CXX=... make ...'; \
	command -v cmake >/dev/null || need 'no CMake found; install it (Debian: cmake)'
