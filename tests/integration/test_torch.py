"""Whole sessions with PyTorch: precisions that are made and proved, and archives that do not fit.

They run in an environment that has PyTorch (`make test-torch`); onnxruntime's fp32 outputs are the reference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mlbench.stores import runfile

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore")

DIGITS = Path(__file__).parents[2] / "suites" / "digits"
SUITE = """
mlbench = 1
[[model]]
name = "net"
task = "image_classification"
files = { onnx = { fp32 = "digits.onnx" }, torch = { FILES } }
[dataset.digits]
file = "test.npz"
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]

[[benchmark]]
name = "b"
model = ["net"]
framework = ["torch", "onnxruntime"]
precision = ["fp32"]
dataset = "digits"
scenario = { kind = "single_stream", min_duration_s = 0.05, min_samples = 8, warmup_s = 0.01 }
reference = { framework = "onnxruntime", precision = "fp32" }
include = [INCLUDE]
exclude = [{ framework = "onnxruntime", reason = "the reference only" }]
[benchmark.expect]
accuracy = { top1 = ">= 0.97" }
compliance = ["timed_outputs"]
equivalence = { fp32 = { rtol = 1e-4, atol = 1e-4 }, "*" = { sqnr_db = ">= 30" } }
"""


@dataclass
class Bed:
    """A folder with a suite, and runs of it."""

    folder: Path

    def run(self, files='fp32 = "digits.pt2"', include=(), extra="") -> tuple[int, str, dict]:
        words = ", ".join(f'{{ framework = "torch", precision = "{precision}" }}' for precision in include)
        text = SUITE.replace("FILES", files).replace("INCLUDE", words)
        (self.folder / "bench_t.toml").write_text(text + extra, encoding="utf-8")
        plain = ["-p", "no:cacheprovider", "-p", "no:benchmark", f"--rootdir={self.folder}", "-rs"]
        command = [sys.executable, "-m", "pytest", "--mlbench", str(self.folder), "--mlbench-output=run.jsonl", *plain]
        environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
        environment |= {"MLBENCH_CACHE": str(self.folder / "cache"), "MLBENCH_STATE": str(self.folder / "state")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**environment, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        found = runfile.read(self.folder / "run.jsonl").records
        return (
            done.returncode,
            done.stdout,
            {record.axes["precision"]: record for record in found if record.axes["framework"] == "torch"},
        )


@pytest.fixture
def bed(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name in ("models/digits.onnx", "models/digits.pt2", "data/test.npz"):
        shutil.copyfile(DIGITS / name, tmp_path / Path(name).name)
    return Bed(tmp_path)


def export(path: Path, forward, width: int = 64) -> None:
    """Write an archive that takes images and gives ten logits."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(width, 10)

        def forward(self, image):
            return {"logits": forward(self.dense, image.flatten(1))}

    free = {"image": {0: torch.export.Dim("N", min=1)}}
    program = torch.export.export(Net().eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=free)
    torch.export.save(program, path)


def test_three_precisions_of_one_file_are_what_their_labels_say(bed):
    code, out, found = bed.run(include=("fp16", "bf16"))
    assert code == 0, out
    assert {precision: record.outcome for precision, record in found.items()} == dict.fromkeys(
        ("fp32", "fp16", "bf16"), "pass"
    )
    for precision, record in found.items():
        assert record.placement["precision"] == {precision: 1.0}
        assert record.placement["where"] == {"cpu": 1.0}
        assert record.placement["source"] == "torch dispatch of the exported graph"
        assert record.target["versions"]["torch"] == torch.__version__
        assert record.metric("accuracy.top1").value > 0.97
        assert record.metric("latency.p50").value > 0
        assert record.metric("memory.peak").value > 0
        size = (bed.folder / "digits.pt2").stat().st_size
        assert record.metric("model.size").value == size
    assert found["bf16"].placement["notes"]["converted"] == "fp32 to bf16"
    assert len({record.fingerprint for record in found.values()}) == 3


def test_arithmetic_that_the_archive_holds_in_fp32_fails_its_fp16_label(bed):
    export(bed.folder / "mixed.pt2", lambda dense, x: torch.nn.functional.linear(x.float(), dense.weight.float()))
    code, out, found = bed.run(files='fp32 = "mixed.pt2"', include=("fp16",))
    assert code == 1
    assert found["fp16"].outcome == "fail"
    assert "labelled fp16 but runs fp32: linear (aten.linear)" in out


def test_an_archive_that_does_not_take_the_cast_is_an_error_of_its_case(bed):
    export(bed.folder / "fixed.pt2", lambda dense, x: dense(x) @ torch.ones(10, 10))
    code, out, found = bed.run(files='fp32 = "fixed.pt2"', include=("bf16",))
    assert code != 0
    assert found["bf16"].outcome == "error"
    assert "same dtype" in out


def test_an_archive_in_training_mode_is_an_error_with_its_remedy(bed):
    export(bed.folder / "train.pt2", lambda dense, x: torch.dropout(dense(x), 0.5, True))
    code, out, found = bed.run(files='fp32 = "train.pt2"')
    assert code != 0
    assert (found["fp32"].outcome, found["fp32"].stage) == ("error", "load")
    assert "(aten::dropout) was exported in training mode: call model.eval() before torch.export.export" in out


def test_a_cut_archive_is_an_error_of_its_file(bed):
    whole = (bed.folder / "digits.pt2").read_bytes()
    (bed.folder / "digits.pt2").write_bytes(whole[: len(whole) // 2])
    code, out, found = bed.run()
    assert code != 0
    assert found["fp32"].outcome == "error"
    assert "digits.pt2 is no whole archive of torch.export (no zip, or cut short)" in out


def test_a_batch_outside_the_archives_range_says_how_to_export_it(bed):
    class Net(torch.nn.Module):
        def forward(self, image):
            return image.flatten(1)[:, :10]

    free = {"image": {0: torch.export.Dim("N", min=2)}}
    torch.export.save(
        torch.export.export(Net().eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=free), bed.folder / "two.pt2"
    )
    code, out, found = bed.run(files='fp32 = "two.pt2"')
    assert code != 0
    assert found["fp32"].outcome == "error"
    assert "where dimension 0 is at least 2 by the archive, and cannot take an array of shape (1, 1, 8, 8)" in out
    assert "torch.export.Dim('N', min=1)" in out
