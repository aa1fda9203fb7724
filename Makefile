# The two commands of the README. Each makes what it needs and nothing twice.
PYTHON ?= python3
VENV := .venv
TFLITE := .venv-tflite
TORCH := .venv-torch
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help bench test test-torch lint wheel clean

help:
	@echo "make bench   measure the embedded suites on this machine"
	@echo "make test    set up and run the whole test suite"
	@echo "make test-torch  the tests of PyTorch, in an environment of its own (needs pip to find a CPU build)"
	@echo "make lint    ruff and mypy"
	@echo "make wheel   build the wheel and test it in a clean environment"
	@echo "make clean   remove the environments and everything built"

bench: $(VENV)/.bench
	$(BIN)/pytest --mlbench suites/

test: $(VENV)/.test $(TFLITE)/.made lint
	$(BIN)/pytest tests fixtures/pytest-mlbench-qemu/tests -n 2 --dist loadfile -m 'not alone'
	$(BIN)/pytest tests -m alone
	if [ -x $(TFLITE)/bin/pytest ]; then $(TFLITE)/bin/pytest tests/contract -k tflite_runtime; fi

test-torch: $(TORCH)/.made
	$(TORCH)/bin/python -c 'import torch'
	$(TORCH)/bin/pytest tests/contract/test_frameworks.py tests/unit/test_adapters_torch.py tests/unit/test_suites_digits.py tests/integration/test_torch.py -k torch

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/.test
	PYTHON="$(PYTHON)" BUILD="$(BIN)/python" bash ci/test-wheel.sh

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pytest-mlbench needs Python 3.10 or newer: make PYTHON=/path/to/python")'
	bash ci/install-debian.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --upgrade pip
	touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml
	$(BIN)/python $(PIP) --editable '.[all]'
	touch $@

$(VENV)/.test: $(VENV)/.bench
	bash ci/install-debian.sh test
	$(BIN)/python $(PIP) --group test --group lint
	$(BIN)/python $(PIP) --editable fixtures/pytest-mlbench-qemu
	touch $@

# tflite-runtime 2.14 needs numpy < 2 and has wheels up to Python 3.11, so it lives in a place of its own.
$(TFLITE)/.made: $(VENV)/.made
	bash ci/make-tflite.sh "$(PYTHON)" "$(TFLITE)"
	touch $@

# PyTorch's default build is several GB of CUDA, so it has a place of its own.
$(TORCH)/.made: $(VENV)/.made
	bash ci/make-torch.sh "$(PYTHON)" "$(TORCH)"
	touch $@

clean:
	rm -rf $(VENV) $(TFLITE) $(TORCH) dist build .mlbench .pytest_cache .mypy_cache .ruff_cache
