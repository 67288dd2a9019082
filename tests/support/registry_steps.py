"""Steps of a registry for hypothesis to choose from: what nodes do, and time."""

from typing import Any

from hypothesis import strategies as st

from gaffer.schemas.messages import JobReport, Process
from support.registry import INTERVAL, TTL, Lookup

JOBS = ("shop.web", "shop.db", "default.x")

numbers = st.integers(0, 9)
jobs = st.sampled_from(JOBS)
processes = st.builds(Process, st.integers(1, 3), st.sampled_from(["starting", "ready", "draining"]))
states = st.builds(JobReport, st.sampled_from(["running", "backoff"]), st.sampled_from([None, "why"]), numbers)
tables = st.dictionaries(jobs, st.lists(processes, max_size=3, unique_by=lambda process: process.pid))

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("identify"),
            st.sampled_from(["id0", "id1", "new"]),
            st.sampled_from(["n0", "n1"]),
            st.integers(1, 3),
        ),
        st.tuples(st.just("legacy"), st.sampled_from("ab")),
        st.tuples(st.just("replace"), numbers, st.integers(1, 9), tables, st.booleans()),
        st.tuples(st.just("register_job"), numbers, jobs),
        st.tuples(st.just("unregister_job"), numbers, jobs),
        st.tuples(st.just("put_process"), numbers, jobs, processes),
        st.tuples(st.just("drop_process"), numbers, jobs, st.integers(1, 3)),
        st.tuples(st.just("set_draining"), numbers, st.booleans()),
        st.tuples(st.just("put_state"), numbers, jobs, states),
        st.tuples(st.just("forget_states"), numbers),
        st.tuples(st.sampled_from(["connect", "disconnect", "leave"]), numbers),
        st.tuples(st.just("wait"), st.sampled_from([2 * INTERVAL, TTL, 2 * TTL]), st.sampled_from([1, 2, 100])),
    ),
    max_size=20,
)


def new_lookup() -> tuple[Lookup, list[int]]:
    """A lookup with as many nodes as it takes for the silence of most of them to be noticed, and their sessions."""
    lookup = Lookup()
    sessions = [lookup.identify(id=f"id{number}", name=f"n{number}") for number in range(8)]
    lookup.announce(sessions[0], JOBS[0], 1)
    return lookup, sessions


def play(lookup: Lookup, sessions: list[int], step: tuple[Any, ...]) -> None:
    """Do one step; what the registry refuses does not happen."""
    name, *args = step
    registry = lookup.registry
    if name == "wait":
        lookup.wait(args[0], *sessions[:: args[1]])
    elif name == "identify":
        sessions.append(lookup.identify(id=args[0], name=args[1], incarnation=args[2]))
    elif name == "legacy":
        sessions.append(lookup.legacy(args[0]))
    elif name == "connect":
        sessions.append(lookup.connect())
    elif sessions:
        session = sessions[args.pop(0) % len(sessions)]
        if name == "disconnect":
            lookup.disconnect(session)
        elif name == "leave":
            registry.leave(session, lookup.now)
        else:
            getattr(registry.tables, name)(registry.identified(session), *args)
