"""Faults of networks and hosts: no lookupd drops a node that can be reached, nor keeps one that can't.

The scenarios run side by side, on one network. `make faults` runs the long ones too, and prints the figures.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaffer_client import Lookup
from support.faults import PORT, Cluster, let_pass, watching
from support.history import BACK, REMOVAL, History
from support.needs import needs_iptables, needs_netns
from support.network import Network, network
from support.poll import eventually

TTL, INTERVAL = 3.0, 1.0
EXPIRED = TTL + REMOVAL
SHORT = 1.5  # seconds of a fault that a lease of TTL bears, whenever the last PING was
BLINK = 1.0  # seconds of one that it bears on a busy machine, too
LONG = EXPIRED + 1

Ready = Callable[[], object]
Scenario = Callable[[Cluster, Ready], None]

pytestmark = [needs_netns, needs_iptables]


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:
        yield net


def run_all(net: Network, folder: Path, *scenarios: Scenario) -> None:
    """Each in its own thread; all wait until the daemons of all are up, for starting them takes much time."""
    barrier = threading.Barrier(len(scenarios))

    def run(scenario: Scenario) -> list[str]:
        home = folder / str(scenarios.index(scenario))  # short, for the paths of sockets
        home.mkdir()
        try:
            with Cluster(net, home) as cluster:
                scenario(cluster, barrier.wait)
                return cluster.figures
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(scenarios)) as pool:
        runs = {scenario.__name__.replace("_", " "): pool.submit(run, scenario) for scenario in scenarios}
    failures = [done.exception() for done in runs.values()]
    real = [error for error in failures if error and not isinstance(error, threading.BrokenBarrierError)]
    for what, done in runs.items():
        if done.exception() is None:
            print(f"{what}: {'; '.join(done.result())}")
    if real:
        raise BaseExceptionGroup("scenarios failed", real)


def check(history: History) -> None:
    assert history.answers > 20, "nobody asked"
    assert history.violations()[:10] == []


def silence_and_loss(cluster: Cluster, ready: Ready) -> None:
    """Six nodes of one lookupd, each with another fault."""
    registry = cluster.registry("registry")
    names = ["steady", "blinking", "cut", "deaf", "mute", "stopped"]
    steady, blinking, cut, deaf, mute, stopped = nodes = cluster.nodes(names, registry)
    history = registry.history
    ready()
    with registry.watched():
        let_pass(1.0)
        begin = time.monotonic()
        for node in nodes[1:]:
            history.unreachable(node.address, begin)
        blinking.host.drop("INPUT")
        blinking.host.drop("OUTPUT")
        cut.host.cut()
        deaf.host.drop("INPUT")
        mute.host.drop("OUTPUT")
        stopped.daemon.signal(signal.SIGSTOP)
        let_pass(BLINK)
        blinking.host.lose_nothing()
        history.reachable(blinking.address, time.monotonic())
        let_pass(LONG - BLINK)
        assert deaf.host.lost("INPUT")
        assert mute.host.lost("OUTPUT")
        healed = time.monotonic()
        cut.host.mend()
        deaf.host.lose_nothing()
        mute.host.lose_nothing()
        stopped.daemon.signal(signal.SIGCONT)
        for node in (cut, deaf, mute):
            history.reachable(node.address, healed)
        history.reachable(stopped.address, healed, within=2.0)
        let_pass(BACK + 0.5)
    check(history)
    assert history.first_without(steady.address, begin) is None
    assert history.first_without(blinking.address, begin) is None
    for node in (cut, deaf, mute, stopped):
        removed, back = history.first_without(node.address, begin), history.first_with(node.address, healed)
        assert removed is not None
        assert back is not None
        cluster.note(f"{node.name}: removed after {removed:.2f} s, back after {back:.2f} s")
    cluster.note(f"partition of {BLINK:g} s with a ttl of {TTL:g}: 0 removals")
    assert set(registry.listed().values()) == {"alive"}


def lookupd_stopped(cluster: Cluster, ready: Ready, seconds: float = 8.0) -> None:
    """It stands still for longer than its own ttl, and drops nobody when it goes on."""
    registry = cluster.registry("registry")
    nodes = cluster.nodes(["one", "two", "three"], registry)
    ready()
    with registry.watched():
        let_pass(0.5)
        registry.daemon.signal(signal.SIGSTOP)
        let_pass(seconds)
        registry.daemon.signal(signal.SIGCONT)
        let_pass(EXPIRED)
        assert list(registry.listed().values()) == ["alive"] * 3
    check(registry.history)
    assert all(registry.history.first_without(node.address, 0.0) is None for node in nodes)
    cluster.note(f"stopped for {seconds:g} s with a ttl of {TTL:g}: 0 removals")


def half_open_connection(cluster: Cluster, ready: Ready) -> None:
    """The node connects anew while lookupd still holds its old connection, which then closes late."""
    registry = cluster.registry("registry", ttl=6.0)
    (node,) = cluster.nodes(["node"], registry)
    ready()
    with registry.watched():
        (old,) = node.host.connections_to(PORT)
        node.host.drop("OUTPUT", "-p", "tcp", "--sport", str(old))
        node.host.drop("INPUT", "-p", "tcp", "--dport", str(old))
        begin = time.monotonic()
        eventually(lambda: len(set(node.host.connections_to(PORT)) - {old}) == 1, timeout=5)
        again = time.monotonic() - begin
        eventually(lambda: registry.daemon.stderr.count("'node' at") > 1)
        node.host.lose_nothing()
        let_pass(4.0)
        (source,) = registry.sources()
        assert (source["status"], source["node_info"]["conflict"]) == ("alive", False)
        assert len(node.host.connections_to(PORT)) == 1
    check(registry.history)
    assert registry.history.first_without(node.address, 0.0) is None
    cluster.note(f"new connection after {again:.2f} s, 0 removals, no conflict with itself")


def namesakes_and_clones(cluster: Cluster, ready: Ready) -> None:
    """Two hosts of one name, and a state directory that was copied to another host: all are listed."""
    registry = cluster.registry("registry", ttl=6.0)
    first, second = cluster.nodes(["twin", "twin"], registry)
    state_dir = cluster.folder / "copied"
    original = cluster.node("original", registry, state_dir=state_dir)
    clone = cluster.node("clone", registry, **copied_to_another_host(cluster, state_dir))
    cluster.settled(registry, [original, clone])
    ready()
    with registry.watched():
        infos = {source["node_info"]["origin"]: source["node_info"] for source in registry.sources()}
        assert len({info["id"] for info in infos.values()}) == 4
        conflicts = {info["name"] for info in infos.values() if info["conflict"]}
        assert conflicts == {"twin"}
        assert "two connected nodes have the name 'twin'" in registry.daemon.stderr
        assert "the node gets a new id" in clone.daemon.stderr
        let_pass(2.0)
    check(registry.history)
    second.daemon.stop()
    eventually(lambda: not any(source["node_info"]["conflict"] for source in registry.sources()))
    assert set(registry.listed()) == {first.address, original.address, clone.address}
    cluster.note("two hosts with one name: both listed, marked as a conflict; a copied id: replaced by a new one")


def copied_to_another_host(cluster: Cluster, state_dir: Path) -> dict[str, object]:
    """How to start a gafferd on a copy of the state directory, where host name and machine id are others."""
    copy = cluster.folder / "the copy"
    copy.mkdir(mode=0o700)
    (copy / "node.json").write_bytes((state_dir / "node.json").read_bytes())
    machine_id = cluster.folder / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    script = 'hostname another; if [ -e /etc/machine-id ]; then mount --bind "$0" /etc/machine-id; fi; exec "$@"'
    return {"state_dir": copy, "enter": ("unshare", "--uts", "--mount", "sh", "-c", script, str(machine_id))}


def three_lookupds_split_and_healed(cluster: Cluster, ready: Ready) -> None:
    """Each keeps what it can reach; merged they have all, all the time; healed they agree again."""
    registries = [cluster.registry(f"registry{number}") for number in range(3)]
    nodes = cluster.nodes(["left", "middle", "right"], *registries)
    merged = History(TTL, INTERVAL)
    lookup = Lookup([f"unix:{registry.path}" for registry in registries])

    def union() -> set[str]:
        sources = lookup.find_job("default.web")["sources"]
        return {node.address for node in nodes for source in sources if node.address in source["node_info"]["origin"]}

    for node in nodes:
        merged.reachable(node.address, time.monotonic(), within=0.0)
    ready()
    with lookup, watching(merged, union), registries[0].watched(), registries[1].watched(), registries[2].watched():
        begin = time.monotonic()
        for number, (registry, own) in enumerate(zip(registries, nodes, strict=True)):
            for node in nodes:
                if node is not own:
                    registry.history.unreachable(node.address, begin)
            registry.host.move(number)
            own.host.move(number)
        let_pass(LONG)
        assert [set(registry.listed()) for registry in registries] == [{node.address} for node in nodes]
        healed = time.monotonic()
        for registry, node in zip(registries, nodes, strict=True):
            registry.host.move(0)
            node.host.move(0)
        for registry in registries:
            for node in nodes:
                registry.history.reachable(node.address, healed, within=30.0)
        everybody = {node.address: "alive" for node in nodes}
        eventually(lambda: all(registry.listed() == everybody for registry in registries), timeout=30)
        converged = time.monotonic() - healed
    for history in (merged, *(registry.history for registry in registries)):
        check(history)
    assert all(merged.first_without(node.address, 0.0) is None for node in nodes)
    cluster.note(f"0 removals from the merged answers, converged {converged:.2f} s after healing")


def most_nodes_silent(cluster: Cluster, ready: Ready) -> None:
    """More than half of ten nodes: the fault is rather lookupd's own, so it keeps them and says that it is stale."""
    registry = cluster.registry("registry")
    nodes = cluster.nodes([f"node{number}" for number in range(10)], registry)
    silent = nodes[:6]
    ready()
    with registry.watched():
        assert not registry.stale()
        for node in silent:
            registry.history.unreachable(node.address, time.monotonic(), held=True)
            node.host.cut()
        eventually(registry.stale, timeout=TTL)
        let_pass(EXPIRED)
        assert registry.stale()
        assert len(registry.listed()) == 10
        for node in silent:
            node.host.mend()
            registry.history.reachable(node.address, time.monotonic())
        healed = time.monotonic()
        eventually(lambda: not registry.stale(), timeout=BACK)
        trusted = time.monotonic() - healed
        eventually(lambda: list(registry.listed().values()) == ["alive"] * 10, timeout=BACK)
        let_pass(EXPIRED)
    check(registry.history)
    assert all(registry.history.first_without(node.address, 0.0) is None for node in nodes)
    cluster.note(f"6 of 10 silent: all kept, marked stale, trusted again {trusted:.2f} s after healing")


@pytest.mark.row("LK-10", "LP-24")
@pytest.mark.timeout(150)
def test_faults(net: Network, tmp_path: Path) -> None:
    run_all(
        net,
        tmp_path,
        silence_and_loss,
        lookupd_stopped,
        half_open_connection,
        namesakes_and_clones,
        three_lookupds_split_and_healed,
        most_nodes_silent,
    )


# The long ones


def lookupd_stopped_for_a_minute(cluster: Cluster, ready: Ready) -> None:
    lookupd_stopped(cluster, ready, seconds=60.0)


def many_short_partitions(cluster: Cluster, ready: Ready) -> None:
    """At any time between two PINGs. Packets are dropped, because a link that comes up again takes up to a second."""
    registry = cluster.registry("registry")
    nodes = cluster.nodes([f"node{number}" for number in range(6)], registry)
    ready()
    rounds = 20
    with registry.watched():
        for _ in range(rounds):
            for node in nodes:
                let_pass(INTERVAL / 7)
                registry.history.unreachable(node.address, time.monotonic())
                node.host.drop("INPUT")
                node.host.drop("OUTPUT")
            begin = time.monotonic()
            for number, node in enumerate(nodes):
                let_pass(max(0.0, begin + (number - 5) * INTERVAL / 7 + SHORT - time.monotonic()))
                node.host.lose_nothing()
                registry.history.reachable(node.address, time.monotonic())
            let_pass(EXPIRED)
    check(registry.history)
    assert all(registry.history.first_without(node.address, 0.0) is None for node in nodes)
    cluster.note(f"{rounds * len(nodes)} partitions of {SHORT:g} s with a ttl of {TTL:g}: 0 removals")


def a_fifth_of_the_packets_lost(cluster: Cluster, ready: Ready) -> None:
    """From 20 nodes to lookupd, with the ttl and the interval that people have."""
    registry = cluster.registry("registry", ttl=45.0, interval=15.0)
    nodes = cluster.nodes([f"node{number}" for number in range(20)], registry)
    ready()
    with registry.watched():
        registry.host.lose("INPUT", 0.2)
        let_pass(180.0)
        lost = registry.host.lost("INPUT")
        registry.host.lose_nothing()
        let_pass(20.0)
    check(registry.history)
    assert all(registry.history.first_without(node.address, 0.0) is None for node in nodes)
    again = registry.daemon.stderr.count("' connected") - len(nodes)
    assert lost > len(nodes)
    cluster.note(f"20 nodes for 180 s: {lost} packets lost, 0 removals, {again} new connections")


@pytest.mark.faults
@pytest.mark.timeout(500)
def test_long_faults(net: Network, tmp_path: Path) -> None:
    run_all(net, tmp_path, lookupd_stopped_for_a_minute, many_short_partitions, a_fifth_of_the_packets_lost)
