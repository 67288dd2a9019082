"""When the results of probes change a verdict, and which are reported."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.jobs.probing import REPORT_INTERVAL, Counter, Question, Verdict

pytestmark = pytest.mark.pure

READY, LIVE = Question.READY, Question.LIVE


@dataclass(frozen=True)
class Case:
    """`results`: `+` for a good one, else a letter as the error; `reports`: likewise, `.` for none."""

    question: Question
    successes: int
    failures: int
    results: str
    reports: str
    apart: float = 10.0  # seconds between two results


CASES = {
    "ready at once": Case(READY, 1, 3, "+++", "+.."),
    "ready after three in a row": Case(READY, 3, 3, "++a+++", "..a..+"),
    "a failure starts the count again": Case(READY, 2, 3, "+a+a++", ".a...+"),
    "why it is not ready": Case(READY, 1, 3, "aabba+", "a.b.a+"),
    "not more often than once a second": Case(READY, 1, 3, "abcdef", "a..d..", apart=REPORT_INTERVAL / 3),
    "the verdict itself is never held back": Case(READY, 1, 1, "a+b+", "a+b+", apart=0.0),
    "not ready after three failures in a row": Case(READY, 1, 3, "+aa+bbc", "+.....c"),
    "then why again": Case(READY, 1, 3, "+aaabb+", "+..ab.+"),
    "then three successes again": Case(READY, 3, 2, "+++aa++b+++", "..+.a..b..+"),
    "live at once": Case(LIVE, 1, 3, "+++", "+.."),
    "a slow start is no failure": Case(LIVE, 1, 3, "aa+a", "..+."),
    "dead after three failures": Case(LIVE, 1, 3, "+aab", "+..b"),
    "dead without ever being live": Case(LIVE, 1, 3, "abcd", "..c."),
    "live again": Case(LIVE, 1, 2, "aa+bb", ".a+.b"),
    "dead at the first failure": Case(LIVE, 1, 1, "a", "a"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_reports(case: Case) -> None:
    counter = Counter(case.question, case.successes, case.failures)
    reports = ""
    for number, result in enumerate(case.results):
        verdict = counter.record(result == "+", "" if result == "+" else result, 100 + number * case.apart)
        reports += "." if verdict is None else "+" if verdict == Verdict(True) else verdict.error
    assert reports == case.reports


results = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from([0.0, 0.4, 1.0, 5.0])), max_size=60)


@given(question=st.sampled_from(Question), successes=st.integers(1, 4), failures=st.integers(1, 4), results=results)
def test_a_verdict_needs_its_results_in_a_row(
    question: Question, successes: int, failures: int, results: list[tuple[str, float]]
) -> None:
    counter, now, last_bad, history = Counter(question, successes, failures), 0.0, -100.0, ""
    good: bool | None = None
    for error, pause in results:
        now += pause
        history += "-" if error else "+"
        verdict = counter.record(not error, error, now)
        assert verdict is None or verdict == Verdict(not error, error), "it is about the result just recorded"
        if verdict is not None and verdict.good:
            assert good is not True
            assert history.endswith("+" * successes)
        elif verdict is not None:
            if question is READY and good is not True:
                assert now - last_bad >= REPORT_INTERVAL or good is None
            else:
                assert good is not False
                assert history.endswith("-" * failures)
            last_bad = now
        if verdict is not None:
            good = verdict.good
        if history.endswith("+" * successes):
            assert good is True
        if history.endswith("-" * failures):
            assert good is False
        assert counter.good is good
