"""Reads what /metrics answers."""

import re

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:\\.|[^"\\])*",?)*)\})? (\S+)')
_LABEL = re.compile(r'([a-z_]+)="((?:\\.|[^"\\])*)"')
_ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse_metrics(text: str) -> Samples:
    """The samples by name and labels; AssertionError for a line that is none."""
    samples: Samples = {}
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            match = _SAMPLE.fullmatch(line)
            assert match, line
            labels = {
                name: re.sub(r"\\.", lambda escaped: _ESCAPED[escaped[0]], value)
                for name, value in _LABEL.findall(match[2] or "")
            }
            key = match[1], frozenset(labels.items())
            assert key not in samples, line
            samples[key] = float(match[3])
    return samples
