#!/usr/bin/env bash
# Make the environment of tflite-runtime 2.14: numpy < 2, and a Python that it has wheels for.
# usage: ci/make-tflite.sh PYTHON FOLDER
set -euo pipefail

for python in "$1" python3.11 python3.10; do
  if "$python" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; then
    "$python" -m venv "$2"
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check 'tflite-runtime==2.14.0' 'numpy<2'
    exit 0
  fi
done
echo "no Python 3.9 to 3.11 for tflite-runtime: its tests will be skipped" >&2
mkdir -p "$2"
