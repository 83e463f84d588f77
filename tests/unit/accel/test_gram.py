"""Gram matrices: what they say of a layer's output is what the runtime computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from accel.errors import BadDataset
from accel.graph.layers import Layer, layers
from accel.numerics import gram as module
from accel.numerics.gram import Gram, grams, measurable
from accel.numerics.rounding import output_error
from tests import models


class Samples:
    """Calibration samples from arrays."""

    def __init__(self, **columns: np.ndarray) -> None:
        self._columns = columns
        self.reads = 0

    def batch_size(self, largest: int) -> int:
        return min(largest, 3)

    def batches(self, samples: int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        self.reads += 1
        for start in range(0, min(samples, *map(len, self._columns.values())), batch_size):
            yield {name: rows[start : min(start + batch_size, samples)] for name, rows in self._columns.items()}


def one(operator: str, weight: np.ndarray, shape: list[int], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x", "w"], ["y"], "layer", **attributes)
    return models.assemble([node], [models._value("x", ["n", *shape])], [onnx.ValueInfoProto(name="y")], {"w": weight})


def measured(proto: onnx.ModelProto, samples: Samples, folder: Path, count: int = 10, **more: Any) -> dict[str, Gram]:
    model = ir.from_proto(proto)
    return {layer.name: gram for layer, gram in grams(model, layers(model.graph), samples, count, folder, **more)}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CONVOLUTIONS = {
    "plain": ((5, 3, 3, 3), [3, 7, 6], {}),
    "padded_strided": ((5, 3, 3, 2), [3, 8, 7], {"pads": [1, 0, 2, 1], "strides": [2, 3]}),
    "dilated": ((4, 2, 3, 3), [2, 9, 9], {"dilations": [2, 3], "pads": [1, 2, 1, 2]}),
    "grouped": ((6, 2, 3, 3), [4, 6, 6], {"group": 2}),
    "depthwise": ((8, 1, 3, 3), [4, 6, 5], {"group": 4, "pads": [1, 1, 1, 1]}),
    "same_upper": ((3, 2, 4, 3), [2, 7, 8], {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same_lower": ((3, 2, 4, 3), [2, 7, 8], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "valid": ((3, 2, 2, 2), [2, 5, 5], {"auto_pad": "VALID"}),
    "pointwise": ((7, 5, 1, 1), [5, 4, 4], {}),
    "one_axis": ((4, 3, 5), [3, 20], {"strides": [2], "pads": [2, 2]}),
    "three_axes": ((2, 2, 2, 2, 2), [2, 4, 3, 3], {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, tmp_path: Path) -> None:
    shape, places, attributes = CONVOLUTIONS[name]
    proto = one("Conv", random(*shape), places, **attributes)
    x = random(10, *places, seed=1)
    (found,) = measured(proto, Samples(x=x), tmp_path).values()
    (layer,) = layers(ir.from_proto(proto).graph)
    output = models.run(proto, {"x": x})["y"]
    assert found.rows == output[:, 0].size
    assert output_error(layer.matrix, found.matrix) == pytest.approx(float(np.square(output, dtype=float).sum()), 1e-4)
    # Not only in sum: each output channel by itself.
    for channel in range(len(layer.matrix)):
        alone = np.zeros_like(layer.matrix)
        alone[channel] = layer.matrix[channel]
        wanted = float(np.square(output[:, channel], dtype=float).sum())
        assert output_error(alone, found.matrix) == pytest.approx(wanted, 1e-4)


@pytest.mark.parametrize(
    ("operator", "shape", "fed", "attributes"),
    [
        ("MatMul", (6, 4), [6], {}),
        ("MatMul", (6, 4), [3, 5, 6], {}),
        ("Gemm", (6, 4), [6], {}),
        ("Gemm", (4, 6), [6], {"transB": 1}),
    ],
)
def test_products(
    operator: str, shape: tuple[int, int], fed: list[int], attributes: dict[str, int], tmp_path: Path
) -> None:
    proto = one(operator, random(*shape), fed, **attributes)
    x = random(10, *fed, seed=1)
    (found,) = measured(proto, Samples(x=x), tmp_path).values()
    np.testing.assert_allclose(found.matrix[0], x.reshape(-1, 6).T @ x.reshape(-1, 6), rtol=1e-4, atol=1e-4)
    assert found.rows == x.size // 6


def test_of_many_places_some_are_counted(tmp_path: Path) -> None:
    """64 of a sample, elsewhere in each batch, so that their mean is near that of all."""
    x = random(40, 2, 40, 40, seed=1) + np.linspace(0, 3, 40, dtype=np.float32)
    proto = one("Conv", random(3, 2, 3, 3), [2, 40, 40])
    (found,) = measured(proto, Samples(x=x), tmp_path, count=40).values()
    assert 40 * 50 < found.rows <= 40 * 64
    (layer,) = layers(ir.from_proto(proto).graph)
    output = models.run(proto, {"x": x})["y"]
    mean = float(np.square(output, dtype=float).sum()) / output[:, 0].size
    assert output_error(layer.matrix, found.matrix) / found.rows == pytest.approx(mean, 0.05)


def three() -> onnx.ModelProto:
    """Two layers that are fed the same, and one behind them."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], "left"),
        helper.make_node("MatMul", ["x", "b"], ["q"], "right"),
        helper.make_node("Add", ["p", "q"], ["s"], "add"),
        helper.make_node("MatMul", ["s", "c"], ["y"], "last"),
    ]
    weights = {name: random(8, 8, seed=seed) for seed, name in enumerate("abc")}
    return models.assemble(nodes, [models._value("x", ["n", 8])], [models._value("y", ["n", 8])], weights)


def test_the_budget_changes_how_often_samples_are_read_and_nothing_else(tmp_path: Path) -> None:
    samples = Samples(x=random(10, 8, seed=9))
    told: list[tuple[str, int, int | None, str]] = []
    at_once = measured(three(), samples, tmp_path)
    assert samples.reads == 1
    apart = measured(three(), samples, tmp_path, budget=1, tell=lambda *what: told.append(what))
    assert samples.reads == 3, "the two that are fed the same share a matrix"
    assert told[-1][:3] == ("calibrating", 20, 20)
    for name in ("left", "right", "last"):
        np.testing.assert_array_equal(at_once[name].matrix, apart[name].matrix)
    assert at_once["left"].matrix is at_once["right"].matrix
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = module._product

    def watched(activation: np.ndarray, limit: int, start: int) -> np.ndarray:
        sizes.append(activation.size)
        return plain(activation, limit, start)

    monkeypatch.setattr(module, "_product", watched)
    measured(three(), Samples(x=random(100, 8)), tmp_path, count=100)
    assert max(sizes) == 3 * 8


def test_samples_are_limited(tmp_path: Path) -> None:
    assert measured(three(), Samples(x=random(100, 8)), tmp_path, count=7)["last"].rows == 7


def test_without_samples_and_with_bad_ones(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no sample"):
        measured(three(), Samples(x=random(0, 8)), tmp_path)
    bad = random(10, 8)
    bad[4, 2] = np.inf
    with pytest.raises(BadDataset, match="'left' is fed values that are not finite"):
        measured(three(), Samples(x=bad), tmp_path)


def test_what_can_be_measured() -> None:
    def layer(operator: str, *shape: int) -> Layer:
        (found,) = layers(ir.from_proto(one(operator, random(*shape), [4, 8, 8])).graph)
        return found

    assert measurable(layer("Conv", 4, 4, 1, 1))
    assert measurable(layer("MatMul", 8, 4))
    assert not measurable(layer("MatMul", 4, 8, 4))
    assert not measurable(layer("ConvTranspose", 4, 4, 2, 2))


def test_gram_matrices_add_up() -> None:
    parts = [Gram(np.full((1, 2, 2), number, np.float32), number) for number in (1, 2)]
    total = parts[0] + parts[1]
    assert total.rows == 3
    assert (total.matrix == 3).all()
