"""Tensors made from numbers or by chance: ONNX Runtime's results, moments, seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto

from tests.one_node import computed, gradients_agree, graph_of, model_of, run
from tests.onnxruntime_reference import assert_agrees

RANGES = [(3, 9, 3), (10, 4, -2), (0, 0, 1), (5, 1, 1), (-3, 4, 2), (1, 2, 5)]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("bounds", RANGES)
def test_range(bounds: tuple[int, int, int], dtype: type) -> None:
    given = [np.array(bound, dtype) for bound in bounds]
    assert_agrees("Range", given, opset=11)
    assert_agrees("Range", given, opset=17, domain="com.microsoft")
    assert_agrees("Range", [value.reshape(1) for value in given], opset=11)


def test_range_of_fractions() -> None:
    assert_agrees("Range", [np.array(bound, np.float32) for bound in (0.1, 2.0, 0.3)], opset=11)
    assert_agrees("Range", [np.array(bound, np.float32) for bound in (0.1, 3.0)], opset=17, domain="com.microsoft")
    assert_agrees("Range", [np.array(bound) for bound in (1, 4)], opset=17, domain="com.microsoft")
    assert gradients_agree("Range", [np.array(0.1), np.array(2.0), np.array(0.3)])


def test_range_of_small_floats_is_computed_in_large_ones() -> None:
    given = [np.array(bound, np.float16) for bound in (0, 300, 0.1)]
    found = run("Range", given, opset=27)
    assert found.dtype == torch.float16
    step = float(np.float16(0.1))
    exact = torch.arange(int(np.ceil(300 / step)), dtype=torch.float32) * step
    torch.testing.assert_close(found, exact.half(), rtol=0, atol=0)
    plain = run("Range", given, opset=27, stash_type=int(TensorProto.FLOAT16))
    assert plain.dtype == torch.float16
    assert not torch.equal(plain, found[: len(plain)])


@pytest.mark.parametrize("diagonal", [-4, -1, 0, 2, 5])
@pytest.mark.parametrize("dtype", [None, TensorProto.FLOAT, TensorProto.INT64])
def test_eye(dtype: int | None, diagonal: int) -> None:
    options = {} if dtype is None else {"dtype": dtype}
    assert_agrees("EyeLike", [np.zeros((3, 5), np.int32)], opset=9, k=diagonal, **options)
    assert_agrees("EyeLike", [np.zeros((5, 3), np.float32)], opset=9, k=diagonal, **options)


@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 9, 16])
@pytest.mark.parametrize("window", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows(window: str, size: int, periodic: int) -> None:
    if size == 1 and not periodic:
        assert run(window, [np.array(1)], periodic=0).tolist() == [1]  # the runtime divides by zero
        return
    assert_agrees(window, [np.array(size)], opset=17, periodic=periodic)
    options = {"output_datatype": int(TensorProto.DOUBLE)}
    assert_agrees(window, [np.array(size)], opset=17, periodic=periodic, **options)


@pytest.mark.parametrize(
    ("bands", "length", "rate", "low", "high"), [(8, 16, 8192, 0.0, 4096.0), (20, 128, 16000, 80.0, 7600.0)]
)
def test_mel_weights(bands: int, length: int, rate: int, low: float, high: float) -> None:
    edges = [np.array(low, np.float32), np.array(high, np.float32)]
    assert_agrees("MelWeightMatrix", [np.array(bands), np.array(length), np.array(rate), *edges], opset=17)


DRAWS: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("RandomNormal", [], {"shape": [200, 300], "mean": 0.5, "scale": 2.0}),
    ("RandomNormalLike", [np.zeros((200, 300), np.float32)], {"mean": 0.5, "scale": 2.0}),
    ("RandomUniform", [], {"shape": [200, 300], "low": -1.0, "high": 3.0}),
    ("RandomUniformLike", [np.zeros((200, 300), np.float32)], {"low": -1.0, "high": 3.0}),
    ("Bernoulli", [np.full((200, 300), 0.25, np.float32)], {}),
    ("Multinomial", [np.log(np.tile([[1.0, 2.0, 5.0]], (200, 1))).astype(np.float32)], {"sample_size": 300}),
]
MOMENTS = {
    "RandomNormal": (0.5, 2.0),
    "RandomUniform": (1.0, 4 / 12**0.5),
    "Bernoulli": (0.25, 0.1875**0.5),
    "Multinomial": (1.5, (22 / 8 - 2.25) ** 0.5),
}


@pytest.mark.parametrize(("operator", "given", "options"), DRAWS)
def test_draws_have_their_moments(operator: str, given: list[np.ndarray], options: dict[str, Any]) -> None:
    graph = graph_of(operator, given, **options)
    graph.mode.generator = torch.Generator().manual_seed(0)
    feeds = {f"x{place}": torch.from_numpy(value) for place, value in enumerate(given)}
    first, second = graph(feeds)["y0"], graph(feeds)["y0"]
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    assert first.shape == (200, 300)
    assert not torch.equal(first, second)
    mean, deviation = MOMENTS[operator.removesuffix("Like")]
    assert first.double().mean().item() == pytest.approx(mean, abs=4 * deviation / 60000**0.5)
    assert first.double().std().item() == pytest.approx(deviation, rel=0.02)
    graph.mode.generator = torch.Generator().manual_seed(0)
    assert torch.equal(graph(feeds)["y0"], first)  # type: ignore[arg-type]


@pytest.mark.parametrize(("operator", "given", "options"), DRAWS)
def test_a_seed_of_its_own(operator: str, given: list[np.ndarray], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    first, again, other = (run(operator, given, seed=seed, **options) for seed in (0.25, 0.25, 0.5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("operator", "given", "options"), DRAWS)
def test_draws_in_another_type(operator: str, given: list[np.ndarray], options: dict[str, Any]) -> None:
    assert run(operator, given, dtype=int(TensorProto.DOUBLE), **options).dtype == (torch.float64)
    kept = run(operator, given, **options)
    assert kept.dtype == (torch.int32 if operator == "Multinomial" else torch.float32)


def test_a_uniform_draw_stays_in_its_bounds() -> None:
    found = computed(model_of("RandomUniform", [], shape=[1000], low=2.0, high=3.0), [])[0]
    assert 2 <= found.min() < found.max() < 3
