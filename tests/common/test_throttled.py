"""Warnings about peers who repeat their mistakes."""

import pytest

from gaffer.runtime.throttled import MAX_DIFFERENT, MAX_LENGTH, ThrottledWarnings

pytestmark = pytest.mark.pure


@pytest.mark.expects_errors("n1 sent nonsense")
def test_the_same_complaint_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    complaints = ThrottledWarnings()
    for now in (100.0, 100.5, 159.0, 160.5, 161.0):
        complaints.warn("node n1 sent nonsense", now)
    assert caplog.text.count("n1 sent nonsense") == 2


@pytest.mark.expects_errors("refused|different warnings")
def test_what_varies_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    complaints = ThrottledWarnings()
    for number in range(10_000):
        complaints.warn(f"refused agent {number} {'A' * 10_000}", 100.0 + number / 1000)
    assert len(caplog.records) == MAX_DIFFERENT + 1
    assert "30 different warnings about peers in 60 s: not logging more, 1 omitted so far" in caplog.records[-1].message
    assert all(len(record.message) <= MAX_LENGTH + 3 for record in caplog.records)
    assert complaints.left_out == 10_000 - MAX_DIFFERENT
    caplog.clear()
    complaints.warn("refused later", 200.0)
    assert [record.message for record in caplog.records] == ["refused later"]
