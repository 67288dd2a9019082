"""Tests skip with a reason where a need is absent, and fail instead under GAFFER_TEST_STRICT=1."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

MODULE = """
import pytest
from support.needs import _need

@_need("moon", lambda: "needs a moon")
def test_absent(): raise AssertionError("it ran")

@_need("sun", lambda: None)
def test_present(): pass

@pytest.mark.skip(reason="later")
def test_skipped(): pass

@pytest.mark.xfail(reason="known")
def test_expected_failure(): raise AssertionError
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("GAFFER_TEST_STRICT", raising=False)
    pytester.makeini(f"[pytest]\npythonpath = {TESTS}\naddopts = -ra\nmarkers =\n  needs(name, missing)\n")
    pytester.makeconftest('pytest_plugins = ("support.needs",)')
    pytester.makepyfile(MODULE)
    return pytester


def test_skips_with_the_reason(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(["*needs a moon*"])
    assert result.ret == 0


def test_every_skip_fails_when_strict(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.makepyfile(test_import="import pytest\npytest.importorskip('no_such_module')\n")
    monkeypatch.setenv("GAFFER_TEST_STRICT", "1")

    result = project.runpytest_subprocess("-p", "no:cacheprovider", "--continue-on-collection-errors")

    result.assert_outcomes(passed=1, errors=3, xfailed=1)
    result.stdout.fnmatch_lines(["*needs a moon (a skip is a failure here: GAFFER_TEST_STRICT=1)*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
