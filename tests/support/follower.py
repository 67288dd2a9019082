"""A copy of what a lookupd knows, kept by a snapshot and the messages that follow it."""

from typing import Any

Message = dict[str, Any]

_NOT_OF_THE_NODE = ("event", "reason", "jobs", "states", "age_ms")
_STATE = ("state", "reason", "expected")


class Follower:
    """Holds `nodes`, each with its `jobs`, `tombstones` and `stale` as the messages so far tell them."""

    def __init__(self, snapshot: Message) -> None:
        self.stale: bool = snapshot["stale"]
        self.tombstones: dict[str, Message] = {grave["id"]: grave for grave in snapshot["tombstones"]}
        self.nodes: dict[Any, Message] = {}
        for entry in snapshot["nodes"]:
            jobs = {name: {p["pid"]: p for p in processes} for name, processes in entry["jobs"].items()}
            self.nodes[_key(entry)] = {"info": _info(entry), "jobs": jobs, "states": dict(entry["states"])}

    def take(self, message: Message) -> None:
        """Take in one message."""
        event = message["event"]
        if event == "stale":
            self.stale = message["stale"]
        elif event == "forget_node":
            del self.tombstones[message["id"]]
        elif event in ("add_job", "remove_job", "update_job", "add_process", "update_process", "remove_process"):
            node = self.nodes[_key(message["node"])]
            node["info"] = message["node"]
            if event == "update_job":
                assert message["job_name"] in node["jobs"]
                node["states"][message["job_name"]] = {field: message[field] for field in _STATE}
            elif event == "remove_job":
                node["states"].pop(message["job_name"], None)
            if event != "update_job":
                self._change_jobs(event, node["jobs"], message)
        elif message["name"] is not None:
            self._change_node(event, message)

    def _change_jobs(self, event: str, jobs: dict[str, Any], message: Message) -> None:
        name = message["job_name"]
        if event == "add_job":
            assert name not in jobs
            jobs[name] = {}
        elif event == "remove_job":
            del jobs[name]
        elif event == "remove_process":
            del jobs[name][message["pid"]]
        else:
            assert (message["pid"] in jobs[name]) == (event == "update_process")
            jobs[name][message["pid"]] = {key: message[key] for key in ("pid", "state", "endpoints")}

    def _change_node(self, event: str, message: Message) -> None:
        key = _key(message)
        if event == "remove_node":
            del self.nodes[key]
            if message["id"]:
                fields = ("id", "incarnation", "seq", "reason")
                self.tombstones[message["id"]] = {field: message[field] for field in fields}
            return
        assert event == "identify" or key in self.nodes
        self.tombstones.pop(message["id"], None)
        self.nodes.setdefault(key, {"jobs": {}, "states": {}})["info"] = _info(message)

    def jobs(self) -> dict[str, list[Message]]:
        """The sources of each job as queries answer them, without ages and in no order."""
        found: dict[str, list[Message]] = {}
        for node in self.nodes.values():
            info = node["info"]
            for name, processes in node["jobs"].items():
                live = [] if info["draining"] else [p["pid"] for p in processes.values() if p["state"] != "draining"]
                source = {"name": info["name"], "node_info": info, "status": info["status"], "pids": sorted(live)}
                ordered = sorted(processes.values(), key=lambda process: process["pid"])
                state = node["states"].get(name, dict.fromkeys(_STATE))
                found.setdefault(name, []).append({**source, "processes": ordered, **state})
        return found


def jobs_without_ages(answer: Message) -> dict[str, list[Message]]:
    """The same of an answer of `/jobs`."""
    found: dict[str, list[Message]] = {}
    for job in answer["jobs"]:
        for source in job["sources"]:
            bare = {key: value for key, value in source.items() if key != "age_ms"}
            bare |= {"node_info": _info(source["node_info"]), "pids": sorted(source["pids"])}
            found.setdefault(job["name"], []).append(bare)
    return found


def in_order(jobs: dict[str, list[Message]]) -> dict[str, list[Message]]:
    """The sources sorted, for comparison."""
    return {name: sorted(sources, key=lambda source: repr(_key(source["node_info"]))) for name, sources in jobs.items()}


def _key(node: Message) -> Any:
    return node["id"] or (node["name"], node["origin"])


def _info(node: Message) -> Message:
    return {key: value for key, value in node.items() if key not in _NOT_OF_THE_NODE}
