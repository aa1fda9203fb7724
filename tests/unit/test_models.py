"""The file that a case loads: named, built, converted, compiled; each made once and kept by what it is made from."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns

import pytest

from pytest_mlbench import assets, models
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import AssetError, StageError, SuiteError, Unavailable
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import Case
from pytest_mlbench.models import ModelMaker
from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, ModelSpec, Quantize, ScenarioSpec, SuiteSpec

VENDOR = Path(__file__).parents[1] / "vendor"
DIGITS = Path(__file__).parents[2] / "suites" / "digits"
GRAPH = b"\x3a\x03\x12\x01g"  # the least ONNX file: a graph with a name
PLAIN = Framework("plain", "onnx", "mlbench_faulty_adapter", "json", install="pip install plain")
COMPILED = replace(PLAIN, name="compiled", compiles=True, distributions=("numpy",))
OPTIONS = {"fault": "none", "stage": "load"}
NETS = f"""
from pathlib import Path
def net(path, seed):
    with Path(__file__).with_name("built").open("a") as log: log.write(f"{{seed}}\\n")
    Path(path).write_bytes({GRAPH!r} + bytes([0x08, seed]))
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    for name in ("state", "cache"):
        monkeypatch.setenv(f"MLBENCH_{name.upper()}", str(tmp_path / name))
    monkeypatch.syspath_prepend(str(VENDOR))
    (tmp_path / "suite").mkdir()
    return tmp_path


@pytest.fixture
def suite(machine):
    (machine / "suite" / "nets.py").write_text(NETS, encoding="utf-8")
    return machine / "suite" / "bench_x.toml"


def case(suite, precision="fp32", python=None, **model):
    spec = ModelSpec("net", **model)
    framework = FrameworkSpec("plain", "plain", python=python)
    benchmark = BenchmarkSpec("b", ("net",), (framework,), (precision,), ("cpu",), timeout_s=60)
    whole = SuiteSpec("x", suite, {"net": spec}, {}, (benchmark,))
    return Case(whole, benchmark, spec, framework, precision, "cpu", 1, None, ScenarioSpec(), "net-plain-fp32-cpu")


def maker(suite, framework=PLAIN, **given):
    return ModelMaker(case(suite, **given), framework, Cpu(), perf_counter_ns, [str(suite.parent)])


def built(suite):
    log = suite.with_name("built")
    return log.read_text().split() if log.exists() else []


# --- named --------------------------------------------------------------------------------------------------


def test_a_file_that_the_suite_names(suite):
    path = suite.with_name("net.onnx")
    path.write_bytes(GRAPH)
    found = maker(suite, files={"onnx": {"fp32": path}}).resolve()
    assert (found.path, found.origin, dict(found.stages_ns)) == (path, "file", {})
    assert found.sha256 == hashlib.sha256(GRAPH).hexdigest()


def test_a_named_file_must_have_the_declared_hash(suite):
    path = suite.with_name("net.onnx")
    path.write_bytes(GRAPH)
    with pytest.raises(AssetError, match="the suite declares 0000"):
        maker(suite, files={"onnx": {"fp32": path}}, sha256={str(path): "0" * 64}).resolve()


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_precision_that_nothing_gives(suite, precision):
    with pytest.raises(SuiteError, match=f"model 'net' has no {precision} file for onnx"):
        maker(suite, precision=precision).resolve()


def test_a_model_is_built_as_onnx_only(suite):
    with pytest.raises(SuiteError, match="model 'net' has no fp32 file for tflite"):
        maker(suite, replace(PLAIN, format="tflite"), build="nets:net").resolve()


# --- built --------------------------------------------------------------------------------------------------


def test_a_built_model_is_kept_and_built_again_when_its_source_changes(suite):
    first = maker(suite, build="nets:net", seed=3).resolve()
    assert first.path.read_bytes() == GRAPH + b"\x08\x03"
    assert first.origin == "built by nets:net"
    assert first.sources == {"nets:net": hashlib.sha256(NETS.encode()).hexdigest()}
    assert first.stages_ns["build"] > 0
    again = maker(suite, build="nets:net", seed=3).resolve()
    assert (again.path, again.sha256, dict(again.stages_ns)) == (first.path, first.sha256, {})
    assert built(suite) == ["3"]
    other = maker(suite, build="nets:net", seed=4).resolve()
    assert other.path != first.path
    assert built(suite) == ["3", "4"]
    suite.with_name("nets.py").write_text(NETS + "# changed\n", encoding="utf-8")
    changed = maker(suite, build="nets:net", seed=3).resolve()
    assert changed.sources != first.sources
    assert built(suite) == ["3", "4", "3"]


def test_a_model_is_built_again_when_a_module_that_its_builder_imports_changes(suite):
    layers = suite.with_name("layers.py")
    layers.write_text("WIDTH = 8\n", encoding="utf-8")
    suite.with_name("nets.py").write_text("import layers\n" + NETS, encoding="utf-8")
    first = maker(suite, build="nets:net").resolve()
    assert first.made_by == {"nets": str(suite.with_name("nets.py")), "layers": str(layers)}
    assert first.sources["layers"] == hashlib.sha256(b"WIDTH = 8\n").hexdigest()
    maker(suite, build="nets:net").resolve()
    assert len(built(suite)) == 1
    layers.write_text("WIDTH = 9\n", encoding="utf-8")
    maker(suite, build="nets:net").resolve()
    assert len(built(suite)) == 2
    layers.unlink()
    with pytest.raises(StageError, match="No module named 'layers'"):
        maker(suite, build="nets:net").resolve()


def test_a_build_that_fails_leaves_nothing_that_passes_for_a_model(suite):
    suite.with_name("nets.py").write_text(NETS + "    raise OSError('half')\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(StageError, match="build: OSError: half"):
            maker(suite, build="nets:net").resolve()
    assert len(built(suite)) == 2


def test_a_build_that_writes_no_model_is_told(suite):
    suite.with_name("nets.py").write_text(
        "def net(path, seed):\n    open(path, 'wb').write(b'text')\n", encoding="utf-8"
    )
    with pytest.raises(AssetError, match="is truncated or not an ONNX model"):
        maker(suite, build="nets:net").resolve()


def test_two_processes_build_one_model_once(suite, machine):
    """The second waits for the first and takes what it made."""
    slow = NETS.replace("    Path(path).write", "    import time; time.sleep(0.5)\n    Path(path).write")
    suite.with_name("nets.py").write_text(slow, encoding="utf-8")
    code = "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]; import test_models\n"
    code += "print(test_models.maker(Path(sys.argv[1]), build='nets:net').resolve().path)"
    command = [sys.executable, "-c", code, str(suite), str(Path(__file__).parent), str(VENDOR)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in started}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes().startswith(GRAPH)
    assert len(built(suite)) == 1


# --- compiled -----------------------------------------------------------------------------------------------


@pytest.fixture
def source(suite):
    path = suite.with_name("net.json")
    path.write_text(json.dumps({"weights": [[1]]}), encoding="utf-8")
    return models.ModelFile(path, assets.sha256_of(path), {"build": 5}, "file", {"nets:net": "ab"})


def events(machine, monkeypatch):
    log = machine / "log"
    monkeypatch.setenv("MLBENCH_FAULTY_LOG", str(log))
    return lambda: log.read_text().count('"prepare"') if log.exists() else 0


def test_a_framework_that_does_not_compile_takes_the_file_as_it_is(suite, source):
    assert maker(suite).compile(source, OPTIONS) is source


def test_an_artefact_is_compiled_once(suite, source, machine, monkeypatch):
    count = events(machine, monkeypatch)
    first = maker(suite, COMPILED).compile(source, OPTIONS)
    assert first.path.name == "compiled.json"
    assert first.sha256 == source.sha256  # of what it was made from
    assert (first.origin, first.sources) == (source.origin, source.sources)
    assert first.stages_ns["build"] == 5
    assert first.stages_ns["compile"] > 0
    again = maker(suite, COMPILED).compile(source, dict(reversed(OPTIONS.items())))
    assert again == replace(first, stages_ns={"build": 5})
    assert count() == 1


@pytest.mark.parametrize("what", ["option", "model", "version", "processor", "adapter"])
def test_an_artefact_is_compiled_again_when_what_it_is_made_from_changes(suite, source, machine, monkeypatch, what):
    count = events(machine, monkeypatch)
    framework, device, options = COMPILED, Cpu(), dict(OPTIONS)
    ModelMaker(case(suite), framework, device, perf_counter_ns, [str(suite.parent)]).compile(source, options)
    if what == "option":
        options["level"] = 3
    elif what == "model":
        source = replace(source, sha256="other")
    elif what == "version":
        monkeypatch.setattr("importlib.metadata.version", lambda package: "99.0")
    elif what == "adapter":
        framework = replace(framework, shipped=("mlbench_faulty",))
    else:
        facts = {**device.facts(), "processor": "another"}
        device = type("Other", (Cpu,), {"facts": lambda self: facts})()
    ModelMaker(case(suite), framework, device, perf_counter_ns, [str(suite.parent)]).compile(source, options)
    assert count() == 2


def test_an_artefact_that_is_gone_is_compiled_again(suite, source, machine, monkeypatch):
    count = events(machine, monkeypatch)
    maker(suite, COMPILED).compile(source, OPTIONS).path.unlink()
    assert maker(suite, COMPILED).compile(source, OPTIONS).path.is_file()
    assert count() == 2


def test_a_compilation_that_fails_is_tried_again(suite, source, machine, monkeypatch):
    count = events(machine, monkeypatch)
    for _ in range(2):
        with pytest.raises(StageError, match="compile: RuntimeError: injected fault"):
            maker(suite, COMPILED).compile(source, {"fault": "raise", "stage": "prepare"})
    assert count() == 2
    with pytest.raises(Unavailable, match=r"mlbench_faulty_engine.*: pip install plain"):
        maker(suite, COMPILED).compile(source, {"fault": "no_module", "stage": "prepare"})


def test_the_version_of_a_framework_elsewhere_is_asked_for_there(suite, source, machine, monkeypatch):
    """The version of a package of this name in pytest's own environment says nothing of the other one."""
    asked = []
    monkeypatch.setattr("pytest_mlbench.registry.version", lambda framework: asked.append(framework) or "1.0")
    elsewhere = maker(suite, COMPILED, python=Path(sys.executable))
    assert elsewhere._version(COMPILED) == "[('faulty', '1.0'), ('numpy', '" + __import__("numpy").__version__ + "')]"
    assert asked == []


# --- converted ----------------------------------------------------------------------------------------------


def test_a_converted_model_is_kept(suite):
    recipes = {"fp16": Quantize("fp32", "float16")}
    given = {"precision": "fp16", "files": {"onnx": {"fp32": DIGITS / "models" / "digits.onnx"}}, "quantize": recipes}
    first = maker(suite, **given).resolve()
    assert first.origin == "float16 from fp32"
    assert first.stages_ns["convert"] > 0
    assert first.path.stat().st_size < (DIGITS / "models" / "digits.onnx").stat().st_size
    again = maker(suite, **given).resolve()
    assert (again.path, again.sha256, dict(again.stages_ns)) == (first.path, first.sha256, {})


def test_a_conversion_follows_its_source(suite):
    """A model made from a built one is made again when that is built anew; the stages of both are told."""
    recipes = {"fp16": Quantize("fp32", "float16")}
    nets = (
        "from onnx import TensorProto, helper, save\n"
        "def net(path, seed):\n"
        "    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in 'xy')\n"
        "    w = helper.make_tensor('w', TensorProto.FLOAT, [2, 2], [seed, 0, 0, 1])\n"
        "    graph = helper.make_graph([helper.make_node('MatMul', ['x', 'w'], ['y'])], 'g', [x], [y], [w])\n"
        "    save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)\n"
    )
    suite.with_name("nets.py").write_text(nets, encoding="utf-8")
    found = [
        maker(suite, precision="fp16", build="nets:net", seed=seed, quantize=recipes).resolve() for seed in (1, 1, 2)
    ]
    assert [set(each.stages_ns) for each in found] == [{"build", "convert"}, set(), {"build", "convert"}]
    assert found[0].path == found[1].path != found[2].path
    assert found[0].sources == {"nets:net": hashlib.sha256(nets.encode()).hexdigest()}


# --- images of boards ---------------------------------------------------------------------------------------

FIRMWARE = replace(PLAIN, name="firmware", format="firmware", on_board=True)


@dataclass(frozen=True)
class Board(Cpu):
    board: str = "nucleo_l4"

    def facts(self):
        return {"board": self.board} if self.board else {}


def image(suite, name="net.elf", content=b"image"):
    (suite.parent / name).write_bytes(content)
    return suite.parent / name


def resolved(suite, path, device=None, **model):
    files = {"firmware": {"fp32": path}} if path else {}
    given = case(suite, files=files, **model)
    return ModelMaker(given, FIRMWARE, device or Board(), perf_counter_ns, [str(suite.parent)]).resolve()


def test_an_image_is_that_of_the_devices_board(suite):
    image(suite, "net-nucleo_l4.elf", b"for L4"), image(suite, "net-nucleo_h7.elf", b"for H7")
    template = suite.parent / "net-{board}.elf"
    found = {board: resolved(suite, template, Board(board=board)) for board in ("nucleo_l4", "nucleo_h7")}
    assert {board: one.path.read_bytes() for board, one in found.items()} == {
        "nucleo_l4": b"for L4",
        "nucleo_h7": b"for H7",
    }
    assert len({one.sha256 for one in found.values()}) == 2


def test_a_board_that_the_suite_has_no_image_for(suite):
    with pytest.raises(AssetError, match=r"net-nucleo_l4\.elf"):
        resolved(suite, suite.parent / "net-{board}.elf")


@pytest.mark.parametrize("board", ["", "../../etc/passwd", "a/b"])
def test_a_device_whose_board_makes_no_path_is_refused(suite, board):
    with pytest.raises(SuiteError, match="is for a board type, and the device cpu names none; give it a `board`"):
        resolved(suite, suite.parent / "net-{board}.elf", Board(board=board))


@pytest.mark.parametrize("name", ["net.elf.json", "net.json"])
def test_the_sidecar_counts_as_part_of_the_image(suite, name):
    path = image(suite)
    alone = resolved(suite, path)
    (suite.parent / name).write_text("{}", encoding="utf-8")
    first = resolved(suite, path)
    (suite.parent / name).write_text('{"model": "x"}', encoding="utf-8")
    assert models.sidecar(path) == suite.parent / name
    assert len({alone.sha256, first.sha256, resolved(suite, path).sha256}) == 3


def test_an_images_digest_is_held(suite):
    path = image(suite)
    with pytest.raises(AssetError, match="sha256"):
        resolved(suite, path, sha256={str(path): "0" * 64})


def test_a_model_without_an_image_is_in_the_board_already(suite):
    found = resolved(suite, None)
    assert found.is_in_board
    assert found.origin == "in the board already"
    assert not resolved(suite, image(suite)).is_in_board
