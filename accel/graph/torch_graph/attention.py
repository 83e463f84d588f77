"""Attention: queries look up values by keys (Vaswani et al. 2017, arXiv 1706.03762)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)


@dataclass(frozen=True, slots=True)
class Scoring:
    """How scores become shares."""

    scale: float | None = None
    """What products are multiplied by; by one over the root of the head's size if None."""
    softcap: float = 0.0
    """Bound that scores approach by ``softcap * tanh(score / softcap)``; 0 for none."""
    precision: torch.dtype | None = None
    """What the softmax is computed in; the type of the queries if None."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which keys a query sees, by their places."""

    causal: bool = False
    """None behind it."""
    left: int = -1
    """How many before it at most; -1 for all."""
    right: int = -1
    """How many behind it at most; -1 for all."""

    def is_whole(self) -> bool:
        """Whether it sees all."""
        return not self.causal and self.left < 0 and self.right < 0

    def visible(self, queries: int, keys: int, before: int | Tensor, device: torch.device) -> Tensor:
        """What it sees: bool [queries, keys].

        Args:
            queries: How many there are.
            keys: How many there are.
            before: How many keys stand before the first query; [batch] gives [batch, 1, queries, keys].
            device: Where the result is to be.
        """
        shift = before.to(device).reshape(-1, 1, 1, 1) if isinstance(before, Tensor) else before
        behind = torch.arange(keys, device=device) - torch.arange(queries, device=device).unsqueeze(1) - shift
        found = torch.ones_like(behind, dtype=torch.bool)
        if self.causal:
            found = behind <= 0
        if self.left >= 0:
            found = found & (behind >= -self.left)
        return found & (behind <= self.right) if self.right >= 0 else found


class Scores(NamedTuple):
    """What attention computes on its way, each [batch, heads, queries, keys]; by place as ``qk_matmul_output_mode`` counts."""

    products: Tensor
    capped: Tensor
    biased: Tensor
    shares: Tensor


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scoring: Scoring, *, causal: bool = False
) -> Tensor:
    """What each query finds; 0 where it may see no key.

    Args:
        queries: [batch, heads, queries, size].
        keys: [batch, groups, keys, size]; each group serves as many heads that follow each other.
        values: [batch, groups, keys, value size].
        mask: True where a key is seen, or what is added to its score; broadcast against [batch, heads, queries, keys].
        scoring: How scores become shares.
        causal: Whether query i sees the keys up to i alone; not together with a mask.
    """
    precise = scoring.precision is None or scoring.precision == queries.dtype
    if scoring.softcap == 0 and precise:
        keys, values = for_heads(keys, queries), for_heads(values, queries)
        shown = mask.unsqueeze(0) if mask is not None and mask.ndim == 1 else mask
        return F.scaled_dot_product_attention(queries, keys, values, shown, 0.0, causal, scale=scoring.scale)
    if causal:
        mask = Reach(causal=True).visible(queries.shape[2], keys.shape[2], 0, queries.device)
    return torch.matmul(scores_of(queries, keys, mask, scoring).shares, for_heads(values, queries))


def scores_of(queries: Tensor, keys: Tensor, mask: Tensor | None, scoring: Scoring) -> Scores:
    """The scores of all keys for all queries; arguments are those of :func:`attend`."""
    root = sqrt(1 / sqrt(queries.shape[-1]) if scoring.scale is None else scoring.scale)
    products = torch.matmul(queries * root, (for_heads(keys, queries) * root).transpose(-1, -2))
    capped = torch.tanh(products / scoring.softcap) * scoring.softcap if scoring.softcap else products
    if mask is None:
        return Scores(products, capped, capped, _softmax(capped, scoring.precision))
    bias = torch.zeros_like(mask, dtype=products.dtype).masked_fill(~mask, -inf) if mask.dtype == torch.bool else mask
    biased = capped + bias
    # A row of nothing but -inf has no softmax, and no gradient of one either.
    blind = (bias == -inf).all(-1, keepdim=True)
    shares = _softmax(torch.where(blind, 0, biased), scoring.precision)
    return Scores(products, capped, biased, torch.where(blind, 0, shares))


def both(mask: Tensor | None, visible: Tensor) -> Tensor:
    """A mask, bool or added, with the keys that are not visible hidden, too."""
    if mask is None:
        return visible
    return mask & visible if mask.dtype == torch.bool else torch.where(visible, mask, -inf)


def heads(x: Tensor, count: int) -> Tensor:
    """[batch, places, heads * size] as [batch, heads, places, size]."""
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    """[batch, heads, places, size] as [batch, places, heads * size]."""
    return x.transpose(1, 2).flatten(2)


def for_heads(x: Tensor, queries: Tensor) -> Tensor:
    """Keys or values of groups, for each head."""
    share = queries.shape[1] // x.shape[1]
    return x if share == 1 else x.repeat_interleave(share, 1)


def _softmax(scores: Tensor, precision: torch.dtype | None) -> Tensor:
    return torch.softmax(scores, -1, dtype=precision).to(scores.dtype)
