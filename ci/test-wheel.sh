#!/usr/bin/env bash
# Build the wheel and run its tests in a clean environment, away from the sources.
set -euo pipefail

python=${PYTHON:-python3}
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf dist
"${BUILD:-$python}" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
wheel=$(ls "$root"/dist/*.whl)

"$python" -m venv "$work/venv"
bin=$work/venv/bin
"$bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$bin/python" -m pip install --quiet --disable-pip-version-check "$wheel[all]"
# A vendor's package, as its users install it: beside the wheel.
cp -r fixtures/pytest-mlbench-qemu "$work/"
"$bin/python" -m pip install --quiet --disable-pip-version-check "$work/pytest-mlbench-qemu"
# From pyproject.toml alone, so that the sources stay out of this environment.
cp pyproject.toml "$work/"
(cd "$work" && "$bin/python" -m pip install --quiet --disable-pip-version-check --group test)

cp -r tests suites "$work/"
cd "$work"
export MLBENCH_WHEEL="$wheel" MLBENCH_TFLITE_PYTHON="${MLBENCH_TFLITE_PYTHON:-$root/.venv-tflite/bin/python}"
"$bin/pytest" tests/packaging tests/plugin tests/contract -n 2 --dist loadfile "$@"
