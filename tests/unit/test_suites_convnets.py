"""The convnets suite: networks of the papers' sizes, the same for a seed, that answer their inputs."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

SUITE = Path(__file__).parents[2] / "suites" / "convnets"

# Published counts less, for each output channel of a convolution, the one parameter of batch
# normalisation's two that folding it into a bias saves. SqueezeNet has none.
PARAMETERS = {
    "mobilenet_v2": 3_504_872 - 17_056,
    "resnet18": 11_689_512 - 4_800,
    "squeezenet": 1_235_496,
}
CONVOLUTIONS = {"mobilenet_v2": 52, "resnet18": 20, "squeezenet": 26}


@pytest.fixture(scope="module")
def nets():
    spec = importlib.util.spec_from_file_location("convnets_nets", SUITE / "nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=sorted(PARAMETERS))
def built(request, nets, tmp_path_factory):
    """Build one network, once for all tests of it."""
    path = tmp_path_factory.mktemp(request.param) / "net.onnx"
    getattr(nets, request.param)(path, 1)
    return request.param, path


def test_parameters_are_the_papers_with_batch_normalisation_folded(built):
    name, path = built
    shapes = [tuple(weight.dims) for weight in onnx.load(path).graph.initializer]
    assert sum(math.prod(shape) for shape in shapes if shape) == PARAMETERS[name]


def test_every_convolution_has_a_bias(built):
    name, path = built
    convolutions = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert len(convolutions) == CONVOLUTIONS[name]
    assert all(len(node.input) == 3 for node in convolutions)


def test_input_and_output_have_a_free_batch_dimension(built):
    graph = onnx.load(built[1]).graph

    def told(value):
        sizes = value.type.tensor_type.shape.dim
        return (
            value.name,
            value.type.tensor_type.elem_type,
            [size.dim_param or size.dim_value for size in sizes],
        )

    assert [told(value) for value in graph.input] == [("image", onnx.TensorProto.FLOAT, ["N", 3, 96, 96])]
    assert [told(value) for value in graph.output] == [("logits", onnx.TensorProto.FLOAT, ["N", 1000])]


def test_a_seed_gives_the_same_bytes_and_another_seed_others(built, nets, tmp_path):
    name, path = built
    getattr(nets, name)(tmp_path / "again.onnx", 1)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    getattr(nets, name)(tmp_path / "other.onnx", 2)
    assert (tmp_path / "other.onnx").read_bytes() != path.read_bytes()


def test_outputs_are_finite_of_unit_size_and_differ_between_inputs(built):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(built[1], providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).standard_normal((8, 3, 96, 96), np.float32)
    (logits,) = session.run(["logits"], {"image": images})
    assert (logits.dtype, logits.shape) == (np.float32, (8, 1000))
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10
    # Not one answer for all: the spread of a logit over inputs is a fair part of its spread over classes.
    assert logits.std(axis=0).mean() > 0.2 * logits.std()
    assert len(set(logits.argmax(axis=1))) > 2
