"""The frames of a process's channel: STR-31."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.errors import BadRequest
from gaffer.schemas.frames import TYPES, Frame

pytestmark = pytest.mark.row("STR-31")

IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)


@given(st.builds(Frame, st.sampled_from(TYPES), IDS, st.binary()))
def test_a_frame_comes_back_from_its_message(frame: Frame) -> None:
    assert Frame.decode(frame.encode()) == frame


def test_the_body_begins_at_the_first_nul_and_may_hold_others() -> None:
    assert Frame("message", "7", b"a\0b").encode() == b"V1 message 7\0a\0b"
    assert Frame.decode(b"V1 message 7\0a\0b").body == b"a\0b"
    assert Frame.decode(b"V1 response 7\0") == Frame("response", "7", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"V1 message 7",
        b"V1 message\0x",
        b"V1 message \0x",
        b"V1 message  7\0x",
        b"V1 message 7 8\0x",
        b"V1 order 7\0x",
        b"V2 message 7\0x",
        b"v1 message 7\0x",
        b" V1 message 7\0x",
        b"V1 message " + b"7" * 129 + b"\0x",
        b"V1 message \xe9\0x",
        b"V1 message 7\n\0x",
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid frame"):
        Frame.decode(data)


@given(st.binary())
def test_any_bytes_are_a_frame_or_an_error(data: bytes) -> None:
    try:
        frame = Frame.decode(data)
    except BadRequest:
        return
    assert frame.encode() == data
