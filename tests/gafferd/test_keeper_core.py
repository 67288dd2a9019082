"""What the keeper decides: by its core, with the time as an argument."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gafferd import keeper
from gafferd.keeper import Core
from support.playbook import Playbook, nothing, play, wait

pytestmark = pytest.mark.pure

TERM, INT, QUIT, HUP, ABRT, KILL, CONT = 15, 2, 3, 1, 6, 9, keeper.SIGCONT
USR1, USR2 = keeper.SIGUSR1, keeper.SIGUSR2
TICK = ("tick",)
SIGNALLED = 9  # wait status of a process killed by SIGKILL


def datagram(text: str, *descriptors: int) -> tuple[Any, ...]:
    return ("datagram", text.encode(), descriptors)


def running(*words: str, max_descriptors: int = 1000) -> tuple[Core, "Playbook[Any, Any]"]:
    """A keeper whose gafferd has the pid 50 and has sent these datagrams."""
    core = Core(100.0, 50, max_descriptors=max_descriptors)
    for word in words:
        core.handle(datagram(word), 100.0)
    return core, play(core)


def restored(core: Core, now: float) -> Core:
    """A keeper that goes on with the table of another one."""
    after = Core(now)
    assert list(after.restore(core.table(), now)) == []
    return after


def ended(text: str, then: list[Any]) -> list[Any]:
    """The actions at the end of gafferd."""
    return [("reap", 50), ("hangup",), ("check",), *then]


def sent(core: Core, text: str, *descriptors: int) -> list[tuple[bytes, tuple[int, ...]]]:
    """The messages that follow from a datagram."""
    actions = core.handle(datagram(text, *descriptors), 100.0)
    return [(data, passed) for name, data, passed in (each for each in actions if each[0] == "send")]


@pytest.mark.parametrize(
    ("words", "signals", "status", "exit"),
    [
        ([], [], 2 << 8, 2),  # the configuration is invalid
        ([], [], 1 << 8, 1),
        (["READY=1"], [], 0, 0),
        (["READY=1", "STOPPING=1"], [], 3 << 8, 3),  # an essential job
        (["READY=1"], [TERM], 1 << 8, 1),
        (["READY=1"], [TERM], TERM, 0),
        ([], [INT], INT, 130),
        (["READY=1"], [TERM], 75 << 8, 0),
    ],
)
def test_gafferd_ends_for_good(words: list[str], signals: list[int], status: int, exit: int) -> None:
    _, story = running(*words)
    for number in signals:
        story = story >> ("signal", number) << [("kill", 50, number)]
    assert story >> ("exited", 50, status) << ended("", [("exit", exit)])


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["READY=1"], SIGNALLED, "was killed by signal 9"),
        ([], 11 | 0x80, "was killed by signal 11"),
        (["READY=1"], 1 << 8, "exited with status 1"),
        (["READY=1"], 2 << 8, "exited with status 2"),
        ([], 75 << 8, "exited with status 75"),
    ],
)
def test_gafferd_is_started_again(words: list[str], status: int, reason: str) -> None:
    _, story = running(*words)
    log = ("log", f"gafferd (pid 50) {reason}: starting it again")
    assert story >> ("exited", 50, status) << ended("", [log]) >> TICK << [("start",)]


def test_a_handover_starts_the_next_at_once() -> None:
    _, story = running("READY=1")
    log = ("log", "gafferd (pid 50) exited with status 75 to be replaced")
    assert story >> ("exited", 50, 75 << 8) << ended("", [log, ("replace",)]) >> TICK << [("start",)]


def test_the_delay_doubles_up_to_five_seconds_and_is_reset_after_a_while() -> None:
    core, now = Core(100.0, 50), 100.0
    core.handle(datagram("READY=1"), now)
    delays = []
    for lived in (0.0,) * 8 + (keeper.RESET_AFTER, 0.0):
        now += lived
        core.handle(("exited", core.daemon, SIGNALLED), now)
        due = core.deadline()
        assert due is not None
        delays.append(round(due - now, 3))
        now = due
        assert ("start",) in core.handle(TICK, now)
        core.handle(("started", 51), now)
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 0.0, 0.1]


def test_time_that_gafferd_served_shortens_the_delay() -> None:
    core, now = Core(100.0, 50), 100.0
    for served, delay in [
        (0.0, 0.0),
        (0.0, 0.1),
        (0.0, 0.2),
        (1.0, 0.1),
        (0.25, 0.141),
        (0.0, 0.283),
        (3.0, 0.0),
        (0.5, 0.0),
        (0.25, 0.0),
        (0.0, 0.141),
        (keeper.RESET_AFTER, 0.0),
    ]:
        core.handle(datagram("READY=1"), now)
        now += served
        core.handle(("exited", core.daemon, SIGNALLED), now)
        due = core.deadline()
        assert due is not None
        assert round(due - now, 3) == delay
        now = due
        core.handle(TICK, now)
        core.handle(("started", 51), now)
        now += 0.5  # until it is ready


def test_a_program_that_cannot_be_started_is_tried_again() -> None:
    core, story = running("READY=1")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(TICK, 100.1)
    story = play(core, 100.1)
    log = ("log", "gafferd can't be started: no such file: starting it again in 0.1 s")
    assert story >> ("failed", "no such file") << [log] >> wait(0.11) >> TICK << [("start",)]


def test_the_watchdog() -> None:
    _, story = running("READY=1\nWATCHDOG=4")
    hangs = ("log", "gafferd (pid 50) has been hanging for 4 s: replacing it")
    assert (
        story
        >> wait(3)
        >> datagram("BEAT=1")
        >> wait(3.9)
        >> TICK
        << nothing
        >> wait(0.1)
        >> TICK
        << [hangs, ("kill", 50, ABRT), ("kill", 50, CONT)]
        >> datagram("BEAT=1")
        >> wait(1.9)
        >> TICK
        << nothing
        >> wait(0.1)
        >> TICK
        << [("kill", 50, KILL)]
    )


def test_a_gafferd_that_starts_again_has_more_time_for_a_beat() -> None:
    core, story = running("READY=1\nWATCHDOG=2")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(TICK, 100.0)
    story = story >> ("started", 51) << nothing >> wait(59) >> TICK << nothing >> datagram("BEAT=1") << nothing
    story = story >> wait(59) >> TICK << nothing >> wait(1) >> TICK
    hangs = "gafferd (pid 51) has been hanging for 60 s while it starts: replacing it"
    assert story << [("log", hangs), ("kill", 51, ABRT), ("kill", 51, CONT)] >> wait(2) >> TICK << [("kill", 51, KILL)]


@pytest.mark.parametrize("again", [True, False])
def test_a_gafferd_that_hangs_while_it_starts_is_ended_soon_after_a_signal(again: bool) -> None:
    core, story = running("CHILD=61 a")
    if again:
        core.handle(datagram("READY=1"), 100.0)
        core.handle(("exited", 50, SIGNALLED), 100.0)
        core.handle(TICK, 100.0)
        core.handle(("started", 50), 100.0)
    hangs = "gafferd (pid 50) has been hanging for 10 s while it starts: ending it"
    assert (
        story
        >> ("signal", TERM)
        << [("kill", 50, TERM)]
        >> wait(9)
        >> TICK
        << nothing
        >> wait(1)
        >> TICK
        << [("log", hangs), ("kill", 50, ABRT), ("kill", 50, CONT)]
        >> ("exited", 50, ABRT)
        << ended("", [("log", "gafferd (pid 50) was killed by signal 6 while it was ending")])
        << [("log", "ending 1 processes without gafferd"), ("killpg", 61, TERM), ("killpg", 61, CONT)]
        >> ("exited", 61, TERM)
        >> ("left", set(), {})
        << [("reap", 61), ("exit", 0)]
    )


def test_a_gafferd_that_is_started_first_has_no_watchdog() -> None:
    core, story = running("BEAT=1")
    assert core.deadline() is None
    assert story >> wait(1000) >> TICK << nothing


def test_a_keeper_that_was_stopped_itself_waits_for_another_beat() -> None:
    core, story = running("READY=1")
    assert story >> wait(60) >> TICK << nothing
    assert core.deadline() == 160 + keeper.WATCHDOG


def test_signals_are_forwarded_or_held() -> None:
    _, story = running()
    assert (
        story
        >> ("signal", HUP)
        >> ("signal", HUP)
        >> ("signal", USR1)
        >> ("signal", USR2)
        << nothing
        >> datagram("READY=1")
        << [("background",), ("kill", 50, HUP), ("kill", 50, USR1), ("kill", 50, USR2)]
        >> ("signal", USR2)
        << [("kill", 50, USR2)]
        >> ("signal", QUIT)
        << [("kill", 50, QUIT)]
    )


def test_a_signal_to_reload_ends_the_wait_for_the_next_start() -> None:
    core, story = running("READY=1")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(TICK, 100.0)
    core.handle(("failed", "no memory"), 100.0)
    assert story >> TICK << nothing >> ("signal", HUP) >> TICK << [("start",)]


def test_without_gafferd_a_signal_ends_the_groups() -> None:
    core, story = running("READY=1", "CHILD=61 a 3", "CHILD=62 b 3 2", "CHILD=63 c 0.5", "CHILD=64 d")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(("exited", 64, "unknown"), 100.0)
    both = [(pid, stop) for pid, stop in ((61, TERM), (62, INT), (63, TERM), (64, TERM))]
    assert (
        story
        >> ("signal", TERM)
        << [("log", "ending 4 processes without gafferd")]
        << [("killpg", pid, number) for pid, stop in both for number in (stop, CONT)]
        >> ("exited", 61, 0)
        >> ("left", {61, 62, 63, 64}, {})  # 61 and 64 have exited, but others of their groups live
        << nothing
        >> wait(0.5)
        >> TICK
        << [("log", "killing process 63: it ignored signal 15"), ("killpg", 63, KILL)]
        >> ("exited", 63, KILL)
        >> ("left", {62}, {})
        << [("reap", 61), ("reap", 63), ("reap", 64)]
        >> ("signal", TERM)  # a second one hurries
        << [("log", "killing process 62: it ignored signal 2"), ("killpg", 62, KILL)]
        >> ("exited", 62, KILL)
        >> ("left", set(), {})
        << [("reap", 62), ("exit", 0)]
    )


def test_members_that_have_left_their_group_are_ended_too() -> None:
    core, story = running("READY=1", "CHILD=61 a 3 2", "CHILD=62 b 5")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(("signal", TERM), 100.0)
    assert (
        story
        >> ("exited", 61, 0)
        >> wait(1)
        >> ("left", {62}, {71: "a", 72: "b", 73: "unknown"})
        << [("reap", 61)]
        << [("signal", pid, each) for pid, stop in ((71, INT), (72, TERM), (73, TERM)) for each in (stop, CONT)]
        >> ("left", {62}, {71: "a", 73: "unknown"})  # once each
        << nothing
        >> wait(2)
        >> TICK
        << [("log", "killing process 71: it ignored signal 2"), ("signal", 71, KILL)]
        >> ("exited", 62, 0)
        >> ("left", set(), {73: "unknown", 74: "a"})
        << [("reap", 62), ("signal", 74, INT), ("signal", 74, CONT)]
        >> TICK  # 74 is late: the time of its child is over
        << [("log", "killing process 74: it ignored signal 2"), ("signal", 74, KILL)]
        >> ("left", set(), {73: "unknown"})
        << nothing
        >> ("signal", TERM)
        << [("log", "killing process 73: it ignored signal 15"), ("signal", 73, KILL)]
        >> ("left", set(), {})
        << [("exit", 0)]
    )


@pytest.mark.parametrize(
    ("signals", "status"), [(["STOPPING=1"], 128 + KILL), (["STOPPING=1\nSTATUS=7"], 7), ([TERM], 0)]
)
def test_a_gafferd_that_is_killed_while_it_ends(signals: list[Any], status: int) -> None:
    core, story = running("READY=1")
    for each in signals:
        core.handle(("signal", each) if each == TERM else datagram(each), 100.0)
    killed = ("log", "gafferd (pid 50) was killed by signal 9 while it was ending")
    assert story >> ("exited", 50, KILL) << ended("", [killed, ("exit", status)])


def test_a_second_signal_before_gafferd_has_ended_counts_too() -> None:
    core, story = running("READY=1", "CHILD=61 a 30")
    for number in (TERM, INT):
        core.handle(("signal", number), 100.0)
    assert (
        story
        >> ("exited", 50, SIGNALLED)
        << ended("", [("log", "gafferd (pid 50) was killed by signal 9 while it was ending")])
        << [("log", "ending 1 processes without gafferd"), ("killpg", 61, TERM), ("killpg", 61, CONT)]
        << [("log", "killing process 61: it ignored signal 15"), ("killpg", 61, KILL)]
        >> ("exited", 61, KILL)
        >> ("left", set(), {})
        << [("reap", 61), ("exit", 130)]
    )


def test_the_end_does_not_wait_for_a_process_that_survives() -> None:
    core, story = running("READY=1", "CHILD=61 a 100000")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    kills = [("log", "killing process 61: it ignored signal 15"), ("killpg", 61, KILL)]
    ends = [("log", "processes survive SIGKILL: 61"), ("exit", 1)]
    core.handle(("signal", TERM), 100.0)
    story = play(core)
    assert (
        story
        >> wait(keeper.END_TIMEOUT)
        >> TICK
        << kills
        >> ("left", {61}, {})
        << nothing
        >> wait(keeper.GIVE_UP)
        >> ("left", {61}, {})
        << ends
    )


def test_a_gafferd_that_ends_before_it_knows_its_processes_does_not_leave_them() -> None:
    """As one does that is stopped while it starts again."""
    core, _ = running("READY=1", "CHILD=61 a")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(TICK, 100.1)
    core.handle(("started", 51), 100.1)
    core.handle(("signal", TERM), 100.1)
    actions = core.handle(("exited", 51, 0), 100.2)
    assert ("killpg", 61, TERM) in actions
    assert not any(action[0] == "exit" for action in actions)


# Exits


def test_exits_are_reported_until_they_are_acknowledged() -> None:
    core, _ = running("READY=1", "CHILD=61 a")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(("started", 51), 100.0)
    report = ("send", b"EXITED=61 10752", ())
    end = ("send", b"DUMPED=1\nSTARTS=1\nBEGAN=100.000\nLAST=gafferd (pid 50) was killed by signal 9", ())
    assert (
        play(core)
        >> ("exited", 61, 42 << 8)
        >> ("exited", 99, 0)
        << [("reap", 99)]  # nobody's
        >> datagram("DUMP=1")
        << [("send", b"CHILD=61 a 60 15\nEXITED=61 10752\nAT=100.000", ()), end]
        >> datagram("READY=1")
        >> wait(0.9)
        >> TICK
        << nothing
        >> wait(0.1)
        >> TICK
        << [report]
        >> wait(1)
        >> TICK
        << [report]
        >> datagram("ACK=61")
        >> wait(1)
        >> TICK
        << nothing  # the zombie stays
        >> datagram("REAP=61")
        << [("reap", 61)]
        >> datagram("REAP=61")
        << [("send", b"ERR=no child '61' has exited", ())]
    )


def test_an_exit_that_gafferd_knew_is_reported_as_unknown() -> None:
    core, _ = running("READY=1", "CHILD=61 a")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(("exited", 61, "unknown"), 100.0)
    core.handle(("started", 51), 100.0)
    assert sent(core, "DUMP=1")[0] == (b"CHILD=61 a 60 15\nEXITED=61 unknown\nAT=100.000", ())


def test_a_child_is_registered_again_with_another_record_and_keeps_its_status() -> None:
    core, _ = running("READY=1", "CHILD=61 a 3 2\nRECORD={=}")
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(("exited", 61, 42 << 8), 100.0)
    core.handle(("started", 51), 100.0)
    assert sent(core, "DUMP=1")[0] == (b"CHILD=61 a 3 2\nRECORD={=}\nEXITED=61 10752\nAT=100.000", ())
    core.handle(datagram("CHILD=61 a 4 1\nRECORD=new"), 100.0)
    assert sent(core, "DUMP=1")[0] == (b"CHILD=61 a 4 1\nRECORD=new\nEXITED=61 10752\nAT=100.000", ())
    again = ("send", b"EXITED=61 10752", ())
    assert play(core) >> wait(1) >> TICK << [again] >> datagram("ACK=61") >> wait(1) >> TICK << nothing


def test_an_exit_that_gafferd_saw_is_told_to_the_next_one() -> None:
    core, story = running("CHILD=61 a")
    assert story >> datagram("EXITED=61 10752") << nothing >> wait(100) >> TICK << nothing
    core.handle(("exited", 50, SIGNALLED), 200.0)
    core.handle(("exited", 61, "unknown"), 200.0)  # gafferd has reaped it
    core.handle(TICK, 201.0)
    core.handle(("started", 51), 201.0)
    report = ("send", b"EXITED=61 10752", ())
    dumped = play(core, 201.0) >> datagram("DUMP=1")
    dumped = dumped << [("send", b"CHILD=61 a 60 15\nEXITED=61 10752\nAT=100.000", ())]
    dumped = dumped << [
        ("send", b"DUMPED=1\nSTARTS=1\nBEGAN=100.000\nLAST=gafferd (pid 50) was killed by signal 9", ())
    ]
    assert dumped >> wait(1) >> TICK << [report] >> datagram("ACK=61") >> wait(1) >> TICK << nothing


def test_an_exit_is_not_lost_when_its_pid_is_used_again() -> None:
    core, _ = running("CHILD=61 a\nRECORD=first", "EXITED=61 256", "CHILD=61 b\nRECORD=second")
    first, second = "CHILD=61 a 60 15\nRECORD=first\nEXITED=61 256\nAT=100.000", "CHILD=61 b 60 15\nRECORD=second"
    assert sent(core, "DUMP=1")[0][0].decode() == f"{first}\n{second}"
    core.handle(datagram("GONE=a"), 100.0)
    assert sent(core, "DUMP=1")[0][0].decode() == second


def test_output_is_kept_while_gafferd_is_away() -> None:
    core, _ = running("READY=1", "CHILD=61 a")
    names = ["a/stdin", "a/stdout", "a/stderr", "a/stderr.journal", "a/stream:x", "b/stdoutx", "socket:stdout"]
    core.handle(datagram("FDSTORE=1\n" + "\n".join(f"FDNAME={name}" for name in names), *range(7, 14)), 100.0)
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(TICK, 100.1)
    core.handle(("started", 51), 100.1)
    assert core.deadline() == 101.0
    assert (
        play(core, 100.9)
        >> TICK
        << nothing
        >> wait(0.1)
        >> TICK
        << [("keep", (("a/stdout", 8, None), ("a/stderr", 9, 10)))]
        >> ("stored", "a/stdout.journal", 20)
        << nothing
        >> ("exited", 51, SIGNALLED)
        << [("reap", 51), ("hangup",), ("check",)]
        << [("log", "gafferd (pid 51) was killed by signal 9: starting it again in 0.1 s, while 1 processes run on")]
    )
    core.handle(TICK, 110.0)
    core.handle(("started", 52), 110.0)
    actions = core.handle(datagram("DUMP=1"), 110.0)
    assert actions[0] == ("leave",)
    assert actions[1][1].endswith(b"FDNAME=a/stdout.journal")
    assert play(core, 110.0) >> datagram("READY=1") << [("taken",)] >> wait(5) >> TICK << nothing


def test_a_gafferd_that_is_back_within_a_second_finds_the_output_in_the_pipes() -> None:
    core, _ = running("READY=1")
    core.handle(datagram("FDSTORE=1\nFDNAME=a/stdout", 7), 100.0)
    core.handle(("exited", 50, SIGNALLED), 100.0)
    core.handle(TICK, 100.1)
    core.handle(("started", 51), 100.1)
    core.handle(datagram("DUMP=1"), 100.9)
    assert play(core, 200.0) >> TICK << nothing >> datagram("READY=1") << nothing


def test_starts_that_fail_do_not_put_off_the_keeping_of_output() -> None:
    core, _ = running("READY=1", "CHILD=61 a")
    core.handle(datagram("FDSTORE=1\nFDNAME=a/stdout", 7), 100.0)
    core.handle(("exited", 50, SIGNALLED), 100.0)
    for pid, now in ((51, 100.1), (52, 100.6)):
        core.handle(TICK, now)
        core.handle(("started", pid), now)
        core.handle(("exited", pid, 2 << 8), now + 0.2)
    assert ("keep", (("a/stdout", 7, None),)) in core.handle(TICK, 101.0)


def test_output_is_read_while_processes_end_without_gafferd() -> None:
    core, story = running("READY=1", "CHILD=61 a")
    core.handle(datagram("FDSTORE=1\nFDNAME=a/stdout", 7), 100.0)
    core.handle(("exited", 50, SIGNALLED), 100.0)
    assert (
        story
        >> ("signal", TERM)
        << [("log", "ending 1 processes without gafferd")]
        << [("keep", (("a/stdout", 7, None),))]
        << [("killpg", 61, TERM), ("killpg", 61, CONT)]
    )


def test_a_journal_for_which_there_is_no_room_is_closed() -> None:
    core, story = running(max_descriptors=1)
    core.handle(datagram("FDSTORE=1\nFDNAME=a/stdout", 7), 100.0)
    full = [("log", "can't keep a/stdout.journal: the store is full: 1 descriptors"), ("close", (8,))]
    assert story >> ("stored", "a/stdout.journal", 8) << full


def test_another_keeper_goes_on_with_the_table() -> None:
    core, _ = running("READY=1", "CHILD=61 a 3 2\nRECORD={}", "CHILD=62 b", "CHILD=63 c", "CHILD=64 d")
    for word in ("EXITED=62 256", "CHILD=62 e", "EXITED=63 9"):
        core.handle(datagram(word), 100.0)
    core.handle(datagram("FDSTORE=1\nFDNAME=a/stdout", 7), 100.0)
    core.handle(datagram("FDSTORE=1\nFDNAME=listen:x", 8, 9), 100.0)
    core.handle(("exited", 50, SIGNALLED), 105.0)
    core.handle(("exited", 64, "unknown"), 105.0)
    core.handle(("started", 51), 105.0)
    core.handle(datagram("DUMP=1\n"), 105.0)
    core.handle(datagram("ACK=63"), 105.0)
    core.handle(("exited", 51, 75 << 8), 105.0)
    after = restored(core, 106.0)
    assert sent(after, "DUMP=1") == [
        (b"FDSTORE=1\nFDNAME=a/stdout\nFDNAME=listen:x\nFDNAME=listen:x", (7, 8, 9)),
        (
            b"CHILD=62 b 60 15\nEXITED=62 256\nAT=100.000\nCHILD=62 e 60 15\nCHILD=61 a 3 2\nRECORD={}\n"
            b"CHILD=63 c 60 15\nEXITED=63 9\nAT=100.000\nCHILD=64 d 60 15\nEXITED=64 unknown\nAT=105.000",
            (),
        ),
        (b"DUMPED=1\nSTARTS=1\nBEGAN=100.000\nLAST=gafferd (pid 51) exited with status 75", ()),
    ]
    after = restored(core, 106.0)
    story = play(after, 106.0) >> TICK << [("start",)] >> ("started", 52) >> wait(1) >> TICK
    story = story << [("keep", (("a/stdout", 7, None),))] >> ("exited", 52, 1 << 8)
    story = story << [("reap", 52), ("hangup",), ("check",)]
    reason = "gafferd (pid 52) exited with status 1"
    assert story << [("log", f"{reason}: starting it again, while 2 processes run on")]


def test_a_keeper_that_follows_a_killed_one_gives_everything_to_another() -> None:
    core = Core(100.0)
    list(core.restore("KILLED=1\nFD=7 a/stdout\nCHILD=61 a 3 2\n", 100.0))
    assert "\nKILLED=1\n" in core.table()
    assert "KILLED" not in Core(100.0).table()
    said = ("log", "another gafferd was started here, and takes over")
    gave_up = ("log", "the other gafferd did not take over: going on")
    keep = ("keep", (("a/stdout", 7, None),))
    story = play(core, 100.0) >> TICK << [("start",)] >> ("started", 50) >> ("claimed",) << [said, ("kill", 50, KILL)]
    story = story >> ("exited", 50, SIGNALLED) << ended("", [("give",)])
    story = story >> ("unclaimed",) << [gave_up] >> TICK << [("start",)] >> wait(1) >> TICK << [keep]
    assert story >> ("claimed",) << [said, ("leave",), ("give",)] >> wait(0.9) >> TICK << nothing


def test_a_keeper_that_follows_a_killed_one_looks_for_the_state_directory() -> None:
    core = Core(100.0)
    list(core.restore("KILLED=1\n", 100.0))
    said = ("log", "the keeper was killed, and the state directory removed: ending")
    story = play(core, 100.0) >> TICK << [("start",)] >> ("started", 50)
    for _ in range(2):
        story = story >> wait(keeper.LOOK_FOR_DIRECTORY) >> TICK << [("look",)] >> TICK << nothing
    story = story >> ("abandoned",) << [said, ("kill", 50, TERM)] >> wait(100) >> TICK << nothing
    assert story >> ("exited", 50, 0) << ended("", [("exit", 0)])


@pytest.mark.parametrize("words", [[], ["STOPPING=1"]])
def test_a_keeper_that_ends_is_not_taken_over(words: list[str]) -> None:
    _, story = running("READY=1", *words)
    if not words:
        story = story >> ("signal", TERM) << [("kill", 50, TERM)]
    assert story >> ("claimed",) << [("refuse",)]


@pytest.mark.parametrize("event", [("signal", TERM), "STOPPING=1"])
def test_a_keeper_that_is_to_end_does_so_when_the_other_has_not_taken_over(event: tuple[str, int] | str) -> None:
    _, story = running("READY=1")
    said = ("log", "another gafferd was started here, and takes over")
    story = story >> ("claimed",) << [said, ("kill", 50, KILL)]
    step = datagram(event) if isinstance(event, str) else event
    story = story >> step << ([] if isinstance(event, str) else [("kill", 50, TERM)])
    assert story >> ("exited", 50, SIGNALLED) << ended("", [("give",)]) >> ("unclaimed",) << [("exit", 0)]


def test_a_table_of_another_version_is_taken_over_as_far_as_it_is_understood() -> None:
    core = Core(100.0)
    table = "NEW=1\nFD=7 a/x\nFD=y b\nCHILD=61 a 1 2 3\nRECORD=x\nCHILD=62 b\nNEW=2\nEXITED=62 much\n=\n"
    logs = [f"in the table, {line!r}: " for line in ("FD=y b", "CHILD=61 a 1 2 3", "EXITED=62 much")]
    actions = list(core.restore(table, 100.0))
    assert [text.startswith(log) for (_, text), log in zip(actions, logs, strict=True)] == [True] * 3
    assert (core.descriptors, list(core.children)) == ({"a/x": [7]}, [62])


def test_gone_forgets_a_child_and_its_descriptors() -> None:
    core, story = running("CHILD=61 a", "CHILD=62 b")
    assert (
        story
        >> datagram("FDSTORE=1\nFDPOLL=0\nFDNAME=a/stdin\nFDNAME=a/stdout", 7, 8)
        >> datagram("FDSTORE=1\nFDNAME=b/stdin", 9)
        << nothing
        >> datagram("GONE=a")
        << [("close", (7,)), ("close", (8,))]
    )
    assert core.descriptors == {"b/stdin": [9]}
    assert list(core.children) == [62]


def test_a_pid_or_an_id_that_is_used_again_replaces_the_earlier_child() -> None:
    core, _ = running("CHILD=61 a", "CHILD=61 b", "CHILD=62 b")
    assert {pid: child.name for pid, child in core.children.items()} == {62: "b"}
    core.handle(datagram("GONE=a"), 100.0)
    assert list(core.children) == [62]


# Descriptors


def test_a_dump_returns_a_thousand_descriptors_in_batches() -> None:
    core, _ = running(max_descriptors=1000)
    for k in range(10):
        core.handle(datagram(f"FDSTORE=1\nFDNAME={k}/many", *range(100 * k, 100 * k + 100)), 100.0)
    messages = sent(core, "DUMP=1")
    assert messages[-1][0].startswith(b"DUMPED=1\n")
    found: dict[str, list[int]] = {}
    for data, passed in messages[:-1]:
        names = [line.removeprefix("FDNAME=") for line in data.decode().split("\n")[1:]]
        assert data.startswith(b"FDSTORE=1\n")
        assert len(data) <= keeper.MAX_MESSAGE
        assert 0 < len(passed) == len(names) <= keeper.BATCH
        for name, descriptor in zip(names, passed, strict=True):
            found.setdefault(name, []).append(descriptor)
    assert found == core.descriptors
    assert sum(map(len, found.values())) == 1000


def test_long_names_and_many_children_fit_into_messages() -> None:
    core, _ = running()
    name = "n" * (keeper.MAX_NAME - 4)
    for k in range(100):
        core.handle(datagram(f"FDSTORE=1\nFDNAME={name}{k}", k), 100.0)
        core.handle(datagram(f"CHILD={10**9 + k} {name}{k}"), 100.0)
    messages = sent(core, "DUMP=1")
    assert max(len(data) for data, _ in messages) <= keeper.MAX_MESSAGE
    assert sum(data.count(b"CHILD=") for data, _ in messages) == 100
    assert sum(len(passed) for _, passed in messages) == 100


def test_the_store_is_bounded() -> None:
    _, story = running(max_descriptors=2)
    full = [("send", b"ERR=the store is full: 2 descriptors", ()), ("close", (9,))]
    assert (
        story
        >> datagram("FDSTORE=1\nFDNAME=a", 7, 8)
        << nothing
        >> datagram("FDSTORE=1\nFDNAME=b", 9)
        << full
        >> datagram("FDSTOREREMOVE=1\nFDNAME=a")
        << [("close", (7, 8))]
        >> datagram("FDSTORE=1\nFDNAME=b", 9)
        << nothing
    )


@pytest.mark.parametrize(
    ("text", "descriptors", "error"),
    [
        ("", (), "unknown word ''"),
        ("HELLO=1", (), "unknown word 'HELLO'"),
        ("\xff", (), "the message is not ASCII"),
        ("BEAT=1" * 2000, (), "the message is longer"),
        ("BEAT=1", (5, 6), "descriptors without FDSTORE"),
        ("FDSTORE=1", (5,), "FDSTORE has 1 descriptors and 0 names"),
        ("FDSTORE=1\nFDNAME=a", (), "FDSTORE has 0 descriptors and 1 names"),
        ("FDSTORE=1\nFDNAME=a\nFDNAME=b", (5, 6, 7), "FDSTORE has 3 descriptors and 2 names"),
        ("FDSTORE=1\nFDNAME=a b", (5,), "invalid name 'a b'"),
        ("FDSTORE=1\nFDNAME=", (5,), "invalid name ''"),
        ("FDSTORE=1\nFDNAME=" + "n" * (keeper.MAX_NAME + 1), (5,), "invalid name 'nnn"),
        ("CHILD=61", (), "write CHILD=pid id"),
        ("CHILD=1 init", (), "expected a number from 2"),
        ("CHILD=50 gafferd", (), "CHILD='50 gafferd' is not a child"),
        ("CHILD=99999999999 a", (), "expected a number"),
        ("CHILD=61 a/b", (), "CHILD='61 a/b' is not a child"),
        ("CHILD=61 a nan", (), "expected seconds, got 'nan'"),
        ("CHILD=61 a -1", (), "expected seconds, got '-1'"),
        ("CHILD=61 a 1 99", (), "expected a number from 1 to 64"),
        ("ACK=61", (), "no child '61' has exited"),
        ("EXITED=61 0", (), "no child '61'"),
        ("EXITED=60", (), "expected a number from 0 to 65535, got ''"),
        ("EXITED=60 unknown", (), "expected a number from 0 to 65535, got 'unknown'"),
        ("REAP=x", (), "expected a number"),
        ("READY=1\nWATCHDOG=soon", (), "expected seconds"),
        ("DUMP=1\nDUMP=1", (), "DUMP must be alone"),
    ],
)
def test_what_is_not_understood_is_answered_and_changes_nothing(
    text: str, descriptors: tuple[int, ...], error: str
) -> None:
    core, _ = running("CHILD=60 x")
    before = core.deadline()
    error_sent, *others = core.handle(("datagram", text.encode("latin-1"), descriptors), 100.0)
    assert error_sent[0] == "send"
    assert error_sent[1].decode().startswith(f"ERR={error}")
    assert tuple(each for action in others for each in action[1]) == descriptors
    assert (list(core.children), core.descriptors, core.deadline()) == ([60], {}, before)


WORDS = [*keeper._WORDS, "FDSTORE", "FDSTOREREMOVE", *keeper._MODIFIERS]
LINES = st.builds(
    "{}={}".format,
    st.sampled_from(WORDS),
    st.sampled_from("1,60,61,a,a/b,60 a,61 a,61 b,60 256,61 0".split(",")) | st.text(max_size=9),
)
EVENTS = st.one_of(
    st.tuples(st.just("datagram"), st.lists(LINES, max_size=4).map(lambda lines: "\n".join(lines).encode())),
    st.tuples(st.just("datagram"), st.binary(max_size=50)),
    st.tuples(st.just("exited"), st.sampled_from([60, 61, 77]), st.sampled_from([0, 9, 42 << 8])),
    st.tuples(st.just("signal"), st.sampled_from([HUP, USR1, USR2])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("stored"), st.sampled_from(["a/stdout.journal", "x"])),
)


@settings(max_examples=50)
@given(st.lists(EVENTS, max_size=30), st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_each_descriptor_is_kept_or_closed_once_and_each_orphan_reaped(
    events: list[tuple[Any, ...]], numbers: list[int]
) -> None:
    core, now, opened, closed = Core(100.0, 50, max_descriptors=5), 100.0, 0, []
    for event, count in zip(events, numbers, strict=False):
        now += 0.3
        if event[0] == "datagram":
            event = (*event, tuple(range(opened, opened + count)))
            opened += count
        elif event[0] == "stored":
            event = (*event, opened)
            opened += 1
        elif event[0] == "crash":
            event = ("exited", core.daemon, SIGNALLED)
            if core.daemon is None:
                continue
        orphan = event[0] == "exited" and event[1] not in core.children
        actions = core.handle(event, now)
        assert not orphan or ("reap", event[1]) in actions
        if ("start",) in actions:
            core.handle(("started", 50), now)
        closed += [each for action in actions if action[0] == "close" for each in action[1]]
        if actions and actions[-1][0] == "exit":
            break
        assert restored(core, now).table() == core.table()
    kept = [each for found in core.descriptors.values() for each in found]
    assert sorted(closed + kept) == list(range(opened))
    assert len(kept) <= 5
