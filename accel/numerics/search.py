"""Find the smallest set of layers that must stay in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Choice = frozenset[str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A set of layers that stay in float, and what the rest then loses."""

    in_float: Choice
    loss: float


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search, and everything that was tried, in order."""

    best: Candidate
    met: bool
    tried: tuple[Candidate, ...]


def smallest(ranked: Sequence[str], loss: Callable[[Choice], float], bound: float, *, budget: int = 24) -> Found:
    """The smallest set found whose loss stays within a bound; at least one layer is left out of it.

    First the shortest beginning of the ranking that keeps the bound, by doubling and bisection; then parts of it are given
    back, halves first, then quarters, down to single layers (successive halving), as long as the bound is kept. A layer
    that the ranking overrates is so found out, with about as many trials as the set's logarithm and size, not one for each
    layer of the model.

    Args:
        ranked: Names of all layers, the most sensitive first.
        loss: What is lost when a set of layers stays in float and the others do not.
        bound: The largest loss that is accepted.
        budget: Trials at most.

    Returns:
        The set, or what lost least where none keeps the bound.
    """
    tried: dict[Choice, float] = {}

    def keeps(choice: Choice) -> bool:
        if choice not in tried:
            if len(tried) >= budget:
                return False
            tried[choice] = loss(choice)
        return tried[choice] <= bound

    best = _shortest(ranked, keeps)
    if best is not None:
        best = _given_back(ranked, best, keeps)
    candidates = tuple(Candidate(choice, lost) for choice, lost in tried.items())
    if best is None:
        return Found(
            min(candidates, key=lambda candidate: (candidate.loss, len(candidate.in_float))), False, candidates
        )
    return Found(Candidate(best, tried[best]), True, candidates)


def _shortest(ranked: Sequence[str], keeps: Callable[[Choice], bool]) -> Choice | None:
    enough, length = None, 0
    too_short = -1
    while enough is None:
        if keeps(frozenset(ranked[:length])):
            enough = length
        elif length >= len(ranked) - 1:
            return None
        else:
            too_short, length = length, min(max(1, 2 * length), len(ranked) - 1)
    while enough - too_short > 1:
        middle = (enough + too_short) // 2
        if keeps(frozenset(ranked[:middle])):
            enough = middle
        else:
            too_short = middle
    return frozenset(ranked[:enough])


def _given_back(ranked: Sequence[str], best: Choice, keeps: Callable[[Choice], bool]) -> Choice:
    size = len(best) // 2
    while size >= 1:
        # The least sensitive first: they are the likeliest to be needless.
        kept = [name for name in reversed(ranked) if name in best]
        for start in range(0, len(kept), size):
            part = frozenset(kept[start : start + size])
            if part < best and keeps(best - part):
                best -= part
        size //= 2
    return best
