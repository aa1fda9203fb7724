#!/usr/bin/env bash
# Make the environment of tflite-runtime 2.14: numpy < 2, and a Python that it has wheels for. The project and
# its test tools go in too (onnxruntime is their oracle), so that the frameworks' contract is tested there as well.
# usage: ci/make-tflite.sh PYTHON FOLDER
set -euo pipefail

pip=(-m pip install --quiet --disable-pip-version-check)
for python in "$1" python3.11 python3.10; do
  if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; then
    "$python" -m venv "$2"
    "$2/bin/python" "${pip[@]}" --upgrade pip
    "$2/bin/python" "${pip[@]}" --editable '.[tflite,onnxruntime]' --group test
    exit 0
  fi
done
if [ "${MLBENCH_REQUIRE_ALL:-}" = 1 ]; then
  echo "no Python 3.10 or 3.11 for tflite-runtime, and MLBENCH_REQUIRE_ALL=1 demands it" >&2
  exit 1
fi
echo "no Python 3.10 or 3.11 for tflite-runtime: its tests will be skipped" >&2
mkdir -p "$2"
