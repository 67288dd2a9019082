"""Errors carry a code and an HTTP status, and turn themselves into the body of an answer."""

import msgspec
import pytest

from gaffer import errors

pytestmark = pytest.mark.pure

row = pytest.mark.row


@row("SUP-07")
@pytest.mark.parametrize(
    ("error", "errno", "reason"),
    [
        (errors.ProcessError(403, "forbidden_write"), 403, "forbidden_write"),
        (errors.ProcessNotFound(), 404, "not_found"),
        (errors.ProcessConflict(), 409, "process_conflict"),
        (errors.ManagerStopping(), 503, "stopping"),
        (errors.TopicError(), 400, "bad_topic"),
        (errors.CommandError(), 400, "bad_command"),
        (errors.CommandNotFound(), 404, "command_not_found"),
        (errors.AlreadyRead(), 403, "already_read"),
    ],
)
def test_codes(error: errors.GafferError, errno: int, reason: str) -> None:
    assert (error.errno, error.reason) == (errno, reason)
    body = error.to_dict()
    assert (body["errno"], body["error"]) == (errno, reason)
    assert body.keys() == {"error", "errno", "message", "path", "hint"}
    assert msgspec.json.decode(error.to_json()) == body


def test_a_message_a_place_and_what_to_do() -> None:
    error = errors.BadRequest("cmd is missing", path="$.jobs[0].cmd", hint="say what to run")
    assert str(error) == "cmd is missing"
    body = error.to_dict()
    assert (body["message"], body["path"], body["hint"]) == ("cmd is missing", "$.jobs[0].cmd", "say what to run")


@row("MGR-46")
def test_a_conflict_is_a_key_error_that_reads_well() -> None:
    error = errors.ProcessConflict("there is a job default.j already")
    assert isinstance(error, KeyError)
    assert str(error) == "there is a job default.j already"
