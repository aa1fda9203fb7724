"""What is PyTorch's own: archives of torch.export, their names and ranges, casts, what is dispatched."""

from __future__ import annotations

import gc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_mlbench.agent.adapters import torch_adapter as adapter
from pytest_mlbench.agent.adapters import torch_trace

torch = pytest.importorskip("torch")

# torch.export warns of its own future.
pytestmark = pytest.mark.filterwarnings("ignore")

DYNAMIC = torch.export.Dim("N", min=1)


class Module(torch.nn.Module):
    """A module made of one function."""

    def __init__(self, function, **tensors) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


@pytest.fixture
def save(tmp_path):
    """Return what exports a module, or a function of (module, x) with its buffers, and gives the archive's path."""

    def export(module, *given, shapes=None, keywords=None, **tensors) -> str:
        if not isinstance(module, torch.nn.Module):
            module = Module(module, **tensors).eval()
        given = given or (torch.zeros(2, 4),)
        program = torch.export.export(module, given, keywords, dynamic_shapes=shapes)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pt2"
        torch.export.save(program, path)
        return str(path)

    return export


def rows(count: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def call(session, **arrays):
    session.bind(arrays)
    session.invoke()
    return session.fetch()


def weight(*shape: int, seed: int = 1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


# --- names and shapes -------------------------------------------------------------------------------------------


def test_outputs_are_named_by_their_keys_and_places(save):
    trees = {
        ("output",): lambda _, x: x + 1,
        ("output_0", "output_1"): lambda _, x: (x + 1, x * 2),
        ("scores", "boxes.0", "boxes.1"): lambda _, x: {"scores": x + 1, "boxes": [x * 2, x * 3]},
    }
    for names, function in trees.items():
        session = adapter.load(save(function), {})
        assert tuple(spec.name for spec in session.outputs) == names
        x = rows(2)
        found = call(session, x=x)
        wanted = [x + 1, x * 2, x * 3]
        for name, array in zip(names, wanted, strict=False):
            np.testing.assert_allclose(found[name], array, rtol=1e-6)


def test_what_is_no_tensor_in_the_outputs_is_left_out(save):
    session = adapter.load(save(lambda _, x: {"size": 3, "nothing": None, "sum": x.sum(1)}), {})
    assert [(spec.name, spec.shape) for spec in session.outputs] == [("sum", (2,))]
    x = rows(2)
    np.testing.assert_allclose(call(session, x=x)["sum"], x.sum(1), rtol=1e-5)


def test_an_archive_without_tensors_in_its_outputs_is_refused(save):
    path = save(lambda _, x: {"size": 3})
    with pytest.raises(ValueError, match=r"^the archive returns no tensor, so there is nothing to compare$"):
        adapter.load(path, {})


class Nested(torch.nn.Module):
    def forward(self, ids, *, extra):
        return ids.float() @ extra["left"] + extra["right"]


def test_inputs_by_keyword_and_in_dicts_are_taken_by_name(save):
    extra = {"left": torch.zeros(4, 3), "right": torch.zeros(3)}
    path = save(Nested().eval(), torch.zeros(2, 4, dtype=torch.int64), keywords={"extra": extra})
    session = adapter.load(path, {})
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [
        ("ids", "int64", (2, 4)),
        ("extra_left", "float32", (4, 3)),
        ("extra_right", "float32", (3,)),
    ]
    ids, left, right = np.arange(8).reshape(2, 4), rows(4, 3), rows(1, 3)[0]
    found = call(session, extra_right=right, ids=ids, extra_left=left)  # in any order
    np.testing.assert_allclose(found["output"], ids.astype(np.float32) @ left + right, rtol=1e-5)


class WithNumber(torch.nn.Module):
    def forward(self, x, power):
        return x**power


def test_an_input_that_is_no_tensor_is_refused_by_name(save):
    path = save(WithNumber().eval(), torch.zeros(2, 4), 3)
    with pytest.raises(ValueError, match=r"input 'power' is no tensor \(3\): export a wrapper that takes tensors"):
        adapter.load(path, {})


def test_a_free_dimension_takes_any_size_in_its_range(save):
    free = adapter.load(save(lambda _, x: x * 2, shapes={"x": {0: DYNAMIC}}), {})
    assert free.inputs[0].shape == free.outputs[0].shape == (-1, 4)
    for size in (1, 2, 7):
        assert call(free, x=rows(size))["output"].shape == (size, 4)


@pytest.mark.parametrize(
    ("dimension", "size", "bounds"),
    [
        (torch.export.Dim("N", min=2), 1, "at least 2"),
        (torch.export.Dim("N", min=1, max=8), 9, "1 to 8"),
    ],
)
def test_a_size_outside_the_range_is_refused_with_the_range(save, dimension, size, bounds):
    session = adapter.load(save(lambda _, x: x * 2, shapes={"x": {0: dimension}}), {})
    with pytest.raises(ValueError) as caught:
        session.bind({"x": rows(size)})
    assert str(caught.value) == (
        f"model input 'x' has shape (?, 4), where dimension 0 is {bounds} by the archive, and cannot take an array of "
        f"shape ({size}, 4): export it with another range, such as torch.export.Dim('N', min=1)"
    )
    assert call(session, x=rows(4))["output"].shape == (4, 4), "a refused array leaves the session working"


# --- loading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "schema"), [(torch.nn.Dropout(0.5), "aten::dropout"), (torch.nn.BatchNorm1d(4), "aten::batch_norm")]
)
def test_an_archive_in_training_mode_is_refused(save, layer, schema):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), layer)
    with pytest.raises(ValueError, match=rf"\({schema}\) was exported in training mode: call model.eval\(\) before"):
        adapter.load(save(model.train(), torch.zeros(2, 4)), {})
    assert adapter.load(save(model.eval(), torch.zeros(2, 4)), {}).inputs


def test_settings_of_the_process_are_those_of_the_options(save):
    path = save(lambda _, x: x * 2)
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")  # also allows TF32 in products on CUDA
    adapter.load(path, {"threads": 2, "deterministic": True})
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    adapter.load(path, {"threads": 1})
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
def test_a_build_without_cuda_says_so(save):
    with pytest.raises(ImportError, match=r"^torch 2\.\S+ was built without CUDA and cannot use cuda:0$"):
        adapter.load(save(lambda _, x: x * 2), {"device": "cuda:0"})
    assert set(adapter.versions()) == {"torch"}


def test_a_cuda_device_that_is_not_there_says_so(save, monkeypatch):
    path = save(lambda _, x: x * 2)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert adapter.versions()["cuda"] == "13.0"
    with pytest.raises(ImportError, match=r"finds no CUDA driver or device to use as cuda:0$"):
        adapter.load(path, {"device": "cuda:0"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ImportError, match=r"sees 2 CUDA devices, so there is no cuda:2$"):
        adapter.load(path, {"device": "cuda:2"})


# --- precision --------------------------------------------------------------------------------------------------


def constant(module, x):
    return x @ module.w + torch.tensor([1.0, 0.5, 0.25, 0.125]) + module.steps[0]


@pytest.mark.parametrize(("convert", "stored", "bits"), [("fp16", "float16", 10), ("bf16", "float32", 7)])
def test_a_cast_reaches_parameters_constants_and_inputs_but_no_integers(save, convert, stored, bits):
    path = save(constant, w=weight(4, 4), steps=torch.arange(3))
    session = adapter.load(path, {"convert": convert})
    assert session.inputs[0].dtype == session.outputs[0].dtype == stored, "numpy has no bfloat16"
    x = rows(2).astype(stored)
    found = call(session, x=x)["output"]
    assert found.dtype == stored
    fraction, _ = np.frexp(found.astype(np.float64))
    scaled = fraction * 2 ** (bits + 1)
    np.testing.assert_array_equal(scaled, np.round(scaled), "the outputs have no more bits than the type")
    np.testing.assert_allclose(found, x @ weight(4, 4).numpy() + [1, 0.5, 0.25, 0.125], rtol=0.1, atol=0.1)
    computing = [node for node in session.placement().nodes if node.compute]
    assert [node.precision for node in computing] == [convert]
    assert session.placement().notes == {"device": "cpu", "converted": f"fp32 to {convert}"}
    assert session._module.steps.dtype is torch.int64


def test_a_file_of_another_precision_is_run_as_it_is(save):
    path = save(lambda module, x: x @ module.w, torch.zeros(2, 4, dtype=torch.bfloat16), w=weight(4, 4).bfloat16())
    session = adapter.load(path, {})
    assert session.inputs[0].dtype == session.outputs[0].dtype == "float32"
    x = rows(2)
    np.testing.assert_allclose(call(session, x=x)["output"], x @ weight(4, 4).numpy(), rtol=0.1, atol=0.1)
    placement = session.placement()
    assert [node.precision for node in placement.nodes if node.compute] == ["bf16"]
    assert placement.notes == {"device": "cpu"}


def test_what_an_archive_computes_in_fp32_stays_so_and_shows(save):
    path = save(lambda module, x: (x.float() @ module.w.float()).half(), w=weight(4, 4))
    session = adapter.load(path, {"convert": "fp16"})
    call(session, x=rows(2).astype(np.float16))
    assert [node.precision for node in session.placement().nodes if node.compute] == ["fp32"]


# --- placement --------------------------------------------------------------------------------------------------


def test_without_an_input_there_is_nothing_to_trace(save):
    placement = adapter.load(save(lambda _, x: x * 2), {}).placement()
    assert placement.nodes == ()
    assert placement.reason == "no input was bound, so there was nothing to trace"


def test_nodes_have_the_names_of_the_graph_and_the_operators_that_ran(save):
    path = save(lambda module, x: torch.relu(x @ module.w).sum(1), w=weight(4, 4))
    session = adapter.load(path, {})
    call(session, x=rows(2))
    nodes = session.placement().nodes
    assert [(node.name, node.op, node.where, node.compute) for node in nodes] == [
        ("matmul", "aten.matmul", "cpu", True),
        ("relu", "aten.relu", "cpu", False),
        ("sum_1", "aten.sum", "cpu", False),
    ]


def branch(module, x):
    return torch.cond(x.sum() > 0, lambda y: y @ module.w, lambda y: y @ module.w @ module.w, (x,))


def test_the_branch_that_ran_is_seen_inside(save):
    session = adapter.load(save(branch, w=weight(4, 4)), {})
    for sign, products in ((1, 1), (-1, 2)):
        call(session, x=sign * np.ones((2, 4), np.float32))
        nodes = session.placement().nodes
        assert sum(node.compute for node in nodes) == products
        assert len({node.name for node in nodes}) == len(nodes), "each entry has a name of its own"


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(4, 4, batch_first=True)
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)
        self.convolution = torch.nn.Conv1d(4, 4, 1)

    def forward(self, x):
        y, _ = self.lstm(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        return self.convolution(y.transpose(1, 2))


def test_recurrent_attention_and_convolution_layers_compute(save):
    session = adapter.load(save(Layers().eval(), torch.zeros(2, 3, 4)), {})
    call(session, x=rows(6).reshape(2, 3, 4))
    counts = Counter(node.op for node in session.placement().nodes if node.compute)
    assert counts["aten.lstm"] == 1
    assert counts["aten.conv1d"] == 1
    assert counts["aten.scaled_dot_product_attention"] + counts["aten.bmm"] >= 1
    assert counts["aten.linear"] >= 2


def test_a_product_of_two_types_is_unknown(save):
    def packed(module, x):
        return torch.ops.aten._weight_int8pack_mm(x, module.w, module.scale)

    values = {"w": torch.ones(64, 64, dtype=torch.int8), "scale": torch.ones(64, dtype=torch.bfloat16)}
    session = adapter.load(save(packed, torch.zeros(2, 64, dtype=torch.bfloat16), **values), {})
    found = call(session, x=np.ones((2, 64), np.float32))["output"]
    np.testing.assert_array_equal(found, np.full((2, 64), 64, np.float32))
    assert [node.precision for node in session.placement().nodes if node.compute] == ["unknown"]


class Loop(torch.nn.Module):
    def forward(self, x):
        loop = torch._higher_order_ops.while_loop
        return loop(lambda i, y: i < 3, lambda i, y: (i + 1, y @ y), (torch.zeros((), dtype=torch.int64), x))


def test_a_loop_whose_body_is_not_seen_is_unknown(save):
    session = adapter.load(save(Loop().eval(), torch.eye(4)), {})
    found = call(session, x=2 * np.eye(4, dtype=np.float32))
    np.testing.assert_array_equal(found["output_1"], 256 * np.eye(4))
    computing = [node for node in session.placement().nodes if node.compute]
    assert [(node.name, node.precision) for node in computing] == [("while_loop", "unknown")]


# --- a device ---------------------------------------------------------------------------------------------------


def test_on_a_device_binding_and_invoking_end_when_the_device_is_done(save, monkeypatch):
    """PyTorch's device `meta` stands in for a GPU: it takes the same calls and holds no values."""
    path = save(lambda module, x: x @ module.w + torch.zeros(4), w=weight(4, 4))
    waited = []
    monkeypatch.setattr(adapter, "_device", lambda torch, word: torch.device(word))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 4096)
    session = adapter.load(path, {"device": "meta"})
    session.bind({"x": rows(2)})
    assert waited == ["meta"], "the copies ended before the clock starts"
    session.invoke()
    assert waited == ["meta", "meta"], "the outputs are complete"
    nodes = session.placement().nodes
    assert {node.where for node in nodes} == {"meta"}, "tensors that the graph itself makes are moved too"
    assert session.placement().notes == {"device": "meta"}
    assert session.device_memory() == {"peak_bytes": 4096, "source": "torch.cuda.max_memory_allocated"}


@pytest.mark.parametrize(("place", "where"), [("cuda:0", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_a_node_is_on_the_device_on_another_or_on_the_processor(place, where):
    tensor = SimpleNamespace(device=torch.device(place), dtype=torch.float16)
    node = torch_trace._node("n", torch.ops.aten.linear.default, [tensor, tensor], torch.device("cuda:0"))
    assert (node.where, node.op, node.precision, node.compute) == (where, "aten.linear", "fp16", True)


def test_on_the_processor_nothing_waits_and_no_device_memory_is_told(save, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: pytest.fail("there is nothing to wait for"))
    session = adapter.load(save(lambda _, x: x * 2), {})
    call(session, x=rows(2))
    assert session.device_memory() == {}


def test_inputs_of_the_processor_are_not_copied(save):
    session = adapter.load(save(lambda _, x: x * 2), {})
    x = rows(2)
    session.bind({"x": x})
    x[...] = 5
    session.invoke()
    np.testing.assert_array_equal(session.fetch()["output"], np.full((2, 4), 10, np.float32))


def test_an_output_that_is_an_input_is_copied_all_the_same(save):
    session = adapter.load(save(lambda _, x: {"same": x, "more": x + 1}), {})
    x = rows(2)
    found = call(session, x=x)["same"]
    x[...] = 0
    gc.collect()
    assert found.any()
