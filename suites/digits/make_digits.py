"""Make everything under `data/` and `models/` again; needs tensorflow-cpu, scikit-learn and onnx.

One small network is trained once; the ONNX file and the three TFLite files carry the same weights.
Same versions of the tools and the same processor give the same bytes; other ones may differ in rounding.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20
TEST_SAMPLES = 360
CALIBRATION_SAMPLES = 128
EPOCHS = 100
MODELS = ("digits.onnx", "digits.tflite", "digits_fp16.tflite", "digits_int8.tflite")

Arrays = dict[str, np.ndarray]


def prepare(x: np.ndarray) -> np.ndarray:
    """Turn uint8 (samples, 8, 8) of 0 to 16 into float32 (samples, 1, 8, 8) of 0 to 1, as models see it."""
    return (x.astype(np.float32) * np.float32(0.0625)).reshape(-1, 1, 8, 8)


def split() -> tuple[Arrays, Arrays]:
    """Split scikit-learn's digits into train and test, stratified by label; test is never trained on."""
    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=TEST_SAMPLES, stratify=y, random_state=SEED)
    return {"x": train_x, "y": train_y}, {"x": test_x, "y": test_y}


def train(data: Arrays) -> Arrays:
    """Train and return the weights: kernels as HWIO, the last layer as (height*width*channel, 10)."""
    layers = tf.keras.layers
    names = ("conv1", "conv2", "dense")
    net = tf.keras.Sequential(
        [
            layers.Input((1, 8, 8)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPool2D(2),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPool2D(2),
            layers.Flatten(),
            layers.Dense(10, name="dense"),
        ]
    )
    steps = EPOCHS * -(-len(data["y"]) // 32)
    rate = tf.keras.optimizers.schedules.CosineDecay(4e-3, steps)
    net.compile(
        optimizer=tf.keras.optimizers.AdamW(rate, weight_decay=1e-3),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    net.fit(prepare(data["x"]), data["y"], batch_size=32, epochs=EPOCHS, verbose=0)
    pairs = {name: net.get_layer(name).get_weights() for name in names}
    return {f"{n}.{part}": value for n, two in pairs.items() for part, value in zip("wb", two, strict=True)}


def network(weights: Arrays) -> tf.Module:
    """Build the trained network with a free batch dimension, in operators that TFLite resizes at will."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 1, 8, 8], tf.float32, name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.reshape(image, [-1, 8, 8, 1])
        for name in ("conv1", "conv2"):
            x = tf.nn.conv2d(x, weights[f"{name}.w"], strides=1, padding="SAME")
            x = tf.nn.relu(tf.nn.bias_add(x, weights[f"{name}.b"]))
            x = tf.nn.max_pool2d(x, 2, 2, padding="VALID")
        x = tf.reshape(x, [-1, 64])
        return {"logits": tf.nn.bias_add(tf.matmul(x, weights["dense.w"]), weights["dense.b"])}

    module.serve = serve
    return module


def tflite(weights: Arrays, precision: str, calibration: np.ndarray) -> bytes:
    """Convert to TFLite: fp32, fp16 (weights stored as float16) or int8 (inputs and outputs too)."""
    module = network(weights)
    serve = module.serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve], module)
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        # One scale for the whole of the last layer: runtimes before 2.16 and most int8 kernels for
        # microcontrollers know per-channel scales for convolutions only.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter.convert()


def onnx_model(weights: Arrays) -> onnx.ModelProto:
    """Write the same network as ONNX: kernels as OIHW, the last layer's rows in channel-first order."""
    dense = weights["dense.w"].reshape(2, 2, 16, 10).transpose(2, 0, 1, 3).reshape(64, 10)
    tensors = {
        "conv1.w": weights["conv1.w"].transpose(3, 2, 0, 1),
        "conv2.w": weights["conv2.w"].transpose(3, 2, 0, 1),
        "dense.w": dense.T,
    } | {name: weights[name] for name in ("conv1.b", "conv2.b", "dense.b")}
    nodes, last = [], "image"
    for name in ("conv1", "conv2"):
        conv, relu, pool = f"{name}.out", f"{name}.relu", f"{name}.pool"
        shape = {"pads": [1] * 4, "kernel_shape": [3, 3]}
        nodes.append(helper.make_node("Conv", [last, f"{name}.w", f"{name}.b"], [conv], conv, **shape))
        nodes.append(helper.make_node("Relu", [conv], [relu], relu))
        shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("MaxPool", [relu], [pool], pool, **shape))
        last = pool
    nodes += [
        helper.make_node("Flatten", [last], ["flat"], "flat", axis=1),
        helper.make_node("Gemm", ["flat", "dense.w", "dense.b"], ["logits"], "dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="make_digits")
    onnx.checker.check_model(model, full_check=True)
    return model


def top1(content: bytes, test: Arrays) -> float:
    """Measure a TFLite file's top-1 on the test samples with TensorFlow's own interpreter."""
    runner = tf.lite.Interpreter(model_content=content)
    runner.allocate_tensors()
    ((source,), (sink,)) = runner.get_input_details(), runner.get_output_details()
    scale, zero = source["quantization"]
    hits = 0
    for sample, label in zip(prepare(test["x"]), test["y"], strict=True):
        if source["dtype"] == np.int8:
            sample = np.clip(np.round(sample / scale) + zero, -128, 127).astype(np.int8)
        runner.set_tensor(source["index"], sample[np.newaxis])
        runner.invoke()
        hits += int(runner.get_tensor(sink["index"]).argmax() == label)
    return hits / len(test["y"])


def main() -> None:
    """Write the data, the models and SHA256SUMS below --out (default: beside this file)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    tf.keras.utils.set_random_seed(SEED)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    for folder in ("data", "models"):
        (out / folder).mkdir(parents=True, exist_ok=True)

    train_set, test_set = split()
    np.savez_compressed(out / "data/test.npz", **test_set)
    chosen = np.random.default_rng(SEED).choice(len(train_set["y"]), CALIBRATION_SAMPLES, replace=False)
    calibration = prepare(train_set["x"][np.sort(chosen)])
    np.savez_compressed(out / "data/calibration.npz", image=calibration)

    weights = train(train_set)
    (out / "models/digits.onnx").write_bytes(onnx_model(weights).SerializeToString(deterministic=True))
    for precision in ("fp32", "fp16", "int8"):
        content = tflite(weights, precision, calibration)
        name = "digits.tflite" if precision == "fp32" else f"digits_{precision}.tflite"
        (out / "models" / name).write_bytes(content)
        print(f"{name}: {len(content)} bytes, top-1 {top1(content, test_set):.4f}")

    files = ["data/calibration.npz", "data/test.npz", *(f"models/{name}" for name in MODELS)]
    lines = [f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    (out / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
