"""Measure the registry: operations per second and event latency compared with other servers, and scale.

python bench/lookupd.py [--rounds 5] [--seconds 3] [--nodes 10000] [--jobs 10] [--minute 30] [--no-scale] [--no-peers]

Speed: registrations and lookups on 16 connections with one outstanding request each, compared with etcd (its JSON
gateway) and redis, in turn in each round. Latency: from the message of a node to the event at a follower, compared with
redis publish/subscribe, etcd watch, and a bare Tornado handler that relays between two websockets.

Scale: nodes with real sockets in several processes; memory, CPU time of heartbeats, lookups under that load, a restart.
The limit on file descriptors (`ulimit -n`) must be higher than the number of nodes.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop
from _measure import daemon, show, show_ratio
from _registry import (
    ENDPOINT,
    Address,
    closed_loop,
    connect,
    frame,
    frame_answered,
    get,
    http_answered,
    open_websocket,
    post,
    receive_frame,
    redis_answered,
    send_on_request,
)
from _scale import cpu_seconds, measure_scale
from _stores import (
    address_of,
    base64_of,
    etcd_get,
    etcd_put,
    etcd_server,
    redis_server,
    relay_server,
    resp,
)
from tornado.websocket import websocket_connect

CONNECTIONS = 16
EVENTS = 1000  # per measurement, of which the median counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="duration of one measurement")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=10, help="jobs per node")
    parser.add_argument("--minute", type=float, default=30, help="seconds to measure heartbeats, and then lookups")
    parser.add_argument("--no-scale", action="store_true")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()
    if not chosen.no_speed:
        _speed(chosen.rounds, chosen.seconds, peers=not chosen.no_peers)
        _latency(chosen.rounds, peers=not chosen.no_peers)
    if not chosen.no_scale:
        measure_scale(chosen.nodes, chosen.jobs, chosen.minute)


# Speed


def _speed(rounds: int, seconds: float, *, peers: bool) -> None:
    with contextlib.ExitStack() as stack:
        lookupd = stack.enter_context(daemon("gaffer_lookupd", "--log-level=warning"))
        ours = address_of(lookupd.url)
        measured: dict[str, Callable[[], float]] = {
            "registrations, gaffer_lookupd": lambda: _registers(ours, seconds),
            "lookups, gaffer_lookupd": lambda: _http(ours, lambda *_: get("/findJob?name=bench.web"), seconds),
        }
        if peers:
            etcd, redis = stack.enter_context(etcd_server()), stack.enter_context(redis_server())
            measured |= {
                "registrations, etcd": lambda: _http(etcd, lambda n, k: etcd_put(f"job{n}", f"{VALUE}{k}"), seconds),
                "lookups, etcd": lambda: _http(etcd, lambda *_: etcd_get("job1"), seconds),
                "registrations, redis": lambda: _redis(
                    redis, lambda n, k: resp("SET", f"job:{n}", f"{VALUE}{k}"), seconds
                ),
                "lookups, redis": lambda: _redis(redis, lambda *_: resp("GET", "job:1"), seconds),
            }
        results: dict[str, list[float]] = {name: [] for name in measured}
        keeper = _announce(ours)
        spent: list[float] = []
        for _ in range(rounds):
            for name, measure in measured.items():
                before = cpu_seconds(lookupd.process.pid)
                results[name].append(measure())
                if name == "lookups, gaffer_lookupd":
                    used = cpu_seconds(lookupd.process.pid) - before
                    spent.append(used / (results[name][-1] * seconds))
        keeper.close()
    for name, values in results.items():
        show(f"{name}, {CONNECTIONS} connections", values, "/s", 1)
    show("CPU time of gaffer_lookupd per lookup", spent, "us", 1_000_000)
    if peers:
        for what in ("registrations", "lookups"):
            show_ratio(f"{what}, vs. etcd", results[f"{what}, gaffer_lookupd"], results[f"{what}, etcd"])


VALUE = msgspec.json.encode(ENDPOINT).decode()


def _announce(address: Address) -> socket.socket:
    """Announce the job that is looked up; it stays announced while the returned websocket is open."""
    sock = open_websocket(address, "/ws")
    _identify(sock, "keeper")
    process = {"pid": 1, "state": "ready", "endpoints": [ENDPOINT]}
    sock.sendall(frame({"msgid": "s", "type": "SNAPSHOT", "seq": 1, "jobs": {"bench.web": [process]}}))
    receive_frame(sock, bytearray())
    return sock


def _identify(sock: socket.socket, name: str) -> None:
    who = {"name": name, "origin": f"http://{name}:5000", "version": "0.1", "id": name}
    sock.sendall(frame({"msgid": "i", "type": "IDENTIFY", "incarnation": int(time.time() * 1000), **who}))
    receive_frame(sock, bytearray())


def _registers(address: Address, seconds: float) -> float:
    """Return the registrations and removals of processes per second."""

    def change(number: int, before: int) -> bytes:
        seq = before + 2
        kind, more = ("UNREGISTER", "") if before % 2 else ("REGISTER", f',"state":"ready","endpoints":[{VALUE}]')
        return frame(f'{{"msgid":"{seq}","type":"{kind}_PROCESS","job_name":"s.web","pid":1,"seq":{seq}{more}}}')

    sockets = [open_websocket(address, "/ws") for _ in range(CONNECTIONS)]
    for number, sock in enumerate(sockets):
        _identify(sock, f"n{number}")
        sock.sendall(frame({"msgid": "s", "type": "SNAPSHOT", "seq": 1, "jobs": {"s.web": []}}))
        receive_frame(sock, bytearray())
    return _measure(sockets, change, frame_answered, seconds)


def _http(address: Address, request: Callable[[int, int], bytes], seconds: float) -> float:
    return _measure([connect(address) for _ in range(CONNECTIONS)], request, http_answered, seconds)


def _redis(address: Address, request: Callable[[int, int], bytes], seconds: float) -> float:
    return _measure([connect(address) for _ in range(CONNECTIONS)], request, redis_answered, seconds)


def _measure(
    sockets: list[socket.socket],
    request: Callable[[int, int], bytes],
    answered: Callable[[bytearray], bool],
    seconds: float,
) -> float:
    try:
        return closed_loop(sockets, request, answered, seconds)
    finally:
        for sock in sockets:
            sock.close()


# Latency


def _latency(rounds: int, *, peers: bool) -> None:
    with contextlib.ExitStack() as stack:
        lookupd = stack.enter_context(daemon("gaffer_lookupd", "--log-level=warning"))
        relay = stack.enter_context(relay_server())
        measured: dict[str, Callable[[], float]] = {
            "event latency, gaffer_lookupd": lambda: _our_latency(address_of(lookupd.url)),
            "event latency, bare relay": lambda: _relay_latency(relay),
        }
        if peers:
            etcd, redis = stack.enter_context(etcd_server()), stack.enter_context(redis_server())
            measured["event latency, etcd watch"] = lambda: _etcd_latency(etcd)
            measured["event latency, redis publish"] = lambda: _redis_latency(redis)
        results: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(rounds):
            for name, measure in measured.items():
                results[name].append(measure())
    for name, values in results.items():
        show(name, values, "us", 1_000_000)
    ours, bare = results["event latency, gaffer_lookupd"], results["event latency, bare relay"]
    show_ratio("event latency, vs. bare relay", ours, bare)


def _median(once: Callable[[int], None]) -> float:
    """Return the median duration of a call in seconds."""
    took = []
    for number in range(EVENTS):
        began = time.perf_counter()
        once(number)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _our_latency(address: Address) -> float:
    who = {"name": "latency", "origin": "http://latency:5000", "version": "0.1", "id": "latency"}
    opening = [
        {"msgid": "i", "type": "IDENTIFY", "incarnation": int(time.time() * 1000), **who},
        {"msgid": "s", "type": "SNAPSHOT", "seq": 1, "jobs": {"s.web": []}},
    ]
    change = {"job_name": "s.web", "pid": 1}
    messages = [
        {"msgid": str(seq), "type": f"{'UN' if seq % 2 else ''}REGISTER_PROCESS", "seq": seq, **change}
        for seq in range(2, EVENTS + 2)
    ]
    return _relayed(address, "/lookup/websocket", [*opening, *messages], skipped=2, answers=True)


def _relay_latency(address: Address) -> float:
    return _relayed(address, "/follow", [{"message": "x" * 300}] * EVENTS, skipped=0, answers=False)


def _relayed(address: Address, path: str, messages: list[dict[str, Any]], *, skipped: int, answers: bool) -> float:
    """Return the median time from a message of another process to its event in this one, both with Tornado's client."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    texts = [msgspec.json.encode(message).decode() for message in messages]
    url = f"ws://{address[0]}:{address[1]}"
    node = context.Process(target=send_on_request, args=(f"{url}/ws", texts, answers, theirs), daemon=True)
    node.start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(_follow(url + path, mine, len(texts)))
    node.join()
    return statistics.median(took[skipped:])


async def _follow(url: str, pipe: Any, count: int) -> list[float]:
    follower = await websocket_connect(url)
    await asyncio.to_thread(pipe.recv)  # it is connected too
    took = []
    for number in range(count):
        pipe.send(number)
        text = await follower.read_message()
        while text is not None and ('"add_node"' in text or '"remove_node"' in text):
            text = await follower.read_message()
        took.append(time.perf_counter() - pipe.recv())
    follower.close()
    return took


def _etcd_latency(address: Address) -> float:
    writer, watcher = connect(address), connect(address)
    watcher.sendall(post("/v3/watch", {"create_request": {"key": base64_of("watched")}}))
    while b'"created":true' not in watcher.recv(65536):
        pass

    def once(number: int) -> None:
        writer.sendall(post("/v3/kv/put", {"key": base64_of("watched"), "value": base64_of(f"{VALUE}{number}")}))
        while b'"events"' not in watcher.recv(65536):
            pass
        buffer = bytearray(writer.recv(65536))
        while not http_answered(buffer):
            buffer += writer.recv(65536)

    return _closing(_median(once), writer, watcher)


def _redis_latency(address: Address) -> float:
    publisher, subscriber = connect(address), connect(address)
    subscriber.sendall(resp("SUBSCRIBE", "jobs"))
    subscriber.recv(65536)

    def once(number: int) -> None:
        publisher.sendall(resp("PUBLISH", "jobs", f"{VALUE}{number}"))
        subscriber.recv(65536)
        publisher.recv(65536)

    return _closing(_median(once), publisher, subscriber)


def _closing(value: float, *sockets: socket.socket) -> float:
    for sock in sockets:
        sock.close()
    return value


if __name__ == "__main__":
    main()
