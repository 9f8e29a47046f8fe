"""The reader that other tests trust sees metrics, labels and groups, and nothing else."""

import pytest

from tests.deploy.promql import Query, Selector, read


def test_metrics_labels_and_groups_are_told_from_functions_and_operators() -> None:
    text = """
      histogram_quantile(0.99, sum by (le, agent) (rate(a_bucket{state="x{y}",route=~"$route"}[$__rate_interval]))) > 2
      and on (agent) 1.5 * avg_over_time(level:b:increase1h[7d] offset 1h)
      unless (count(c) without (instance) or vector(0))
    """
    assert read(text) == Query(
        selectors=[
            Selector("a_bucket", (("state", "=", "x{y}"), ("route", "=~", "$route"))),
            Selector("level:b:increase1h"),
            Selector("c"),
        ],
        groups=[frozenset({"le", "agent"}), frozenset({"agent"}), frozenset({"instance"})],
    )


@pytest.mark.parametrize("text", ["up", "up == 0", "(up)", "- up", "max(up)", "max by (job) (up)", "sum(max(up))"])
def test_a_bare_metric_is_seen_wherever_it_stands(text: str) -> None:
    assert [selector.metric for selector in read(text).selectors] == ["up"]


def test_what_is_no_promql_is_said() -> None:
    with pytest.raises(ValueError, match="not PromQL at '# comment'"):
        read("up # comment")
