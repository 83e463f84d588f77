"""Attention without a softmax: what was seen is summed in a matrix, which each query reads."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from accel.graph.torch_graph.attention import for_heads, heads, merged
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

_RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}
"""Whether the matrix decays, and whether only the difference from what it holds already is added."""


@operator("LinearAttention", since=27)
def linear_attention(node: Node) -> Run:
    """Keys and values summed place after place, with decay and the delta rule (Yang et al. 2024, arXiv 2412.06464)."""
    query_heads, key_heads = node.int("q_num_heads", 0), node.int("kv_num_heads", 0)
    given, rule = node.float("scale", 0.0), node.string("update_rule", "gated_delta")
    if rule not in _RULES:
        raise unsupported(node, f"its update_rule {rule!r} is unknown")
    decays, corrects = _RULES[rule]

    def run(
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        past: Tensor | None = None,
        decay: Tensor | None = None,
        rate: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if decays != (decay is not None) or corrects != (rate is not None):
            raise ValueError(f"the rule {rule} does not go with the inputs decay and beta that are given")
        wide = torch.promote_types(queries.dtype, torch.float32)
        q, k, v = heads(queries, query_heads), heads(keys, key_heads), heads(values, key_heads)
        q, k, v = q.to(wide) * (given or 1 / sqrt(q.shape[-1])), k.to(wide), v.to(wide)
        state = v.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]) if past is None else past.to(wide)
        shrink = None if decay is None else heads(decay, key_heads).to(wide).exp()
        share = None if rate is None else rate.to(wide).transpose(1, 2)
        found = []
        for place in range(q.shape[2]):
            key, value = k[:, :, place], v[:, :, place]
            if shrink is not None:
                state = state * shrink[:, :, place].unsqueeze(-1)
            if share is not None:
                held = (key.unsqueeze(-2) @ state).squeeze(-2)
                value = share[:, :, place].unsqueeze(-1) * (value - held)
            state = state + key.unsqueeze(-1) * value.unsqueeze(-2)
            found.append(q[:, :, place].unsqueeze(-2) @ for_heads(state, q))
        y = merged(torch.cat(found, 2)).to(queries.dtype)
        return y, state.to(queries.dtype if past is None else past.dtype)

    return run
