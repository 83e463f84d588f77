"""Blocks of images as channels and columns, against ONNX Runtime and each other, and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.one_node import gradients_agree, run
from tests.onnxruntime_reference import assert_agrees

CHANCE = np.random.default_rng(3)


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_channels_become_blocks(block: int, opset: int, mode: str) -> None:
    x = values(2, 2 * block**2, 3, 4)
    assert_agrees("DepthToSpace", [x.astype(np.float32)], opset=opset, blocksize=block, mode=mode)
    spread = run("DepthToSpace", [x], opset=28, blocksize=block, mode=mode)
    back = run("SpaceToDepth", [spread.numpy()], opset=28, blocksize=block, mode=mode)
    np.testing.assert_array_equal(back, x)


def test_the_first_forms() -> None:
    x = values(1, 8, 2, 3).astype(np.float32)
    assert_agrees("DepthToSpace", [x], opset=7, blocksize=2)
    assert_agrees("SpaceToDepth", [values(1, 2, 4, 6).astype(np.float32)], opset=7, blocksize=2)


@pytest.mark.parametrize(
    ("image", "block", "options"),
    [
        ((5, 6), (2, 3), {}),
        ((5, 6), (2, 3), {"strides": [2, 1]}),
        ((5, 6), (2, 2), {"dilations": [2, 3]}),
        ((5, 6), (2, 3), {"pads": [1, 0, 1, 2]}),
        ((3, 4, 5), (2, 1, 3), {"pads": [1, 0, 1, 0, 2, 1], "strides": [1, 2, 2]}),
        ((7,), (3,), {"strides": [2]}),
    ],
)
def test_columns_are_laid_back(image: tuple[int, ...], block: tuple[int, ...], options: dict[str, list[int]]) -> None:
    # what one element becomes is read off by unfolding: the sum over both of x * unfold(y) is that of fold(x) * y
    rank = len(image)
    pads = options.get("pads", [0] * 2 * rank)
    strides, dilations = options.get("strides", [1] * rank), options.get("dilations", [1] * rank)
    y = values(2, 3, *image)
    padded = np.pad(y, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    corners = [
        range(0, size - (length - 1) * gap, stride)
        for size, length, gap, stride in zip(padded.shape[2:], block, dilations, strides, strict=True)
    ]
    columns = np.stack(
        [
            np.stack(
                [
                    padded[(..., *(c + o * d for c, o, d in zip(corner, offset, dilations, strict=True)))]
                    for corner in np.array(np.meshgrid(*corners, indexing="ij")).reshape(rank, -1).T
                ],
                -1,
            )
            for offset in np.ndindex(*block)
        ],
        2,
    ).reshape(2, 3 * int(np.prod(block)), -1)
    x = CHANCE.standard_normal(columns.shape)
    found = run("Col2Im", [x, np.array(image), np.array(block)], opset=18, **options)
    assert found.shape == y.shape
    np.testing.assert_allclose((found.numpy() * y).sum(), (x * columns).sum(), rtol=1e-12)
    if rank > 1:
        given = [x.astype(np.float32), np.array(image), np.array(block)]
        assert_agrees("Col2Im", given, opset=18, **options)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_gradients(mode: str) -> None:
    assert gradients_agree("DepthToSpace", [values(1, 8, 2, 1)], blocksize=2, mode=mode)
    assert gradients_agree("SpaceToDepth", [values(1, 1, 4, 2)], opset=28, blocksize=2, mode=mode)
    assert gradients_agree("Col2Im", [values(1, 4, 4), np.array([3, 3]), np.array([2, 2])])


def test_columns_of_whole_numbers() -> None:
    x = np.ones((1, 4, 4), np.int32)
    found = run("Col2Im", [x, np.array([3, 3]), np.array([2, 2])])
    torch.testing.assert_close(found, torch.tensor([[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]], dtype=torch.int32))
