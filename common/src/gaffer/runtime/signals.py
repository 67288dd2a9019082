"""Signals by name or number."""

import signal

from gaffer.errors import quoted

_SIGNAL_DIGITS = 3  # maximum in a signal's number


def parse_signal_value(sig: int | str | None) -> int:
    """Return the number of a signal, given as an int, as digits or by name, with or without `SIG`, in any case.

    Raises ValueError for an unknown signal.
    """
    number: int | None = None
    if isinstance(sig, str):
        text = sig.strip().upper()
        if text.isdecimal():
            number = int(text) if len(text) <= _SIGNAL_DIGITS else None
        else:
            name = text if text.startswith("SIG") else f"SIG{text}"
            number = signal.Signals.__members__.get(name)
    elif isinstance(sig, int) and not isinstance(sig, bool):
        number = int(sig)
    if number not in signal.valid_signals():
        raise ValueError(f"{quoted(sig)} is not a signal")
    return int(number)
