"""Warnings about peers who repeat their mistakes."""

import pytest

from gaffer.complaints import Complaints


@pytest.mark.expects_errors("n1 sent nonsense")
def test_the_same_complaint_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    for now in (100.0, 100.5, 159.0, 160.5, 161.0):
        complaints.warn("node n1 sent nonsense", now)
    assert caplog.text.count("n1 sent nonsense") == 2
