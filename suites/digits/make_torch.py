"""Make `models/digits.pt2` again from `models/digits.onnx`: the same weights as an archive of torch.export.

Needs torch and onnx. The same version of PyTorch gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

NAME = "models/digits.pt2"


class Digits(torch.nn.Module):
    """The network of make_digits.py."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(8, 16, 3, padding=1)
        self.dense = torch.nn.Linear(64, 10)
        parts = {"w": "weight", "b": "bias"}  # digits.onnx has them as conv1.w, conv1.b, ...
        named = {f"{key[:-1]}{parts[key[-1]]}": value for key, value in weights.items()}
        self.load_state_dict(named)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {"logits": (N, 10)} of images (N, 1, 8, 8)."""
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv1(image)), 2)
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return {"logits": self.dense(x.flatten(1))}


def main() -> None:
    """Write the archive and its line of SHA256SUMS below --out (default: beside this file)."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=here)
    out: Path = parser.parse_args().out
    graph = onnx.load(here / "models/digits.onnx").graph
    net = Digits({one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}).eval()
    # Without a least size of 1 PyTorch takes a free dimension to be at least 2.
    free = {"image": {0: torch.export.Dim("N", min=1)}}
    program = torch.export.export(net, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=free)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of the sources here, and of PyTorch's
    (out / "models").mkdir(parents=True, exist_ok=True)
    torch.export.save(program, out / NAME)

    sums = out / "SHA256SUMS"
    lines = sums.read_text(encoding="ascii").splitlines() if sums.exists() else []
    digest = hashlib.sha256((out / NAME).read_bytes()).hexdigest()
    lines = [line for line in lines if not line.endswith(NAME)] + [f"{digest}  {NAME}"]
    sums.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    print(f"{NAME}: {(out / NAME).stat().st_size} bytes")


if __name__ == "__main__":
    main()
