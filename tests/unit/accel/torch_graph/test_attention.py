"""Attention in all its forms: against ONNX Runtime and written out, and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.one_node import Given, computed, gradients_agree, graph_of, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(4)
MICROSOFT = "com.microsoft"
BATCH, PLACES, HEADS, SIZE = 2, 5, 4, 6
HIDDEN = HEADS * SIZE
FLASH = "aten::scaled_dot_product_attention"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share such small products only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def floats(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def doubles(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape)


def mask(*shape: int) -> np.ndarray:
    """0 for what is hidden, which is never all of a row."""
    found = (CHANCE.random(shape) > 0.4).astype(np.int32)
    found[..., 0] = 1
    return found


def queries_keys_values(groups: int = HEADS) -> list[Given]:
    return [floats(BATCH, HEADS, PLACES, SIZE), floats(BATCH, groups, 7, SIZE), floats(BATCH, groups, 7, 3)]


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("form", [{}, {"is_causal": 1}, {"scale": 0.3}, {"softcap": 2.0}], ids=str)
def test_forms_of_the_runtime(groups: int, form: dict[str, Any]) -> None:
    given = queries_keys_values(groups)
    assert_agrees("Attention", given, **form)
    assert_agrees("Attention", [*given, mask(PLACES, 7) > 0], **form)
    assert_agrees("Attention", [*given, floats(BATCH, HEADS, PLACES, 7)], **form)
    flat = [value.swapaxes(1, 2).reshape(BATCH, value.shape[2], -1) for value in given if value is not None]
    assert_agrees("Attention", flat, q_num_heads=HEADS, kv_num_heads=groups, **form)


@pytest.mark.parametrize("stage", range(4))
def test_what_is_kept_and_what_is_shown(stage: int) -> None:
    given = [*queries_keys_values(), floats(PLACES, 10), floats(BATCH, HEADS, 3, SIZE), floats(BATCH, HEADS, 3, 3)]
    form: dict[str, Any] = {"outputs": 4, "qk_matmul_output_mode": stage, "softcap": 3.0}
    assert_agrees("Attention", given, **form)
    shown = computed(model_of("Attention", given, **form), given)
    kept = computed(model_of("Attention", given, softcap=3.0), given)
    torch.testing.assert_close(kept[0], shown[0])
    with pytest.raises(UnsupportedOperator, match="qk_matmul_output_mode 7"):
        graph_of("Attention", given, outputs=4, qk_matmul_output_mode=7)


def test_common_forms_run_in_one_kernel_and_without_a_mask_of_their_own() -> None:
    given = queries_keys_values()
    for form in ({}, {"is_causal": 1}):
        assert kernels_of(model_of("Attention", given, **form), given) == [FLASH]
    given.append(mask(PLACES, 7) > 0)
    assert kernels_of(model_of("Attention", given), given) == [FLASH]


def written_out(given: list[Given], visible: np.ndarray) -> np.ndarray:
    q, k, v = (value.astype(np.float64) for value in given[:3] if value is not None)
    scores = np.where(visible, q @ k.swapaxes(-1, -2) / np.sqrt(SIZE), -1e30)
    shares = np.exp(scores - scores.max(-1, keepdims=True)) * visible
    total = shares.sum(-1, keepdims=True)
    found: np.ndarray = (shares / np.where(total == 0, 1, total)) @ v
    return found


@pytest.mark.parametrize("form", [{}, {"is_causal": 1}, {"left_window_size": 1, "right_window_size": 2}], ids=str)
@pytest.mark.parametrize("lengths", [[7, 5], [7, 2]], ids=str)
def test_caches_of_different_lengths_and_windows(form: dict[str, int], lengths: list[int]) -> None:
    given = queries_keys_values()
    at, keys = np.arange(PLACES)[:, None], np.arange(7)
    within = np.array(lengths)[:, None, None, None]
    distance = keys - (at + within - PLACES)
    visible = (keys < within) & np.ones_like(distance, bool)
    if form.get("is_causal"):
        visible &= distance <= 0
    if "left_window_size" in form:
        visible &= (distance >= -1) & (distance <= 2)
    feeds = [*given, None, None, None, np.array(lengths)]
    found = run("Attention", feeds, opset=25, **form)
    np.testing.assert_allclose(found.numpy(), written_out(given, visible), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [{}, {"softcap": 2.0}], ids=["kernel", "written out"])
def test_a_query_that_sees_nothing_finds_zero_and_has_no_gradient(form: dict[str, float]) -> None:
    given = queries_keys_values()
    seen = np.ones((PLACES, 7), bool)
    seen[2] = False
    added = np.where(seen, np.float32(0), np.float32(-np.inf))
    for hiding in (seen, added):
        graph = graph_of("Attention", [*given, hiding], **form)
        feeds = {
            f"x{place}": torch.from_numpy(value) for place, value in enumerate([*given, hiding]) if value is not None
        }
        for place in range(3):
            feeds[f"x{place}"].requires_grad_()
        found = graph(feeds)["y0"]
        assert (found[:, :, 2] == 0).all()
        found.sum().backward()
        for place in range(3):
            gradient = feeds[f"x{place}"].grad
            assert gradient is not None
            assert gradient.isfinite().all()
            feeds[f"x{place}"].grad = None


@pytest.mark.parametrize(
    "form",
    [{}, {"is_causal": 1}, {"softcap": 2.0}, {"softmax_precision": int(TensorProto.DOUBLE), "scale": 0.7}],
    ids=str,
)
def test_gradients(form: dict[str, Any]) -> None:
    given: list[Given] = [doubles(1, 4, 3, 2), doubles(1, 2, 4, 2), doubles(1, 2, 4, 2)]
    assert gradients_agree("Attention", given, **form)
    assert gradients_agree("Attention", [*given, doubles(3, 6), doubles(1, 2, 2, 2), doubles(1, 2, 2, 2)], **form)


def test_softmax_in_another_precision() -> None:
    given = [value.astype(np.float16) for value in queries_keys_values() if value is not None]
    wide = run("Attention", given, softmax_precision=int(TensorProto.FLOAT))
    assert wide.dtype == torch.float16
    exact = run("Attention", [value.astype(np.float32) for value in given])
    torch.testing.assert_close(wide.float(), exact, rtol=4e-3, atol=4e-3)


def test_sub_graphs_change_scores_and_shares_and_pass_gradients() -> None:
    def body(operator: str, name: str) -> Any:
        node = helper.make_node(operator, ["given", "shift"], ["made"])
        value = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None] * 4) for name in ("given", "made")]
        return helper.make_graph([node], name, value[:1], value[1:])

    node = helper.make_node(
        "FlexAttention",
        ["q", "k", "v"],
        ["y"],
        domain="ai.onnx.preview",
        score_mod=body("Add", "s"),
        prob_mod=body("Mul", "p"),
    )
    names = {"q": (1, 4, 3, 2), "k": (1, 2, 5, 2), "v": (1, 2, 5, 2), "shift": (3, 5)}
    graph = helper.make_graph(
        [node],
        "flex",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name, shape in names.items()],
        [helper.make_empty_tensor_value_info("y")],
    )
    imports = [helper.make_opsetid("", 26), helper.make_opsetid("ai.onnx.preview", 1)]
    module = TorchGraph(ir.from_proto(helper.make_model(graph, opset_imports=imports)), nothing)
    leaves = [torch.from_numpy(doubles(*shape)).requires_grad_() for shape in names.values()]

    def first(*tensors: torch.Tensor) -> torch.Tensor:
        found = module(dict(zip(names, tensors, strict=True)))["y"]
        assert isinstance(found, torch.Tensor)
        return found

    q, k, v, shift = leaves
    shares = torch.softmax(q @ k.repeat_interleave(2, 1).mT / 2**0.5 + shift, -1) * shift
    torch.testing.assert_close(first(*leaves), shares @ v.repeat_interleave(2, 1))
    assert torch.autograd.gradcheck(first, leaves)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention_passes_gradients(rule: str) -> None:
    given: list[Given] = [doubles(1, 3, 8), doubles(1, 3, 4), doubles(1, 3, 6), doubles(1, 2, 2, 3)]
    given.append(doubles(1, 3, 4 if rule == "gated" else 2) if "gated" in rule else None)
    given.append(doubles(1, 3, 2) if "delta" in rule else None)
    while given[-1] is None:
        given.pop()
    form: dict[str, Any] = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule, "opset": 27, "outputs": 2}
    assert gradients_agree("LinearAttention", given, **form)
    whole, after = computed(model_of("LinearAttention", given, **form), given)
    # The same in two parts, the second of which begins where the first ended.
    cut = [value[:, :2] if value is not None and place != 3 else value for place, value in enumerate(given)]
    rest = [value[:, 2:] if value is not None and place != 3 else value for place, value in enumerate(given)]
    early, state = computed(model_of("LinearAttention", cut, **form), cut)
    rest[3] = state.numpy()
    late, end = computed(model_of("LinearAttention", rest, **form), rest)
    torch.testing.assert_close(torch.cat([early, late], 1), whole)
    torch.testing.assert_close(end, after)


def test_a_rule_without_what_it_needs() -> None:
    given: list[Given] = [floats(1, 3, 8), floats(1, 3, 4), floats(1, 3, 6)]
    with pytest.raises(TrainingFailed, match="decay and beta"):
        run("LinearAttention", given, q_num_heads=4, kv_num_heads=2, opset=27)
    with pytest.raises(UnsupportedOperator, match="'quadratic'"):
        graph_of("LinearAttention", given, q_num_heads=4, kv_num_heads=2, opset=27, update_rule="quadratic")


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotations(interleaved: int) -> None:
    places = CHANCE.integers(0, 20, (BATCH, PLACES))
    flat, four = floats(BATCH, PLACES, HIDDEN), floats(BATCH, HEADS, PLACES, SIZE)
    angles = [floats(20, SIZE // 2) for _ in range(2)]
    form: dict[str, Any] = {"interleaved": interleaved}
    assert_agrees("RotaryEmbedding", [flat, places, *angles], domain=MICROSOFT, **form)
    assert_agrees("RotaryEmbedding", [flat, np.array([4]), *angles], domain=MICROSOFT, **form)
    assert_agrees("RotaryEmbedding", [four, places, *angles], domain=MICROSOFT, **form)
    part = [flat, places, floats(20, 2), floats(20, 2)]
    assert_agrees("RotaryEmbedding", part, domain=MICROSOFT, num_heads=HEADS, rotary_embedding_dim=4, **form)
    assert_agrees("RotaryEmbedding", [four, *angles, places], **form)
    small: list[Given] = [doubles(1, 2, 8), doubles(1, 2, 2), doubles(1, 2, 2)]
    assert gradients_agree("RotaryEmbedding", small, num_heads=2, **form)
    with pytest.raises(UnsupportedOperator, match="scales"):
        graph_of("RotaryEmbedding", [four, places, *angles], domain=MICROSOFT, scale=2.0)


MASKS = {
    "none": None,
    "lengths": np.array([3, 5], np.int32),
    "ends and starts": np.array([4, 5, 1, 0], np.int32),
    "keys": mask(BATCH, PLACES),
    "queries and keys": mask(BATCH, PLACES, PLACES),
    "nothing seen": np.zeros((BATCH, PLACES), np.int32),
}


@pytest.mark.parametrize("hiding", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_its_projection(hiding: str, causal: int) -> None:
    given = [floats(BATCH, PLACES, 10), floats(10, 3 * HIDDEN), floats(3 * HIDDEN), MASKS[hiding]]
    assert_agrees("Attention", given, domain=MICROSOFT, num_heads=HEADS, unidirectional=causal)
    past = floats(2, BATCH, HEADS, 3, SIZE)
    if hiding == "none":
        form: dict[str, Any] = {"num_heads": HEADS, "unidirectional": causal, "outputs": 2}
        assert_agrees("Attention", [*given, past], domain=MICROSOFT, **form)
        added = [*given, None, floats(BATCH, HEADS, PLACES, PLACES)]
        assert_agrees("Attention", added, domain=MICROSOFT, num_heads=HEADS, unidirectional=causal, scale=0.4)
        sizes = [given[0], floats(10, 2 * HIDDEN + 8), floats(2 * HIDDEN + 8)]
        assert_agrees("Attention", sizes, domain=MICROSOFT, num_heads=HEADS, qkv_hidden_sizes=[HIDDEN, HIDDEN, 8])


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_of_what_was_projected(causal: int) -> None:
    form: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    query, keys, values = floats(BATCH, PLACES, HIDDEN), floats(BATCH, 7, HIDDEN), floats(BATCH, 7, HEADS * 3)
    if not causal:
        assert_agrees("MultiHeadAttention", [query, keys, values, floats(2 * HIDDEN + HEADS * 3)], scale=0.5, **form)
        hiding = [None, mask(BATCH, 7), floats(1, HEADS, PLACES, 7)]
        assert_agrees("MultiHeadAttention", [query, keys, values, *hiding], **form)
        assert_agrees("MultiHeadAttention", [query, keys, values, None, np.array([3, 7], np.int32)], **form)
    cached: list[Given] = [query, floats(BATCH, HEADS, 7, SIZE), floats(BATCH, HEADS, 7, SIZE), floats(3 * HIDDEN)]
    assert_agrees("MultiHeadAttention", cached, **form)
    own = [query, floats(BATCH, PLACES, HIDDEN), floats(BATCH, PLACES, HIDDEN)]
    assert_agrees("MultiHeadAttention", own, unidirectional=causal, **form)
    past = [*own, None, None, None, floats(BATCH, HEADS, 3, SIZE), floats(BATCH, HEADS, 3, SIZE)]
    assert_agrees("MultiHeadAttention", past, unidirectional=causal, outputs=3, **form)


def test_queries_keys_and_values_in_one_tensor() -> None:
    form: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    whole, bias = floats(BATCH, PLACES, HEADS, 3, SIZE), floats(3 * HIDDEN)
    parts = [whole[:, :, :, place].reshape(BATCH, PLACES, HIDDEN) for place in range(3)]
    expected = run("MultiHeadAttention", [*parts, bias], **form)
    torch.testing.assert_close(run("MultiHeadAttention", [whole, None, None, bias], **form), expected)
    pair = np.ascontiguousarray(whole[:, :, :, 1:])
    torch.testing.assert_close(run("MultiHeadAttention", [parts[0], pair, None, bias], **form), expected)
    shares = computed(model_of("MultiHeadAttention", parts, outputs=4, unidirectional=1, **form), parts)[3]
    torch.testing.assert_close(shares.sum(-1), torch.ones(BATCH, HEADS, PLACES))
    assert torch.equal(shares, shares.tril())


def test_gradients_of_fused_attention() -> None:
    projected: list[Given] = [doubles(1, 3, 4), doubles(4, 12), doubles(12), np.array([[1, 0, 1]], np.int32)]
    assert gradients_agree("Attention", projected, domain=MICROSOFT, num_heads=2, unidirectional=1)
    given: list[Given] = [doubles(1, 3, 4), doubles(1, 5, 4), doubles(1, 5, 4), doubles(12)]
    assert gradients_agree("MultiHeadAttention", given, domain=MICROSOFT, num_heads=2)


@pytest.mark.parametrize(
    ("operator", "form", "said"),
    [
        ("Attention", {"do_rotary": 1}, "do_rotary"),
        ("Attention", {"past_present_share_buffer": 1}, "writes into its past"),
        ("RotaryEmbedding", {"is_packed_batching": 1}, "end to end"),
    ],
)
def test_what_is_not_covered_is_refused(operator: str, form: dict[str, int], said: str) -> None:
    with pytest.raises(UnsupportedOperator, match=said):
        graph_of(operator, [floats(1, 3, 4), floats(4, 12), floats(12)], domain=MICROSOFT, num_heads=2, **form)


def test_a_mask_of_no_known_form() -> None:
    given = [floats(BATCH, PLACES, 10), floats(10, 3 * HIDDEN), None, np.zeros(7, np.int32)]
    with pytest.raises(TrainingFailed, match=r"a mask of the shape \(7,\)"):
        run("Attention", given, domain=MICROSOFT, num_heads=HEADS)
