# The two commands of the README. Each makes what it needs and nothing twice.
PYTHON ?= python3
VENV := .venv
TFLITE := .venv-tflite
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help bench test lint wheel clean

help:
	@echo "make bench   measure the embedded suites on this machine"
	@echo "make test    set up and run the whole test suite"
	@echo "make lint    ruff and mypy"
	@echo "make wheel   build the wheel and test it in a clean environment"
	@echo "make clean   remove the environments and everything built"

bench: $(VENV)/.bench
	$(BIN)/pytest --mlbench suites/

test: $(VENV)/.test $(TFLITE)/.made lint
	$(BIN)/pytest tests -n 2 --dist loadfile --ignore tests/integration
	$(BIN)/pytest tests/integration
	if [ -x $(TFLITE)/bin/pytest ]; then $(TFLITE)/bin/pytest tests/contract -k tflite_runtime; fi

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
	touch $@

# tflite-runtime 2.14 needs numpy < 2 and has wheels up to Python 3.11, so it lives in a place of its own.
$(TFLITE)/.made: $(VENV)/.made
	bash ci/make-tflite.sh "$(PYTHON)" "$(TFLITE)"
	touch $@

clean:
	rm -rf $(VENV) $(TFLITE) dist build .mlbench .pytest_cache .mypy_cache .ruff_cache
