"""Which candidates of a search are worth a second look."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.search.space import Network
from pipelines.search.study import Candidate


def proposed(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those with a reward, each network once, without the baselines; in their order.

    Args:
        candidates: of one study or of several.
    """
    every = list(candidates)
    named = {each.network for each in every if each.baseline}
    found: dict[Network, Candidate] = {}
    for each in every:
        if each.reward is not None and each.network not in named:
            found.setdefault(each.network, each)
    return list(found.values())


def best(candidates: Iterable[Candidate], n: int) -> list[Candidate]:
    """The highest rewards of those proposed; of two that are alike the earlier."""
    return sorted(proposed(candidates), key=lambda each: -_reward(each))[:n]


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those proposed that no other proposed is better than, the quickest first.

    Better is: as accurate and as quick, and more so in one of them.
    """
    found: list[Candidate] = []
    for each in sorted(proposed(candidates), key=lambda each: (_ratio(each), -_accuracy(each))):
        last = found[-1] if found else None
        is_twin = last is not None and _place(last) == _place(each)
        if last is None or is_twin or _accuracy(each) > _accuracy(last):
            found.append(each)
    return found


def elites(candidates: Iterable[Candidate], n: int) -> list[Candidate]:
    """The best and the front, without repetition, highest reward first.

    Args:
        candidates: of one study or of several.
        n: how many of the best; the front is taken whole.
    """
    every = list(candidates)
    found = {each.network: each for each in [*best(every, n), *front(every)]}
    return sorted(found.values(), key=lambda each: -_reward(each))


def _reward(candidate: Candidate) -> float:
    assert candidate.reward is not None  # `proposed` has left those out
    return candidate.reward


def _place(candidate: Candidate) -> tuple[float, float]:
    assert candidate.score is not None  # as above
    return candidate.score.accuracy, candidate.score.ratio


def _accuracy(candidate: Candidate) -> float:
    return _place(candidate)[0]


def _ratio(candidate: Candidate) -> float:
    return _place(candidate)[1]
