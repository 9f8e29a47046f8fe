"""Parts that add up."""

from hypothesis import given
from hypothesis import strategies as st

from workers.embeddings.shares import shares


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**6), min_size=1, max_size=64).filter(any))
def test_parts_add_up_and_are_fair(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    whole = sum(weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert total * weight // whole <= part <= -(-total * weight // whole)
    assert parts == shares(total, weights)
