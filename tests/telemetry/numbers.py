"""Reads Prometheus text as Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families


def numbers(text: str) -> dict[str, float]:
    """`name{label="value",…}` with labels in order → value. Raises ValueError for text that is not valid."""
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def grown(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What changed between two scrapes of one process."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
