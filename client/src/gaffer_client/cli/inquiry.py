"""Compares what the lookups and the nodes report about a job, for `gaffer why`."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

from gaffer.errors import did_you_mean
from gaffer.jobs.names import parse_job_name
from gaffer.schemas.lookup import AgedNodeInfo
from gaffer_client.cli.config import Context
from gaffer_client.cli.errors import Exit
from gaffer_client.cli.output import abridged, age, print_json, printable, table
from gaffer_client.cli.parse import Arguments
from gaffer_client.errors import GafferClientError, NotFound, Unauthorized, UntrustedServer
from gaffer_client.jobs import Job
from gaffer_client.lookup import Lookup
from gaffer_client.merge import NodeKey, View, node_key
from gaffer_client.naming import display_name
from gaffer_client.node import Server
from gaffer_client.why import Inquiry, Report, findings

_CONCURRENCY = 16  # simultaneous requests to nodes
_NODE_TIMEOUT = 5.0  # seconds


def why(context: Context, args: Arguments) -> int:
    name = str(parse_job_name(args.required("<job>")))
    with context.lookup() as lookup:
        inquiry = _inquire(context, lookup, name)
        found = findings(inquiry)
        if inquiry.views and not inquiry.sources:
            found += _suggestion(lookup, name)
    if context.json:
        print_json(_document(inquiry, found))
    else:
        _print(inquiry, found)
    if not inquiry.views:
        return Exit.UNREACHABLE
    if inquiry.sources:
        return Exit.OK
    return Exit.UNREACHABLE if all(view.warming for view in inquiry.views) else Exit.NOT_FOUND


def _inquire(context: Context, lookup: Lookup, name: str) -> Inquiry:
    """Query the lookups, then the nodes with the job, else all nodes; without lookups, the chosen node."""
    opinions = lookup.opinions(name)
    views = [opinion for opinion in opinions.values() if isinstance(opinion, View)]
    failures = {url: each.message for url, each in opinions.items() if isinstance(each, GafferClientError)}
    inquiry = Inquiry(name, views, failures, {})
    if not views:
        return replace(inquiry, reports=_ask_chosen_node(context, name))
    named = [source["node_info"] for view in views for source in view.jobs.get(name, ())]
    nodes = {node_key(node): node for node in named or inquiry.merged.nodes}
    nodes |= {node_key(source["node_info"]): source["node_info"] for source in inquiry.sources.values()}
    return replace(inquiry, reports=_ask_nodes(context, lookup, name, nodes))


def _ask_nodes(
    context: Context, lookup: Lookup, name: str, nodes: Mapping[NodeKey, AgedNodeInfo]
) -> dict[NodeKey, Report]:
    def ask(node: AgedNodeInfo) -> Report:
        return _ask(node, context.announced_server(node["origin"], lookup), name)

    with ThreadPoolExecutor(_CONCURRENCY) as threads:
        return dict(zip(nodes, threads.map(ask, nodes.values()), strict=True))


def _ask_chosen_node(context: Context, name: str) -> dict[NodeKey, Report]:
    with context.server() as server:
        node = cast(AgedNodeInfo, {"name": server.url, "origin": server.url, "version": ""})
        return {node_key(node): _ask(node, nullcontext(server), name)}


def _ask(node: AgedNodeInfo, opened: AbstractContextManager[Server], name: str) -> Report:
    try:
        with opened as server:
            server.transport.timeout = _NODE_TIMEOUT
            try:
                job = Job(server, name).info()
            except NotFound:
                job = None
            return Report(node, job, server.health()["lookupds"])
    except (Unauthorized, UntrustedServer) as error:
        return Report(node, error=f"{error.message} ({error.hint})" if error.hint else error.message)
    except GafferClientError as error:
        return Report(node, error=error.message)


def _suggestion(lookup: Lookup, name: str) -> Iterable[str]:
    known = [job["name"] for job in lookup.jobs()["jobs"]]
    suggestion = did_you_mean(name, known)
    return [suggestion] if suggestion else []


def _print(inquiry: Inquiry, found: list[str]) -> None:
    rows = [
        (
            display_name(source["node_info"]),
            view.url,
            source["node_info"].get("status", "alive"),
            age(source.get("age_ms")),
            source.get("state") or "-",
            abridged([f"{process['pid']} {process['state']}" for process in source.get("processes", [])]) or "-",
        )
        for view in inquiry.views
        for source in view.jobs.get(inquiry.name, ())
    ]
    if rows:
        print(table(("NODE", "ACCORDING TO", "STATE", "AGE", "JOB", "PROCESSES"), sorted(rows)))
        print()
    reports = [
        (display_name(report.node), report.node["origin"], _summary(report))
        for report in inquiry.reports.values()
        if report.job is not None or report.error is not None or inquiry.sources
    ]
    if reports:
        print(table(("NODE", "ORIGIN", "NODE REPORTS"), sorted(reports)))
        print()
    for finding in found:
        print(printable(f"- {finding}"))
    if not found:
        print("All lookups and nodes agree; no problems found.")


def _summary(report: Report) -> str:
    if report.error is not None:
        return "no response"
    if report.job is None:
        return "no such job"
    return f"{report.job['state']}: {abridged(sorted(report.job['processes'])) or 'no process'}"


def _document(inquiry: Inquiry, found: list[str]) -> dict[str, Any]:
    return {
        "name": inquiry.name,
        "sources": list(inquiry.sources.values()),
        "lookups": [
            *(
                {
                    "url": view.url,
                    "error": None,
                    "stale": view.stale,
                    "warming": view.warming,
                    "sources": list(view.jobs.get(inquiry.name, ())),
                    "tombstones": list(view.tombstones),
                }
                for view in inquiry.views
            ),
            *({"url": url, "error": message} for url, message in inquiry.failures.items()),
        ],
        "nodes": [
            {"node_info": report.node, "error": report.error, "job": report.job, "lookupds": list(report.lookupds)}
            for report in inquiry.reports.values()
        ],
        "findings": found,
    }
