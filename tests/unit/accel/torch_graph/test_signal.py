"""Fourier transforms against ONNX Runtime and NumPy, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.one_node import gradients_agree, run
from tests.onnxruntime_reference import assert_agrees

CHANCE = np.random.default_rng(17)


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape)


@pytest.mark.parametrize("length", [None, 8, 5, 11])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -2])
@pytest.mark.parametrize(("inverse", "half"), [(0, 0), (1, 0), (0, 1)])
def test_transforms(inverse: int, half: int, axis: int, parts: int, length: int | None) -> None:
    if half and parts == 2:
        parts = 1  # one half is enough only for what is real
    x = values(6, 8, parts)
    size = [] if length is None else [np.array(length)]
    signal = x[..., 0] if parts == 1 else x[..., 0] + 1j * x[..., 1]
    along = axis if axis >= 0 else axis + 1
    compute = np.fft.rfft if half else np.fft.ifft if inverse else np.fft.fft
    expected = compute(signal, length, along)
    wanted = np.stack([expected.real, expected.imag], -1)
    place = [] if not size and axis == -2 else [np.array(axis)]
    given = [x, *(size or ([None] if place else [])), *place]
    np.testing.assert_allclose(run("DFT", given, opset=20, inverse=inverse, onesided=half), wanted, atol=1e-9)
    older = run("DFT", [x, *size], opset=17, inverse=inverse, onesided=half, axis=axis)
    np.testing.assert_allclose(older, wanted, atol=1e-9)


@pytest.mark.parametrize("length", [None, 8, 5])
def test_a_real_signal_from_half_of_its_transform(length: int | None) -> None:
    x = values(2, 6, 2)
    expected = np.fft.irfft(x[..., 0] + 1j * x[..., 1], length, 1)
    given = [x, *([] if length is None else [np.array(length)])]
    found = run("DFT", given, opset=20, inverse=1, onesided=1)
    np.testing.assert_allclose(found, expected[..., None], atol=1e-9)


@pytest.mark.parametrize("opset", [17, 20])
def test_transforms_are_those_of_onnx_runtime(opset: int) -> None:
    for size, parts in ((8, 1), (12, 2), (7, 1)):
        x = values(3, size, parts).astype(np.float32)
        for inverse in (0, 1):
            assert_agrees("DFT", [x], opset=opset, inverse=inverse)
    assert_agrees("DFT", [values(3, 8, 1).astype(np.float32)], opset=opset, onesided=1)


def test_small_floats_are_transformed_in_large_ones() -> None:
    x = values(2, 9, 1).astype(np.float16)
    found = run("DFT", [x], opset=20)
    assert found.dtype == torch.float16
    expected = np.fft.fft(x[..., 0].astype(np.float64), axis=1)
    np.testing.assert_allclose(found, np.stack([expected.real, expected.imag], -1), atol=2e-2)


WINDOW = np.hanning(8).astype(np.float32)


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("more", [[WINDOW], [None, np.array(8)], [WINDOW, np.array(8)], [np.ones(5, np.float32)]])
@pytest.mark.parametrize("step", [1, 3, 8])
def test_frames(step: int, more: list[Any], half: int) -> None:
    signal = values(2, 20, 1).astype(np.float32)
    assert_agrees("STFT", [signal, np.array(step), *more], opset=17, onesided=half)


def test_frames_of_complex_numbers() -> None:
    signal = values(1, 12, 2)
    joined = signal[..., 0] + 1j * signal[..., 1]
    found = run("STFT", [signal, np.array(4), None, np.array(4)], onesided=0)
    expected = np.fft.fft(joined.reshape(1, 3, 4))
    np.testing.assert_allclose(found, np.stack([expected.real, expected.imag], -1), atol=1e-9)


def test_one_frame_of_the_whole_signal() -> None:
    signal = values(2, 10, 1)
    expected = np.fft.rfft(signal[..., 0])[:, None]
    for given in (signal, signal[..., 0]):
        found = run("STFT", [given, np.array(1)])
        np.testing.assert_allclose(found, np.stack([expected.real, expected.imag], -1), atol=1e-9)


@pytest.mark.parametrize(
    ("operator", "given", "options"),
    [
        ("DFT", [values(2, 5, 1)], {}),
        ("DFT", [values(2, 5, 2)], {"inverse": 1}),
        ("DFT", [values(2, 6, 1), np.array(8)], {"onesided": 1}),
        ("DFT", [values(2, 4, 2)], {"onesided": 1, "inverse": 1}),
        ("STFT", [values(1, 9, 1), np.array(2), values(4)], {}),
    ],
)
def test_gradients(operator: str, given: list[np.ndarray], options: dict[str, Any]) -> None:
    assert gradients_agree(operator, given, **options)
