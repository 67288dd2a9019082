"""What a check found. Pure."""

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warn", "fail", "skip"]


class Finding(NamedTuple):
    """The verdict of a check, why, and what to do if it is not `ok`; `skip` means that it can't be checked here."""

    check: str
    verdict: Verdict
    message: str
    hint: str | None = None


def used(check: str, what: str, number: int, limit: int, hint: str) -> Finding:
    """Return the finding about a limit: a warning at 80 % of it, a failure at 95 %."""
    share = number / limit if limit else 1.0
    text = f"{what}: {number} of {limit} used"
    if share < 0.8:
        return Finding(check, "ok", text)
    return Finding(check, "warn" if share < 0.95 else "fail", text, hint)
