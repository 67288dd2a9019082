import pytest

from gaffer.jobs.flapping import FlapDetector, Verdict
from gaffer.jobs.rules import FlappingInfo

pytestmark = pytest.mark.pure

POLICY = FlappingInfo(attempts=2, window=1.0, retry_in=7.0, max_retry=2)


def verdicts(times: list[float], policy: FlappingInfo = POLICY) -> list[Verdict]:
    detector = FlapDetector()
    return [detector.record(policy, at)[0] for at in times]


GO, PAUSE, UP = Verdict.GO_ON, Verdict.PAUSE, Verdict.GIVE_UP


@pytest.mark.row("TPL-21", "TPL-22", "TPL-24", "TPL-25")
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.5], [GO, PAUSE]),
        ([0.0, 1.0], [GO, PAUSE]),
        ([0.0, 1.1], [GO, GO]),
        ([0.0, 1.1, 2.2, 3.3], [GO] * 4),
        ([0.0, 0.5, 7.5, 7.6], [GO, PAUSE, GO, PAUSE]),
        ([0.0, 0.5, 7.5, 7.6, 14.6, 14.7], [GO, PAUSE, GO, PAUSE, GO, UP]),
        # It ran well for a while after a retry: the retries count from the start again.
        ([0.0, 0.5, 7.5, 7.6, 20.0, 20.1, 28.0, 28.1], [GO, PAUSE, GO, PAUSE, GO, PAUSE, GO, PAUSE]),
    ],
)
def test_verdicts(times: list[float], expected: list[Verdict]) -> None:
    assert verdicts(times) == expected


def test_without_retries_it_gives_up_at_once() -> None:
    assert verdicts([0.0, 0.1], FlappingInfo(max_retry=0)) == [GO, UP]


def test_it_says_what_it_found() -> None:
    detector = FlapDetector()
    detector.record(POLICY, 0.0)
    assert detector.record(POLICY, 0.5)[1] == "flapping: 2 exits within 1 s, retry 1 of 2 after 7 s"
