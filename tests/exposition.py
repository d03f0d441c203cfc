"""Metrics as a scraper reads them: by the parser of Prometheus's own client."""

from __future__ import annotations

from tests.absent import not_tested


class Exposed:
    """Of one answer. A sample is looked up by its name and labels."""

    def __init__(self, body: bytes) -> None:
        """Raises `ValueError` for what is not in the format."""
        try:
            from prometheus_client.parser import text_string_to_metric_families
        except ModuleNotFoundError:
            not_tested("prometheus_client is not installed (requirements-dev.txt)")
        self.families = {family.name: family for family in text_string_to_metric_families(body.decode("utf-8"))}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def get(self, name: str, /, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))

    @property
    def names(self) -> set[str]:
        """With "_total", as the manual has them."""
        return {f"{name}_total" if one.type == "counter" else name for name, one in self.families.items()}
