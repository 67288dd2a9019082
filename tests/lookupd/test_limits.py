"""What strangers can take of lookupd: room among its connections, and lines of its log."""

import pytest

from gaffer_lookupd.log_budget import PER_ADDRESS, PERIOD, TOTAL, Verdict, WarningBudget
from gaffer_lookupd.readers import Readers

pytestmark = pytest.mark.pure


def test_a_new_reader_displaces_the_oldest_stranger_then_the_oldest_known_one() -> None:
    readers = Readers(3)
    closed: list[str] = []

    def admit(reader: str, known: bool = False) -> None:
        readers.admit(reader, lambda: closed.append(reader), known=known)

    admit("known 1", known=True)
    for reader in ("stranger 1", "stranger 2", "known 2", "known 3", "known 4"):
        admit(reader, known=reader.startswith("known"))
    assert closed == ["stranger 1", "stranger 2", "known 1"]
    readers.leave("known 2")
    readers.leave("known 1")
    admit("stranger 3")
    assert (len(readers), readers.displaced) == (3, 3)


def test_an_address_has_some_warnings_in_a_period_and_is_named_once_when_it_has_no_more() -> None:
    budget = WarningBudget()
    found = [budget.spend("10.0.0.1", 5.0) for _ in range(PER_ADDRESS + 3)]
    assert found == [Verdict.LOG] * PER_ADDRESS + [Verdict.LAST, Verdict.DROP, Verdict.DROP]
    assert budget.spend("10.0.0.2", 5.0) is Verdict.LOG
    assert budget.spend("10.0.0.1", 5.0 + PERIOD) is Verdict.LOG


def test_all_addresses_together_have_some_warnings_in_a_period() -> None:
    budget = WarningBudget()
    found = [budget.spend(f"10.0.{number}.1", 5.0) for number in range(TOTAL + 3)]
    assert found == [Verdict.LOG] * TOTAL + [Verdict.LAST, Verdict.DROP, Verdict.DROP]
