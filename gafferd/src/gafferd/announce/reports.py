"""The events that a node reports to its lookupds: the newest entries of its history, without addresses."""

from typing import Any

import msgspec

from gaffer.schemas.history import AuditEntry, Kind
from gaffer.schemas.messages import MAX_DETAIL, MAX_DETAILS, MAX_REPORTED, ReportedEvent
from gaffer.streams.rings import Log

_KINDS: tuple[Kind, ...] = ("call", "command", "node", "job")


class Reports(Log[ReportedEvent]):
    """The newest events, numbered since the start of the node."""

    read_size = MAX_REPORTED

    def __init__(self) -> None:
        super().__init__(MAX_REPORTED)

    def add(self, entry: AuditEntry) -> bool:
        """Append an entry of the history; return whether it is of a kind that is reported."""
        if entry["kind"] not in _KINDS:
            return False
        fields = {name: entry[name] for name in ReportedEvent.__struct_fields__}  # type: ignore[literal-required]
        details = {name: _plain(value) for name, value in list(entry["details"].items())[:MAX_DETAILS]}
        try:
            event = msgspec.convert({**fields, "details": details}, ReportedEvent)
        except msgspec.ValidationError:  # such as a call for a job whose name is too long to exist
            return False
        self.append(event)
        return True


def _plain(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        text = value
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        text = ", ".join(value)
    else:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= MAX_DETAIL else f"{text[: MAX_DETAIL - 3]}..."
