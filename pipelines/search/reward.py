"""What a search makes as large as it can: accuracy, weighed by latency.

References:
    Tan et al. 2019, "MnasNet: platform-aware neural architecture search for mobile", equations 2
    and 3.
"""

from __future__ import annotations

from pipelines.config.search import RewardParams
from pipelines.search.records import Score


def reward(accuracy: float, latency: float, target: float, params: RewardParams) -> float:
    """ACC (LAT / T)^w; w is alpha where LAT is at most T, and beta above it.

    Args:
        accuracy: in [0, 1].
        latency: above 0, in the target's unit.
        target: above 0.
        params: alpha and beta.

    Returns:
        At least 0; above 1 is possible below the target where alpha is below 0.
    """
    exponent = params.alpha if latency <= target else params.beta
    weight: float = (latency / target) ** exponent
    return accuracy * weight


def reward_of(score: Score, params: RewardParams) -> float | None:
    """The reward of a score; None where its latency was refused.

    A refused latency is a clock's fault, so it is no reward of 0, from which a controller would
    learn to leave that network and its like alone: controllers are not told of it at all.
    """
    if score.refusal is not None:
        return None
    if params.target_ms is not None:
        return reward(score.accuracy, score.ms, params.target_ms, params)
    return reward(score.accuracy, score.ratio, params.target, params)
