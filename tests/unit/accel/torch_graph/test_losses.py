"""Losses of a classification: gradients, weights, classes that are ignored."""

from __future__ import annotations

import numpy as np
import pytest

from accel.errors import UnsupportedOperator
from tests import models
from tests.one_node import computed, gradients_agree, model_of, run

SCORES = np.random.default_rng(0).normal(size=(3, 5, 2))
CLASSES = np.array([[0, 4], [2, 7], [1, 1]])
"""One of them is no class: the one that is ignored."""
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.1, 0.7])
LOSSES = ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_onnx_runtime(loss: str, reduction: str, weighted: bool) -> None:
    options = {"reduction": reduction, "ignore_index": 7}
    given = [SCORES, CLASSES, WEIGHTS][: 3 if weighted else 2]
    assert gradients_agree(loss, given, **options)
    single = [value.astype(np.float32) if value.dtype == np.float64 else value.astype(np.int32) for value in given]
    model = model_of(loss, single, opset=13, **options)
    expected = models.run(model, {f"x{place}": value for place, value in enumerate(single)})["y0"]
    np.testing.assert_allclose(computed(model, single)[0].numpy(), expected, rtol=1e-5)


def test_the_logarithms_are_an_output_of_their_own() -> None:
    given = [SCORES, np.zeros((3, 2), np.int64)]
    loss, logarithms = computed(model_of("SoftmaxCrossEntropyLoss", given, outputs=2), given)
    np.testing.assert_allclose(np.exp(logarithms.numpy()).sum(1), 1)
    np.testing.assert_allclose(loss.numpy(), -logarithms.numpy()[:, 0].mean())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_reduction_that_is_unknown_is_refused(loss: str) -> None:
    with pytest.raises(UnsupportedOperator, match="its reduction 'median' is unknown"):
        run(loss, [SCORES, CLASSES], reduction="median")
