"""Parts of a whole, as integers that add up to it: how one provider call is divided among those it was made for."""

from collections.abc import Sequence


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided by `weights` (not all 0): each part rounded down, what is left to the largest remainders.

    The parts add up to `total` exactly; no part is more than one above its exact share. The same input, the same parts.
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: (-(total * weights[index] % whole), index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
