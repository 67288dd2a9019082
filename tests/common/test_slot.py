"""The slot's table as data: complete where it must be, without dead ends."""

import pytest

from gaffer.jobs.slot import ALIVE, TRANSITIONS, VISIBLE_STATES, Action, Cue, Slot, SlotState

pytestmark = pytest.mark.pure

LIVE = {*ALIVE, SlotState.DRAINING, SlotState.STOPPING}


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
        assert (Action.SPAWN in actions) == (after is SlotState.SPAWNING)


def test_a_process_is_observed_from_its_start_until_it_is_to_end() -> None:
    for (before, _), (after, actions) in TRANSITIONS.items():
        assert (Action.OBSERVE in actions) == (before not in ALIVE and after in ALIVE)
        assert (Action.FORGET in actions) == (before in ALIVE and after not in ALIVE)


def test_a_process_becomes_ready_only_after_it_was_started_and_by_no_other_cue() -> None:
    for (before, cue), (after, actions) in TRANSITIONS.items():
        assert (after is SlotState.READY) == (cue is Cue.READY) == (Action.SERVE in actions)
        assert before is SlotState.STARTING or after is not SlotState.READY


def test_people_see_a_process_that_is_being_spawned_as_starting() -> None:
    assert [Slot(1, state).visible_state for state in SlotState if state not in VISIBLE_STATES] == [
        SlotState.EMPTY,
        SlotState.STARTING,
    ]
    assert all(Slot(1, state).visible_state is state for state in VISIBLE_STATES)


def test_a_live_process_leaves_only_through_stopping_or_release() -> None:
    for (before, cue), (after, _) in TRANSITIONS.items():
        if before in LIVE - {SlotState.STOPPING} and after not in LIVE:
            assert cue is Cue.RELEASE


def test_an_unknown_transition_is_an_error() -> None:
    with pytest.raises(KeyError):
        Slot(1).step(Cue.KILL)
