"""Build ONNX files with the shapes of three known convolutional networks and seeded random weights.

The weights are not trained: the files serve speed and output equivalence, never accuracy. Batch
normalisation is folded, so each convolution has a bias. Left to itself, a deep random network answers every
input alike, because the positive mean after each ReLU outweighs what differs. So kernels are centred over
their input channels (Huang et al., arXiv:1710.02338), which cancels that mean, and gains keep activations
near unit size.

All take "image", float32 [N, 3, 96, 96], and give "logits", float32 [N, 1000].
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 96
CLASSES = 1000
OPSET = 17
IR_VERSION = 8  # of opset 17; the oldest that carries it, for the widest choice of frameworks

# expansion, channels, repeats, stride of the first: table 2 of Sandler et al., arXiv:1801.04381
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# squeeze and expand channels of each fire module: version 1.1 of Iandola et al., arXiv:1602.07360
SQUEEZENET = ("pool", (16, 64), (16, 64), "pool", (32, 128), (32, 128), "pool")
SQUEEZENET += ((48, 192), (48, 192), (64, 256), (64, 256))
# Gains. Of unit normal numbers a ReLU keeps half the power, and without its mean (pi - 1) / (2 pi) of it.
RELU, LINEAR = math.sqrt(2 * math.pi / (math.pi - 1)), 1.0
BRANCH = 0.5  # factor where the result is added to a shortcut


class Graph:
    """Collect nodes and weights of one network; methods take a tensor's name and return the new one's."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels = {"image": 3}

    def add(self, op: str, inputs: list[str], channels: int, **attributes: object) -> str:
        """Append one node and name its output after it."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        self.channels[name] = channels
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        """Append one initializer."""
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def parameters(self, shape: tuple[int, ...], gain: float) -> list[str]:
        """Append a seeded weight of variance gain^2 / fan-in (He et al., arXiv:1502.01852), and a bias."""
        prefix = f"layer_{len(self.weights) // 2}"
        kernel = self.rng.standard_normal(shape)
        if shape[1] > 3:  # not where it sees the image, nor where it sees one channel only
            kernel -= kernel.mean(axis=1, keepdims=True)
        kernel *= gain / math.sqrt(math.prod(shape[1:]))
        bias = 0.02 * self.rng.standard_normal(shape[0])
        return [self.weight(f"{prefix}.weight", kernel), self.weight(f"{prefix}.bias", bias)]

    def conv(
        self,
        x: str,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        gain: float = RELU,
        **more: object,
    ) -> str:
        """Append a convolution with a bias that pads by half its kernel, unless `more` attributes differ."""
        weight, bias = self.parameters((out, self.channels[x] // groups, kernel, kernel), gain)
        attributes = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        return self.add("Conv", [x, weight, bias], out, **{**attributes, **more})

    def relu(self, x: str) -> str:
        """Append a ReLU."""
        return self.add("Relu", [x], self.channels[x])

    def pool(self, x: str, pad: int = 0) -> str:
        """Append a max pool of 3 x 3 with stride 2."""
        return self.add("MaxPool", [x], self.channels[x], kernel_shape=[3, 3], strides=[2, 2], pads=[pad] * 4)

    def mean(self, x: str) -> str:
        """Append the mean over height and width and drop those two dimensions."""
        pooled = self.add("GlobalAveragePool", [x], self.channels[x])
        return self.add("Flatten", [pooled], self.channels[x], axis=1)

    def dense(self, x: str, out: int) -> str:
        """Append a fully connected layer."""
        parameters = self.parameters((out, self.channels[x]), LINEAR)
        return self.add("Gemm", [x, *parameters], out, transB=1)

    def save(self, last: str, path: str | Path) -> None:
        """Name the last tensor "logits", check the model and write it; the same seed gives the same bytes."""
        self.nodes[-1].output[:] = ["logits" if name == last else name for name in self.nodes[-1].output]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
        graph = helper.make_graph(self.nodes, self.name, [image], [logits], self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="nets")
        onnx.checker.check_model(model, full_check=True)
        Path(path).write_bytes(model.SerializeToString(deterministic=True))


def _relu6(graph: Graph, x: str) -> str:
    return graph.add("Clip", [x, "zero", "six"], graph.channels[x])


def _inverted_residual(graph: Graph, x: str, expansion: int, out: int, stride: int) -> str:
    """Expand by 1 x 1, filter each channel by 3 x 3, project by 1 x 1 without activation."""
    shortcut, hidden = x, graph.channels[x] * expansion
    added = stride == 1 and graph.channels[shortcut] == out
    if expansion > 1:
        x = _relu6(graph, graph.conv(x, hidden, 1))
    x = _relu6(graph, graph.conv(x, hidden, 3, stride=stride, groups=hidden))
    x = graph.conv(x, out, 1, gain=BRANCH if added else LINEAR)
    return graph.add("Add", [shortcut, x], out) if added else x


def mobilenet_v2(path: str | Path, seed: int) -> None:
    """Write a MobileNetV2 of width 1.0."""
    graph = Graph("mobilenet_v2", seed)
    x = _relu6(graph, graph.conv("image", 32, 3, stride=2))
    for expansion, out, repeats, stride in MOBILENET_V2:
        for repeat in range(repeats):
            x = _inverted_residual(graph, x, expansion, out, stride if repeat == 0 else 1)
    x = _relu6(graph, graph.conv(x, 1280, 1))
    logits = graph.dense(graph.mean(x), CLASSES)
    for name, value in (("zero", 0.0), ("six", 6.0)):
        graph.weight(name, np.asarray(value))
    graph.save(logits, path)


def _basic_block(graph: Graph, x: str, out: int, stride: int) -> str:
    """Add two 3 x 3 convolutions to the shortcut, which is projected by 1 x 1 where shapes change."""
    shortcut = x
    if stride != 1 or graph.channels[x] != out:
        shortcut = graph.conv(x, out, 1, stride=stride, gain=LINEAR)
    x = graph.relu(graph.conv(x, out, 3, stride=stride))
    x = graph.conv(x, out, 3, gain=BRANCH * RELU)
    return graph.relu(graph.add("Add", [shortcut, x], out))


def resnet18(path: str | Path, seed: int) -> None:
    """Write a ResNet-18 (He et al., arXiv:1512.03385)."""
    graph = Graph("resnet18", seed)
    x = graph.pool(graph.relu(graph.conv("image", 64, 7, stride=2)), pad=1)
    for out in (64, 128, 256, 512):
        for repeat in range(2):
            x = _basic_block(graph, x, out, 2 if repeat == 0 and out > 64 else 1)
    graph.save(graph.dense(graph.mean(x), CLASSES), path)


def _fire(graph: Graph, x: str, squeeze: int, expand: int) -> str:
    """Squeeze by 1 x 1, then expand by 1 x 1 and by 3 x 3 side by side."""
    x = graph.relu(graph.conv(x, squeeze, 1))
    sides = [graph.relu(graph.conv(x, expand, kernel)) for kernel in (1, 3)]
    return graph.add("Concat", sides, 2 * expand, axis=1)


def squeezenet(path: str | Path, seed: int) -> None:
    """Write a SqueezeNet 1.1, whose classifier is a convolution and whose first one pads nothing."""
    graph = Graph("squeezenet", seed)
    x = graph.relu(graph.conv("image", 64, 3, stride=2, pads=[0] * 4))
    for step in SQUEEZENET:
        x = graph.pool(x) if isinstance(step, str) else _fire(graph, x, *step)
    x = graph.relu(graph.conv(x, CLASSES, 1))
    graph.save(graph.mean(x), path)
