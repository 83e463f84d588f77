"""The graph builder: shapes, names, initial weights, and layers that compute what they are called after."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from accel.errors import TooLarge
from accel.graph.building import Activation, GraphBuilder, dims_of, gain, sizes
from accel.graph.building_sequences import (
    attention,
    attention_mask,
    end_of,
    mean_over,
    padding,
    recurrent,
    sequence_of,
    steps_of,
)
from accel.graph.initial_weights import filled, glorot, he, orthogonal
from accel.graph.inspect import summarize


def graph(seed: int = 0) -> GraphBuilder:
    return GraphBuilder("g", seed)


def run(model: ir.Model, *feeds: np.ndarray) -> np.ndarray:
    """Check a model strictly, which also holds the written shapes against inferred ones, and run it."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, feeds, strict=True)))
    return found


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def weight(model: ir.Model, name: str) -> np.ndarray:
    stored = model.graph.initializers[name].const_value
    assert stored is not None
    return stored.numpy()


def tensor(model: ir.Model, name: str) -> torch.Tensor:
    return torch.from_numpy(weight(model, name).copy())


@given(
    length=st.integers(1, 20),
    width=st.integers(1, 20),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
)
def test_convolution_of_any_size(length: int, width: int, kernel: int, stride: int, groups: int) -> None:
    built = graph()
    x = built.input("x", (4, length, width))
    y = built.conv("conv", x, 8, kernel, stride=stride, groups=groups)
    expected = dims_of(y)
    model = built.finish(y, "y")
    images = numbers(3, 4, length, width)
    found = run(model, images)
    assert found.shape[1:] == expected[1:] == (8, math.ceil(length / stride), math.ceil(width / stride))
    wanted = functional.conv2d(
        torch.from_numpy(images),
        tensor(model, "conv.weight"),
        tensor(model, "conv.bias"),
        stride,
        kernel // 2,
        groups=groups,
    )
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@given(
    lengths=st.lists(st.integers(4, 15), min_size=1, max_size=3),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    maximum=st.booleans(),
)
def test_pooling_of_any_size(lengths: list[int], size: int, stride: int, maximum: bool) -> None:
    built = graph()
    y = built.pool("pool", built.input("x", (2, *lengths)), "max" if maximum else "average", size, stride=stride)
    expected = dims_of(y)
    assert run(built.finish(y, "y"), numbers(2, 2, *lengths)).shape[1:] == expected[1:]


def test_padded_pooling_is_that_of_residual_networks() -> None:
    built = graph()
    y = built.pool("pool", built.input("x", (2, 9, 12)), "max", 3, stride=2, padding=1)
    assert dims_of(y) == ("batch", 2, 5, 6)
    x = numbers(2, 2, 9, 12)
    wanted = functional.max_pool2d(torch.from_numpy(x), 3, 2, 1).numpy()
    np.testing.assert_array_equal(run(built.finish(y, "y"), x), wanted)


@pytest.mark.parametrize("dims", [(7,), (5, 7), (3, 5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_product_with_the_last_axis(dims: tuple[int, ...], bias: bool) -> None:
    built = graph()
    model = built.finish(built.linear("linear", built.input("x", dims), 4, bias=bias), "y")
    assert ("linear.bias" in model.graph.initializers) == bias
    x, matrix = numbers(2, *dims), weight(model, "linear.weight")
    matrix = matrix.T if len(dims) == 1 else matrix
    assert matrix.shape == (7, 4)
    np.testing.assert_allclose(run(model, x), x @ matrix, atol=1e-6)  # a bias is zero at first


REFERENCES: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "relu6": functional.relu6,
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_activations(kind: Activation) -> None:
    built = graph()
    model = built.finish(built.activation("activation", built.input("x", (100,)), kind), "y")
    x = numbers(4, 100) * 5
    np.testing.assert_allclose(run(model, x), REFERENCES[kind](torch.from_numpy(x)).numpy(), atol=1e-5)
    assert summarize(ir.to_proto(model)).parameters == 0  # a bound of a formula is no parameter


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "gelu", "silu", "tanh"])
def test_variance_stays_through_many_layers(kind: Activation) -> None:
    built = graph()
    x = built.input("x", (256,))
    for number in range(20):
        x = built.linear(f"l{number}", x, 256, initial=he(256, gain(kind)))
        x = built.activation(f"a{number}", x, kind)
    square = float(np.mean(run(built.finish(x, "y"), numbers(64, 256)) ** 2))
    assert 0.02 < square < 50, square


def test_normalisations_before_training() -> None:
    built = graph()
    normal = built.layer_norm("layer", built.batch_norm("batch", built.input("x", (6, 5))))
    model = built.finish(normal, "y")
    x = numbers(3, 6, 5) * 7 + 2
    wanted = functional.layer_norm(torch.from_numpy(x), (5,)).numpy()  # running statistics are 0 and 1 at first
    np.testing.assert_allclose(run(model, x), wanted, atol=1e-4)
    names = {"batch.weight", "batch.bias", "batch.running_mean", "batch.running_var", "layer.weight", "layer.bias"}
    assert set(model.graph.initializers) == names


def test_dropout_passes_all_on_where_nothing_is_trained() -> None:
    built = graph()
    x = built.input("x", (6,))
    assert built.dropout("none", x, 0) is x
    model = built.finish(built.dropout("dropout", x, 0.5), "y")
    (node,) = [node for node in model.graph if node.op_type == "Dropout"]
    assert len(node.inputs) == 2  # no training_mode
    rows = numbers(3, 6)
    np.testing.assert_array_equal(run(model, rows), rows)


def test_names_are_those_given_and_occur_once() -> None:
    built = graph()
    x = built.input("stem.conv", (1, 8, 8))  # a column may be called like a layer
    model = built.finish(built.conv("stem.conv", built.conv("stem.conv", x, 2, 3), 2, 3), "stem.conv")
    nodes = [node.name for node in model.graph]
    assert nodes == ["stem.conv_1", "stem.conv_2"]
    assert [value.name for value in model.graph.outputs] == ["stem.conv_3"]
    assert set(model.graph.initializers) == {
        "stem.conv.weight",
        "stem.conv.bias",
        "stem.conv.weight_1",
        "stem.conv.bias_1",
    }
    run(model, numbers(1, 1, 8, 8))


def test_weights_beyond_a_file_are_refused_before_they_are_drawn() -> None:
    built = graph()
    x = built.linear("small", built.input("x", (4,)), 100_000)
    with pytest.raises(TooLarge, match=r"'huge.weight' alone has the shape \[100000, 100000\]"):
        built.linear("huge", x, 100_000)


def test_initial_weights_have_the_spread_of_their_papers() -> None:
    chance = np.random.default_rng(0)
    drawn = he(50)(chance, (400, 50))
    assert drawn.dtype == np.float32
    assert drawn.std() == pytest.approx(math.sqrt(2 / 50), rel=0.02)
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    even = glorot(30, 50)(chance, (50, 300))
    assert abs(even).max() <= math.sqrt(6 / 80)
    assert even.std() == pytest.approx(math.sqrt(2 / 80), rel=0.02)
    turned = orthogonal(chance, (3, 16, 16))
    np.testing.assert_allclose(turned @ turned.swapaxes(1, 2), np.broadcast_to(np.eye(16), (3, 16, 16)), atol=1e-5)
    assert (filled(1)(chance, (3,)) == 1).all()


@given(seed=st.integers(0, 2**63 - 1), other=st.integers(0, 2**63 - 1))
def test_seeds_tell_weights_apart(seed: int, other: int) -> None:
    def built(seed: int) -> np.ndarray:
        made = graph(seed)
        return weight(made.finish(made.linear("linear", made.input("x", (8,)), 8), "y"), "linear.weight")

    assert (built(seed) == built(seed)).all()
    assert (built(seed) == built(other)).all() == (seed == other)


@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_that_of_pytorch(masked: bool) -> None:
    built = graph()
    ids = built.input("ids", (6,), ir.DataType.INT64)
    x = built.embedding("embedding", ids, 9, 8)
    mask = attention_mask(built, "mask", padding(built, "padding", ids, 0)) if masked else None
    model = built.finish(attention(built, "attention", x, 2, mask=mask, dropout=0.1), "y")
    rows = np.asarray([[3, 4, 5, 0, 0, 0], [8, 1, 2, 7, 7, 1], [0, 0, 0, 0, 0, 5]])
    found = run(model, rows)

    vectors = tensor(model, "embedding.weight")[torch.from_numpy(rows)]
    parts = ("query", "key", "value")
    layer = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([tensor(model, f"attention.{part}.weight").T for part in parts]))
        layer.in_proj_bias.zero_()
        layer.out_proj.weight.copy_(tensor(model, "attention.out.weight").T)
        layer.out_proj.bias.zero_()
        wanted, _ = layer(vectors, vectors, vectors, torch.from_numpy(rows == 0) if masked else None)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_rows_of_nothing_but_filling_can_be_computed() -> None:
    built = graph()
    ids = built.input("ids", (4,), ir.DataType.INT64)
    empty = padding(built, "padding", ids, 0)
    x = built.embedding("embedding", ids, 5, 8)
    seen = attention(built, "attention", x, 2, mask=attention_mask(built, "mask", empty), dropout=0)
    model = built.finish(mean_over(built, "mean", seen, empty), "y")
    found = run(model, np.asarray([[0, 0, 0, 0], [1, 2, 0, 0]]))
    assert np.isfinite(found).all()
    assert (found[0] == 0).all()


@given(rows=st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=5), min_size=1, max_size=4))
def test_means_and_lengths_leave_filling_out(rows: list[list[int]]) -> None:
    filled_up = np.asarray([row + [0] * (5 - len(row)) for row in rows])
    built = graph()
    ids = built.input("ids", (5,), ir.DataType.INT64)
    mean = mean_over(built, "mean", built.embedding("embedding", ids, 5, 3), padding(built, "padding", ids, 0))
    model = built.finish(mean, "y")
    vectors = weight(model, "embedding.weight")
    wanted = [vectors[row].mean(0) if row else np.zeros(3) for row in rows]
    np.testing.assert_allclose(run(model, filled_up), wanted, atol=1e-6)

    built = graph()
    ids = built.input("ids", (5,), ir.DataType.INT64)
    counted = built.finish(steps_of(built, "steps", padding(built, "padding", ids, 0)), "y")
    assert run(counted, filled_up).tolist() == [max(1, len(row)) for row in rows]


def test_mean_of_all() -> None:
    built = graph()
    x = numbers(2, 5, 3)
    found = run(built.finish(mean_over(built, "mean", built.input("x", (5, 3)), None), "y"), x)
    np.testing.assert_allclose(found, x.mean(1), atol=1e-6)


def in_pytorchs_order(array: torch.Tensor, gates: tuple[int, ...]) -> torch.Tensor:
    return torch.cat([array.chunk(len(gates))[gate] for gate in gates])


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("whole", [True, False])
def test_recurrent_layers_are_those_of_pytorch(cell: str, both_ways: bool, whole: bool) -> None:
    """Of a layer's two results, the sequence and the end; lengths of rows differ."""
    built = graph()
    ids = built.input("ids", (5,), ir.DataType.INT64)
    x = built.transpose("turned", built.embedding("embedding", ids, 6, 3), (1, 0, 2))
    steps = steps_of(built, "steps", padding(built, "padding", ids, 0))
    layer = recurrent(built, "layer", x, "lstm" if cell == "lstm" else "gru", 4, both_ways=both_ways, lengths=steps)
    y = sequence_of(built, "sequence", layer) if whole else end_of(built, "end", layer)
    assert sizes(y)[-1] == (8 if both_ways else 4)
    model = built.finish(y, "y")
    rows = np.asarray([[3, 4, 5, 1, 2], [5, 1, 2, 0, 0], [2, 0, 0, 0, 0]])
    found = run(model, rows)

    # ONNX has the gates of an LSTM as input, output, forget, cell, and those of a GRU as update, reset, hidden.
    order = (0, 2, 3, 1) if cell == "lstm" else (1, 0, 2)
    reference = (torch.nn.LSTM if cell == "lstm" else torch.nn.GRU)(3, 4, bidirectional=both_ways)
    with torch.no_grad():
        for way, ending in enumerate(("", "_reverse") if both_ways else ("",)):
            for theirs, ours in (("weight_ih", "weight"), ("weight_hh", "recurrence")):
                stored = in_pytorchs_order(tensor(model, f"layer.{ours}")[way], order)
                getattr(reference, f"{theirs}_l0{ending}").copy_(stored)
            biases = tensor(model, "layer.bias")[way].chunk(2)
            for theirs, bias in zip(("bias_ih", "bias_hh"), biases, strict=True):
                getattr(reference, f"{theirs}_l0{ending}").copy_(in_pytorchs_order(bias, order))
        vectors = tensor(model, "embedding.weight")[torch.from_numpy(rows.T.copy())]
        packed = torch.nn.utils.rnn.pack_padded_sequence(vectors, torch.tensor([5, 3, 1]))
        sequence, end = reference(packed)
        end = end[0] if cell == "lstm" else end
        wanted = (
            torch.nn.utils.rnn.pad_packed_sequence(sequence)[0] if whole else end.transpose(0, 1).reshape(len(rows), -1)
        )
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_forget_gates_begin_open() -> None:
    built = graph()
    x = built.input("x", (3,))
    turned = built.transpose("turned", built.add_axis("steps", x, 1), (1, 0, 2))
    layer = recurrent(built, "layer", turned, "lstm", 4, both_ways=True, lengths=None)
    bias = weight(built.finish(end_of(built, "end", layer), "y"), "layer.bias")
    assert bias.shape == (2, 32)
    expected = np.zeros((2, 8, 4), np.float32)
    expected[:, 2] = 1  # the third of input, output, forget, cell; once, and not again in the recurrent bias
    np.testing.assert_array_equal(bias.reshape(2, 8, 4), expected)
