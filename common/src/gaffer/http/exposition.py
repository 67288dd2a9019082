"""Metrics in the Prometheus text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import isinf

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a response served from memory to one that takes longer than clients should wait.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_IN_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family:
    """The samples of one metric; `kind` is counter, gauge or histogram, `about` the help text."""

    def __init__(self, name: str, kind: str, about: str) -> None:
        self.name = name
        self._lines = [f"# HELP {name} {about.translate(_IN_HELP)}", f"# TYPE {name} {kind}"]

    def add(self, value: float, labels: Mapping[str, object] | None = None, suffix: str = "") -> None:
        """Add a sample; label values may be any text."""
        self._lines.append(f"{self.name}{suffix}{_braced(labels) if labels else ''} {_number(value)}")

    def render(self) -> str:
        """Return the lines of the metric."""
        return "\n".join(self._lines) + "\n"


class Histogram:
    """A histogram of durations in seconds for each combination of label values."""

    def __init__(self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float] = _BUCKETS) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._buckets = buckets
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        """Count one observation. `labels` holds the label values in order; keep the number of combinations small."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._buckets, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self) -> Family:
        """Return the metric with all observations so far."""
        family = Family(self._name, "histogram", self._about)
        for values, counts in self._counts.items():
            labels = dict(zip(self._labels, values, strict=True))
            total = 0
            for limit, count in zip((*self._buckets, float("inf")), counts, strict=True):
                total += count
                family.add(total, {**labels, "le": _number(limit)}, "_bucket")
            family.add(self._sums[values], labels, "_sum")
            family.add(total, labels, "_count")
        return family


def _braced(labels: Mapping[str, object]) -> str:
    pairs = (f'{name}="{str(value).translate(_IN_LABEL)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)
