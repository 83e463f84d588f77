"""Attention as ONNX has it."""

from __future__ import annotations

from math import inf
from typing import cast

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.attention import Reach, Scores, Scoring, attend, both, for_heads, heads, merged, scores_of
from accel.graph.torch_graph.dtypes import torch_dtype
from accel.graph.torch_graph.node import Node, Value
from accel.graph.torch_graph.registry import Run, operator, unsupported

_SCORES = 3
"""The output that shows scores."""


@operator("Attention", since=23)
def attention(node: Node) -> Run:
    """Attention, with what was seen before it, masks, and windows."""
    precision = node.type_of("softmax_precision")
    scoring = Scoring(
        node.float("scale", 0.0) if node.has("scale") else None,
        node.float("softcap", 0.0),
        torch_dtype(precision) if precision else None,
    )
    reach = Reach(bool(node.int("is_causal", 0)), node.int("left_window_size", -1), node.int("right_window_size", -1))
    query_heads, key_heads = node.int("q_num_heads", 0), node.int("kv_num_heads", 0)
    stage, shown = node.int("qk_matmul_output_mode", 0), node.wants(_SCORES)
    if stage not in range(len(Scores._fields)):
        raise unsupported(node, f"its qk_matmul_output_mode {stage} is unknown")

    def run(
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        past_keys: Tensor | None = None,
        past_values: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        flat = queries.ndim == 3  # noqa: PLR2004  (heads side by side)
        if flat:
            queries, keys, values = heads(queries, query_heads), heads(keys, key_heads), heads(values, key_heads)
        before: int | Tensor = 0
        if past_keys is not None and past_values is not None:
            before = past_keys.shape[2]
            keys, values = torch.cat([past_keys, keys], 2), torch.cat([past_values, values], 2)
        elif lengths is not None:
            before = lengths - queries.shape[2]
        mask = _mask(mask, queries, keys, reach, before, lengths)
        causal = mask is None and reach.causal
        if shown:
            if causal:
                mask = reach.visible(queries.shape[2], keys.shape[2], 0, queries.device)
            scores = scores_of(queries, keys, mask, scoring)
            y, found = torch.matmul(scores.shares, for_heads(values, queries)), scores[stage]
        else:
            y, found = attend(queries, keys, values, mask, scoring, causal=causal), None
        y = merged(y) if flat else y
        return (y, keys, values) if found is None else (y, keys, values, found)

    return run


@operator("FlexAttention", domain="ai.onnx.preview")
def flex_attention(node: Node) -> Run:
    """Attention whose scores and shares may pass through sub-graphs of the node."""
    wanted, scale = node.type_of("softmax_precision"), node.float("scale", 0.0) if node.has("scale") else None
    precision = torch_dtype(wanted) if wanted else None
    score, share = node.bodies.get("score_mod"), node.bodies.get("prob_mod")

    def run(queries: Tensor, keys: Tensor, values: Tensor, *, outer: dict[ir.Value, Value] | None = None) -> Tensor:
        within = precision or torch.promote_types(queries.dtype, torch.float32)
        scoring = Scoring(scale, precision=within)
        if score is None and share is None:
            return attend(queries, keys, values, None, scoring)
        scores: Value = scores_of(queries, keys, None, scoring).products.to(within)
        if score is not None:
            (scores,) = score([scores], outer or {})
        shares: Value = torch.softmax(cast("Tensor", scores), -1)
        if share is not None:
            (shares,) = share([shares], outer or {})
        return torch.matmul(cast("Tensor", shares), for_heads(values, queries).to(within)).to(values.dtype)

    return run


def _mask(
    mask: Tensor | None, queries: Tensor, keys: Tensor, reach: Reach, before: int | Tensor, lengths: Tensor | None
) -> Tensor | None:
    """All that hides keys, in one mask; None if nothing does but a kernel's own causal one."""
    count = keys.shape[2]
    if mask is not None and mask.shape[-1] < count:
        hidden = False if mask.dtype == torch.bool else -inf
        mask = F.pad(mask, [0, count - mask.shape[-1]], value=hidden)
    plain = reach == Reach(causal=True) and mask is None and lengths is None and isinstance(before, int) and before == 0
    if not plain and not reach.is_whole():
        mask = both(mask, reach.visible(queries.shape[2], count, before, queries.device))
    if lengths is not None:
        within = torch.arange(count, device=queries.device) < lengths.to(queries.device).reshape(-1, 1, 1, 1)
        mask = both(mask, within)
    return mask
