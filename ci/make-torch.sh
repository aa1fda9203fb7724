#!/usr/bin/env bash
# Make the environment of PyTorch with the project and its test tools (onnxruntime is the oracle). Only a build for
# the processor is installed, never by accident the several GB of CUDA that the default build brings on Linux: pip
# must know an index that has it (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS; see PyTorch's page "Get started").
# MLBENCH_TORCH names another requirement: MLBENCH_TORCH=torch==2.13.0 takes the default build.
# usage: ci/make-torch.sh PYTHON FOLDER
set -euo pipefail

requirement=torch==2.13.0+cpu
[ "$(uname -s)" = Linux ] || requirement=torch==2.13.0  # elsewhere the default build has no CUDA
requirement=${MLBENCH_TORCH:-$requirement}
pip=(-m pip install --quiet --disable-pip-version-check)
"$1" -m venv "$2"
"$2/bin/python" "${pip[@]}" --upgrade pip
if ! "$2/bin/python" "${pip[@]}" --dry-run --no-deps "$requirement"; then
  echo "pip finds no $requirement for $("$1" --version): name an index that has it in PIP_EXTRA_INDEX_URL, or take" \
    "the default build with MLBENCH_TORCH=torch==2.13.0" >&2
  exit 1
fi
"$2/bin/python" "${pip[@]}" "$requirement" --editable '.[torch,onnxruntime]' --group test
