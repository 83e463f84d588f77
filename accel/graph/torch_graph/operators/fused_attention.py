"""Attention as ONNX Runtime's optimiser writes it: with the projection before it, or with its bias."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.attention import Reach, Scoring, attend, both, for_heads, heads, merged, scores_of
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

_MICROSOFT = "com.microsoft"
_PACKED = 5
"""Axes of queries, keys and values in one tensor, [batch, places, heads, 2 or 3, size]."""
_SHARED_LENGTH, _BEAMS = 8, 9
"""Places of inputs for caches that are written in place."""


@operator("Attention", domain=_MICROSOFT)
def attention(node: Node) -> Run:
    """Attention with the projection of one input to queries, keys and values before it."""
    count, sizes, fused = node.int("num_heads", 1), node.ints("qkv_hidden_sizes"), _Fused(node)
    if node.int("do_rotary", 0):
        raise unsupported(node, "it turns queries and keys (do_rotary)")
    if node.int("past_present_share_buffer", 0):
        raise unsupported(node, "it writes into its past (past_present_share_buffer)")

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        past: Tensor | None = None,
        added: Tensor | None = None,
        _length: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        parts = torch.split(F.linear(x, weight.t(), bias), list(sizes) or weight.shape[1] // 3, 2)
        queries, keys, values = (heads(part, count) for part in parts)
        before = 0
        if past is not None:
            before = past.shape[3]
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        y, _ = fused.attend(queries, keys, values, mask, added, before)
        return (merged(y), torch.stack([keys, values])) if node.wants(1) else (merged(y),)

    return run


@operator("MultiHeadAttention", domain=_MICROSOFT)
def multi_head_attention(node: Node) -> Run:
    """Attention of queries, keys and values that were projected before, each for itself or all in one tensor."""
    count, fused = node.int("num_heads", 1), _Fused(node)
    shown = node.wants(3)
    for place in (_SHARED_LENGTH, _BEAMS):
        if place < node.inputs and node.native.inputs[place] is not None:
            raise unsupported(node, "it writes into its past")

    def run(
        queries: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        added: Tensor | None = None,
        past_keys: Tensor | None = None,
        past_values: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        q, k, v = _separate(queries, keys, values, bias, count)
        before = 0
        if past_keys is not None and past_values is not None:
            before = past_keys.shape[2]
            k, v = torch.cat([past_keys, k], 2), torch.cat([past_values, v], 2)
        y, shares = fused.attend(q, k, v, mask, added, before, shown=shown)
        return merged(y), k, v, shares

    return run


class _Fused:
    """What both of them have in common."""

    def __init__(self, node: Node) -> None:
        scale = node.float("scale", 0.0)
        self._scoring = Scoring(scale or None)
        self._reach = Reach(causal=bool(node.int("unidirectional", 0)))
        self._hidden = node.float("mask_filter_value", -10000.0)

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        added: Tensor | None,
        before: int,
        *,
        shown: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What each query finds, and if ``shown`` the shares of all keys in it.

        A key that the mask hides gets a great negative number added to its score, not the least there is, so that
        where all are hidden all count alike.
        """
        count = keys.shape[2]
        total: Tensor | None = None
        if mask is not None:
            total = torch.zeros((), dtype=queries.dtype, device=queries.device)
            total = torch.where(_seen(mask, queries, count), total, self._hidden)
        if added is not None:
            total = added if total is None else total + added
        causal = self._reach.causal and total is None and before == 0
        if self._reach.causal and (shown or not causal):
            total = both(total, self._reach.visible(queries.shape[2], count, before, queries.device))
        if not shown:
            return attend(queries, keys, values, total, self._scoring, causal=causal), None
        shares = scores_of(queries, keys, total, self._scoring).shares
        return torch.matmul(shares, for_heads(values, queries)), shares


def _seen(mask: Tensor, queries: Tensor, keys: int) -> Tensor:
    """Which keys a mask shows, bool, broadcast against [batch, heads, queries, keys].

    Args:
        mask: [batch] of lengths; [2 * batch] of ends and then of starts; 0 where a key is hidden in [batch, keys]
            or [batch, queries, keys].
        queries: [batch, heads, queries, size].
        keys: How many there are.
    """
    mask, batch, places = mask.to(queries.device), queries.shape[0], torch.arange(keys, device=queries.device)
    match mask.ndim:
        case 1 if mask.shape[0] == batch:
            return places < mask.reshape(-1, 1, 1, 1)
        case 1 if mask.shape[0] == 2 * batch:
            ends, starts = mask.reshape(2, -1, 1, 1, 1).unbind()
            return (places < ends) & (places >= starts)
        case 2:
            return mask[:, None, None] > 0
        case 3:
            return mask[:, None] > 0
    raise ValueError(f"a mask of the shape {tuple(mask.shape)} is none that ONNX Runtime computes on a processor")


def _separate(
    queries: Tensor, keys: Tensor | None, values: Tensor | None, bias: Tensor | None, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as [batch, heads, places, size] each, the bias added."""
    if queries.ndim == _PACKED:
        found = list(queries.permute(3, 0, 2, 1, 4))
    elif keys is not None and keys.ndim == _PACKED:
        found = [heads(queries, count), *keys.permute(3, 0, 2, 1, 4)]
    elif keys is not None and values is not None:
        found = [heads(x, count) if x.ndim == 3 else x for x in (queries, keys, values)]  # noqa: PLR2004
    else:
        raise ValueError("keys and values are missing")
    if bias is not None:
        parts = torch.split(bias, [x.shape[1] * x.shape[3] for x in found])
        cached = keys is not None and keys.ndim == 4  # noqa: PLR2004  (their bias is in them already)
        found = [
            x if cached and place else x + part.reshape(count, 1, -1)
            for place, (x, part) in enumerate(zip(found, parts, strict=True))
        ]
    first, second, third = found
    return first, second, third
