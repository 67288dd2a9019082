"""The slot's table as data: complete where it must be, without dead ends."""

import pytest

from gaffer.jobs.slot import TRANSITIONS, Action, Cue, Slot, SlotState

pytestmark = pytest.mark.pure

LIVE = {SlotState.READY, SlotState.DRAINING, SlotState.STOPPING}


def test_every_state_can_be_reached_and_left_again() -> None:
    reached = {SlotState.EMPTY}
    while True:
        more = {after for (before, _), (after, _) in TRANSITIONS.items() if before in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(SlotState)
    for state in SlotState:
        assert any(before is state and after is not state for (before, _), (after, _) in TRANSITIONS.items())


def test_a_process_is_spawned_exactly_on_the_way_to_starting() -> None:
    for (_, _), (after, actions) in TRANSITIONS.items():
        assert (Action.SPAWN in actions) == (after is SlotState.STARTING)


def test_a_live_process_leaves_only_through_stopping_or_release() -> None:
    for (before, cue), (after, _) in TRANSITIONS.items():
        if before in LIVE - {SlotState.STOPPING} and after not in LIVE:
            assert cue is Cue.RELEASE


def test_an_unknown_transition_is_an_error() -> None:
    with pytest.raises(KeyError):
        Slot(1).step(Cue.KILL)
