"""Out of memory or not: the counters of the kernel after a process was ended by SIGKILL."""

from pathlib import Path

import pytest

from gaffer.processes.oom import OomCounters, own_counter, parse_count

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (EVENTS.format(2), 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7),
        ("oom_kill_disable 0\nunder_oom 0\n", None),
        ("oom_kill x\n", None),
        ("", None),
    ],
)
def test_the_counter_in_files_of_the_kernel(text: str, count: int | None) -> None:
    assert parse_count(text.encode()) == count


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/system.slice/gafferd.service\n", "system.slice/gafferd.service/memory.events"),
        ("4:cpu,memory:/docker/x\n0::/\n", "memory/docker/x/memory.oom_control"),
        ("4:cpuset:/docker/x\n0::/\n", None),
    ],
)
def test_where_our_group_is_counted(tmp_path: Path, membership: str, file: str | None) -> None:
    for name in ("system.slice/gafferd.service/memory.events", "memory/docker/x/memory.oom_control"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert own_counter(membership, tmp_path) == (tmp_path / file if file else None)


def test_what_is_known_from_the_counters(tmp_path: Path) -> None:
    own, host = tmp_path / "memory.events", tmp_path / "vmstat"

    def count(in_group: int, on_host: int) -> None:
        own.write_text(EVENTS.format(in_group))
        host.write_text(f"nr_free_pages 1\noom_kill {on_host}\n")

    count(1, 5)
    counters = OomCounters(own, host)
    assert counters.was_short(0.0) is False
    count(1, 6)  # somewhere else on the host, or in a group that nobody counts for us
    assert counters.was_short(10.0) is None
    assert counters.was_short(20.0) is False
    count(3, 8)  # two at once, and both deaths are seen one after the other
    assert counters.was_short(30.0) is True
    assert counters.was_short(30.1) is True
    assert counters.was_short(40.0) is False


def test_without_counters_nothing_is_known(tmp_path: Path) -> None:
    assert OomCounters(None, tmp_path / "missing").was_short(0.0) is None
