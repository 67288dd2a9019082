"""Metrics of the node, its jobs and its processes for Prometheus."""

import platform
from collections import Counter
from collections.abc import Generator
from functools import partial

from gaffer.api.node import NodeApplication, NodeHandler
from gaffer.errors import ProcessNotFound
from gaffer.http.access import Grant, Scope
from gaffer.http.exposition import CONTENT_TYPE, Family
from gaffer.http.operations import TEXT, operation
from gaffer.http.routes import Route
from gaffer.jobs.names import parse_job_name
from gaffer.jobs.slot import VISIBLE_STATES
from gaffer.processes import stats
from gaffer.runtime import log
from gaffer.runtime.version import __version__
from gaffer.supervision.commands import Outcome, Purpose


class MetricsHandler(NodeHandler):
    """The metrics of the node."""

    @operation(str, media=TEXT)
    async def get(self) -> None:
        """Return metrics in the Prometheus text format, version 0.0.4. A key limited to sessions gets only their jobs.

        CPU time and memory are those of the process itself, without its children. Request durations exclude feeds,
        which last as long as the client listens.
        """
        families = await self.application.batches.run(partial(_collect, self.application, self.grant))
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish("".join(family.render() for family in families))


Steps = Generator[None, None, list[Family]]


def _collect(application: NodeApplication, grant: Grant) -> Steps:
    """Collect the metrics that the grant covers, in steps between which the event loop can run."""
    of_node = [*_of_node(application), application.latencies.histogram.collect()]
    yield
    of_jobs = yield from _of_jobs(application, grant)
    of_processes = yield from _of_processes(application, grant)
    return [*of_node, *of_jobs, *of_processes]


def _of_node(application: NodeApplication) -> list[Family]:
    build = Family("gaffer_build_info", "gauge", "Always 1; the labels identify the running version.")
    build.add(1, {"version": __version__, "python": platform.python_version()})
    uptime = Family("gaffer_uptime_seconds", "gauge", "Seconds since the API started.")
    uptime.add(application.uptime)
    draining = Family("gaffer_draining", "gauge", "1 while the node is out of service.")
    draining.add(int(application.manager.draining))
    traffic = application.count_connections()
    connections = Family("gaffer_http_connections", "gauge", "Open client connections, including websockets.")
    connections.add(traffic.open)
    displaced = Family(
        "gaffer_http_connections_displaced_total", "counter", "Connections that were closed to make room for others."
    )
    displaced.add(traffic.displaced)
    refused = Family(
        "gaffer_http_connections_refused_total", "counter", "Connections that were refused because there was no room."
    )
    refused.add(traffic.refused)
    feeds = Family("gaffer_http_feeds", "gauge", "Feeds and websockets in use.")
    feeds.add(len(application.feeds))
    lost_bytes = Family(
        "gaffer_feed_dropped_bytes_total", "counter", "Bytes of output that clients lost because they read too slowly."
    )
    lost_bytes.add(application.manager.dropped_bytes)
    lost_events = Family(
        "gaffer_feed_dropped_events_total", "counter", "Events that clients lost because they read too slowly."
    )
    lost_events.add(application.manager.event_log.dropped + application.manager.events.unlisted.dropped)
    lost_logs = Family(
        "gaffer_log_lost_bytes_total", "counter", "Bytes of output that could not be written to log files."
    )
    lost_logs.add(application.manager.lost_log_bytes)
    lost_lines = Family(
        "gaffer_own_log_lost_lines_total",
        "counter",
        "Lines of the node's own log that were dropped because nothing read them or the disk was full.",
    )
    lost_lines.add(log.lost_lines())
    lost_entries = Family(
        "gaffer_history_lost_entries_total", "counter", "Entries of the history that could not be written."
    )
    if application.lost_history is not None:
        lost_entries.add(application.lost_history())
    lookupds = Family("gaffer_lookupd_connected", "gauge", "1 while the node is connected to the lookup server.")
    for lookupd in application.lookupds():
        lookupds.add(int(lookupd["connected"]), {"address": lookupd["address"]})
    hooks = _of_webhooks(application)
    commands = Family("gaffer_commands", "gauge", "Running auxiliary commands of jobs: hooks, exec probes, actions.")
    ended = Family("gaffer_commands_total", "counter", "Auxiliary commands of jobs by how they ended.")
    for purpose in Purpose:
        commands.add(application.manager.commands.running[purpose], {"purpose": purpose.value})
        for outcome in Outcome:
            count = application.manager.commands.counts[purpose, outcome]
            ended.add(count, {"purpose": purpose.value, "outcome": outcome.value})
    return [
        build,
        uptime,
        draining,
        connections,
        displaced,
        refused,
        feeds,
        lost_bytes,
        lost_events,
        lost_logs,
        lost_lines,
        lost_entries,
        lookupds,
        *hooks,
        commands,
        ended,
    ]


def _of_webhooks(application: NodeApplication) -> list[Family]:
    deliveries = Family("gaffer_webhook_deliveries_total", "counter", "Events posted to webhooks by outcome.")
    dropped = Family("gaffer_webhook_dropped_total", "counter", "Events lost because a webhook's queue was full.")
    pending = Family("gaffer_webhook_pending", "gauge", "Events that wait for a webhook.")
    unsaved = Family(
        "gaffer_webhook_unsaved_total", "counter", "Events that waited in memory only, because the disk failed."
    )
    counts: dict[str, Counter[str]] = {}  # webhooks that differ in user or query only have one label
    for hook in application.webhooks():
        numbers = {name: hook[name] for name in ("delivered", "failed", "dropped", "pending", "unsaved")}
        counts.setdefault(hook["url"], Counter()).update(numbers)
    for url, found in counts.items():
        for outcome in ("delivered", "failed"):
            deliveries.add(found[outcome], {"url": url, "outcome": outcome})
        dropped.add(found["dropped"], {"url": url})
        pending.add(found["pending"], {"url": url})
        unsaved.add(found["unsaved"], {"url": url})
    return [deliveries, dropped, pending, unsaved]


def _of_jobs(application: NodeApplication, grant: Grant) -> Steps:
    manager = application.manager
    processes = Family("gaffer_job_processes", "gauge", "Processes of a job by their state.")
    wanted = Family("gaffer_job_wanted_processes", "gauge", "Desired number of processes while the job is active.")
    restarts = Family("gaffer_job_restarts_total", "counter", "Processes that exited and were replaced.")
    lost = Family(
        "gaffer_job_log_lost_bytes_total", "counter", "Bytes of a job's output that could not be written to log files."
    )
    for qualified in manager.jobs():
        name = parse_job_name(qualified)
        if not grant.sees(name.session):
            continue
        try:
            info = manager.info(name)
        except ProcessNotFound:  # unloaded in the meantime
            continue
        labels = {"session": name.session, "job": name.name}
        states = Counter(instance["state"] for instance in info["instances"])
        for state in VISIBLE_STATES:
            processes.add(states[state], {**labels, "state": state.value})
        wanted.add(info["max_processes"], labels)
        restarts.add(info["restarts"], labels)
        lost.add(info["log_lost_bytes"], labels)
        yield
    return [processes, wanted, restarts, lost]


def _of_processes(application: NodeApplication, grant: Grant) -> Steps:
    cpu = Family("gaffer_process_cpu_seconds_total", "counter", "User and system CPU time of a process.")
    memory = Family("gaffer_process_resident_memory_bytes", "gauge", "Resident memory of a process.")
    for process in tuple(application.manager.running.values()):
        name = process.job
        usage = stats.usage(process.os_pid) if grant.sees(name.session) and process.active else None
        if usage is None:
            continue
        labels = {"session": name.session, "job": name.name, "slot": process.slot, "pid": process.pid}
        cpu.add(usage.cpu_seconds, labels)
        memory.add(usage.resident_bytes, labels)
        yield
    return [cpu, memory]


ROUTES = [Route("/metrics", MetricsHandler, {"GET": Scope.READ})]
