"""Values inside a running graph, reduced in the graph: the same as fetching them and reducing with NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.errors import TechniqueFailed
from accel.graph.observe import Probe, observe
from tests import models

OPSETS = [11, 13, 17, 18, 21]


def port(name: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def network(opset: int = 17, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Values of the ranks 0 to 5, some in front of and behind nodes that the runtime fuses."""
    chance = np.random.default_rng(1)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = {
        "w": chance.standard_normal((6, 3, 3, 3)).astype(kind),
        "b": chance.standard_normal(6).astype(kind),
        "m": chance.standard_normal((8, 5)).astype(kind),
        "five": np.array([0, 2, 3, 8, 8], np.int64),
        "three": np.array([0, 6, -1], np.int64),
        "flat": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["p", "five"], ["v5"], "five"),
        helper.make_node("MatMul", ["v5", "m"], ["product"], "matmul"),
        helper.make_node("Reshape", ["c", "three"], ["v3"], "three"),
        helper.make_node("Flatten", ["v3"], ["v2"], "flatten"),
        helper.make_node("Reshape", ["v2", "flat"], ["v1"], "flat"),
        helper.make_node("Softmax", ["v2"], ["soft"], "softmax"),
        helper.make_node("ArgMax", ["v2"], ["best"], "argmax", axis=1, keepdims=0),
        helper.make_node("Shape", ["v2"], ["shape"], "shape"),
    ]
    if opset >= 13:
        nodes.append(helper.make_node("ReduceSum", ["v1"], ["v0"], "sum", keepdims=0))
    else:
        nodes.append(helper.make_node("ReduceSum", ["v1"], ["v0"], "sum", axes=[0], keepdims=0))
    inputs = [port("x", ["n", 3, 8, 8], dtype)]
    outputs = [port("soft", ["n", "k"], dtype), port("product", ["n", 2, 3, 8, 5], dtype), port("v0", [], dtype)]
    model = models.assemble(nodes, inputs, outputs, weights, opset=opset)
    model.ir_version = 10 if opset >= 21 else 8
    return model


VALUES = {"x": 4, "c": 4, "r": 4, "p": 4, "v5": 5, "product": 5, "v3": 3, "v2": 2, "v1": 1, "soft": 2, "v0": 0}


def feed(rows: int, dtype: type = np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 3, 8, 8)).astype(dtype)}


def fetched(proto: onnx.ModelProto, names: list[str], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values, asked for as outputs of the model as it is."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    have = {value.name for value in copy.graph.output}
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(copy).graph.value_info}
    copy.graph.output.extend(inferred[name] for name in names if name not in have and name not in given)
    return models.run(copy, given) | given


def close(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rows", [1, 3])
def test_every_reduction_is_numpy_s(opset: int, rows: int, tmp_path: Path) -> None:
    proto, given = network(opset), feed(rows)
    truth = fetched(proto, list(VALUES), given)
    probes = [Probe(value, kind) for value in VALUES for kind in ("all", "extremes", "sample")]
    probes += [
        Probe(value, kind, axis)
        for value, rank in VALUES.items()
        for axis in ((*range(rank), -1) if rank else ())
        for kind in ("channel_extremes", "channel_mean")
    ]
    found = observe(ir.from_proto(proto), probes, given, tmp_path).run(given)
    assert set(found) == set(probes)
    for probe, arrays in found.items():
        value = truth[probe.value].astype(np.float64)
        others = () if probe.axis is None else tuple(a for a in range(value.ndim) if a != probe.axis % value.ndim)
        match probe.reduction:
            case "all":
                close(arrays[0], value)
                assert arrays[0].shape == value.shape
            case "extremes":
                close(arrays[0], value.min())
                close(arrays[1], value.max())
                assert arrays[0].shape == arrays[1].shape == ()
            case "sample":  # all of it: these values are small
                close(np.sort(arrays[0]), np.sort(value.ravel()))
            case "channel_extremes":
                close(arrays[0], value.min(others))
                close(arrays[1], value.max(others))
            case "channel_mean":
                close(arrays[0], value.mean(others))
    assert not list(tmp_path.iterdir())


def test_values_in_front_of_a_fused_activation_are_those_before_it(tmp_path: Path) -> None:
    given = feed(2)
    probes = [Probe("c", "extremes"), Probe("r", "extremes")]
    found = observe(ir.from_proto(network()), probes, given, tmp_path).run(given)
    assert float(found[probes[0]][0]) < 0
    assert float(found[probes[1]][0]) == 0


def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    proto = network()
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    probes = [Probe(value, "channel_mean", 0) for value in ("x", "c", "product")] + [Probe("x", "sample")]
    observe(model, probes, feed(2), tmp_path).run(feed(2))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_it_learns_from_one_batch_and_runs_on_others(tmp_path: Path) -> None:
    probes = [Probe("c", "channel_extremes", 1), Probe("v5", "channel_mean", 4), Probe("v1", "sample")]
    observed = observe(ir.from_proto(network()), probes, feed(4), tmp_path)
    for rows in (1, 4, 9):
        given = feed(rows, seed=rows)
        truth = fetched(network(), ["c", "v5", "v1"], given)
        found = observed.run(given)
        close(found[probes[0]][0], truth["c"].min((0, 2, 3)))
        close(found[probes[1]][0], truth["v5"].mean((0, 1, 2, 3)))
        close(np.sort(found[probes[2]][0]), np.sort(truth["v1"]))


def test_the_same_probe_twice_and_outputs_of_the_model(tmp_path: Path) -> None:
    given = feed(2)
    found = observe(
        ir.from_proto(network()),
        [Probe("soft", "extremes"), Probe("soft", "extremes"), Probe("v0", "all")],
        given,
        tmp_path,
    ).run(given)
    truth = models.run(network(), given)
    close(found[Probe("soft", "extremes")][1], truth["soft"].max())
    close(found[Probe("v0", "all")][0], truth["v0"])


def test_inputs_that_the_model_does_not_have_are_left_out(tmp_path: Path) -> None:
    given = feed(2) | {"label": np.array([1, 2])}
    probe = Probe("x", "extremes")
    found = observe(ir.from_proto(network()), [probe], given, tmp_path).run(given)
    close(found[probe][0], given["x"].min())


@pytest.mark.parametrize("value", ["best", "shape"])
def test_whole_numbers_are_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(TechniqueFailed, match=rf"'{value}'.*int64"):
        observe(ir.from_proto(network()), [Probe("c", "all"), Probe(value, "extremes")], feed(1), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["best", "shape"])
def test_whole_numbers_are_refused_where_the_model_tells_their_type(value: str, tmp_path: Path) -> None:
    proto = onnx.shape_inference.infer_shapes(network())
    with pytest.raises(TechniqueFailed, match=rf"'{value}'.*int64"):
        observe(ir.from_proto(proto), [Probe(value, "extremes")], feed(1), tmp_path)


def test_an_input_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    given = {"ids": np.zeros((2, 5), np.int64), "mask": np.ones((2, 5), np.int64)}
    with pytest.raises(TechniqueFailed, match=r"'ids'.*int64"):
        observe(ir.from_proto(models.embedding()), [Probe("ids", "extremes")], given, tmp_path)


def test_doubles_are_floats_too(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["h"], "product")
    relu = helper.make_node("Relu", ["h"], ["y"], "relu")
    weight = np.random.default_rng(2).standard_normal((4, 3))
    proto = models.assemble(
        [node, relu],
        [port("x", ["n", 4], TensorProto.DOUBLE)],
        [port("y", ["n", 3], TensorProto.DOUBLE)],
        {"w": weight},
    )
    given = {"x": np.random.default_rng(3).standard_normal((5, 4))}
    probes = [Probe(value, "extremes") for value in ("x", "h", "y")]
    found = observe(ir.from_proto(proto), probes, given, tmp_path).run(given)
    close(found[probes[1]][0], (given["x"] @ weight).min())
    close(found[probes[2]][1], (given["x"] @ weight).max())


def test_values_that_sub_graphs_read(tmp_path: Path) -> None:
    proto = models.branching()
    for sign in (1, -1):
        given = {"x": sign * np.abs(np.random.default_rng(4).standard_normal((3, 16))).astype(np.float32)}
        probes = [
            Probe("h", "all"),
            Probe("h", "channel_mean", 1),
            Probe("scores", "extremes"),
            Probe("total", "extremes"),
        ]
        found = observe(ir.from_proto(proto), probes, given, tmp_path).run(given)
        w, b = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer[:2])
        close(found[probes[0]][0], given["x"] @ w + b)
        close(found[probes[1]][0], (given["x"] @ w + b).mean(0))
        close(found[probes[2]][1], (sign * (given["x"] @ w + b)).max())


def wide(size: int) -> onnx.ModelProto:
    """A value as long as one wishes: x, and its negative."""
    node = helper.make_node("Neg", ["x"], ["y"], "negative")
    return models.assemble([node], [port("x", ["n", size])], [port("y", ["n", size])])


def test_samples_are_about_8192_a_row_and_see_every_place_in_time(tmp_path: Path) -> None:
    size, rows = 64 * 1024, 2
    given = {"x": -np.arange(rows * size, dtype=np.float32).reshape(rows, size)}
    probe = Probe("y", "sample")
    observed = observe(ir.from_proto(wide(size)), [probe], given, tmp_path)
    seen = np.zeros(rows * size, np.int64)
    for number in range(9):
        (sample,) = observed.run(given, start=number * 1_000_003)[probe]
        assert 0.8 * 8192 * rows <= len(sample) <= 1.25 * 8192 * rows
        steps = np.diff(sample)
        assert (steps == steps[0]).all()
        assert int(steps[0]) % 2 == 1
        seen[sample.astype(np.int64)] += 1
    assert (seen == 1).all()


def test_a_sample_of_a_smaller_batch_is_taken_at_the_same_distances(tmp_path: Path) -> None:
    size = 80_000
    probe = Probe("y", "sample")
    many = {"x": np.zeros((4, size), np.float32)}
    observed = observe(ir.from_proto(wide(size)), [probe], many, tmp_path)
    one = {"x": -np.arange(size, dtype=np.float32)[None]}
    (sample,) = observed.run(one, start=5)[probe]
    assert 0.8 * 8192 <= len(sample) <= 1.25 * 8192
    assert len(np.unique(np.diff(sample))) == 1


def test_a_value_without_elements_has_no_sample(tmp_path: Path) -> None:
    node = helper.make_node("Slice", ["x", "zero", "zero", "one"], ["nothing"], "cut")
    relu = helper.make_node("Relu", ["nothing"], ["y"], "relu")
    weights = {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)}
    proto = models.assemble([node, relu], [port("x", ["n", 4])], [port("y", ["n", "m"])], weights)
    given = {"x": np.ones((2, 4), np.float32)}
    probes = [Probe("nothing", "sample"), Probe("nothing", "extremes")]
    found = observe(ir.from_proto(proto), probes, given, tmp_path).run(given)
    assert found[probes[0]][0].size == 0
