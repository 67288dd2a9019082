// What happens in the cluster while the page is open, newest first. lookupd keeps no history.
import {get} from "./api.js"
import {clock, plural} from "./format.js"
import {html, useEffect, useState, useValue} from "./lib.js"
import {Empty, Problem} from "./parts.js"
import {route, setQuery} from "./route.js"
import {connection, follow, HEARTBEAT} from "./stream.js"

const KEPT = 1000
const RETRY = 2000 // ms
const WORDS = {
  identify: "node announced itself",
  update_node: "node changed",
  remove_node: "node removed",
  add_job: "job added",
  remove_job: "job removed",
  add_process: "process started",
  update_process: "process changed",
  remove_process: "process ended",
  stale: "reliability changed",
}
const BAD = ["remove_node", "stale"]

function describe(message) {
  const {node, name, job_name: job, pid, state, reason, status, conflict, draining, stale, warming} = message
  const facts = [job, pid && `pid ${pid}`, state, status && status !== "alive" && status, draining && "draining", conflict && "name conflict", reason, warming && "warming", stale && "most nodes are silent"]
  return {node: node?.name ?? name ?? "", text: facts.filter(Boolean).join(", ")}
}

export function ClusterEventsPage() {
  const {query} = useValue(route)
  const [events, setEvents] = useState([])
  const [begun] = useState(Date.now() / 1000)
  const [error, setError] = useState(null)
  const wanted = (query.get("q") ?? "").toLowerCase()
  useEffect(() => {
    let ended = false
    let stop = null
    let count = 0
    let timer = null
    const begin = () => get("/search", {kind: "nodes", limit: 1}).then(({epoch, seq}) => {
      if (ended) return
      setError(null)
      stop = follow({
        path: "/events",
        query: (lastId) => ({since: lastId ?? `${epoch}:${seq}`, heartbeat: HEARTBEAT}),
        onEvents: (found) => {
          const at = Date.now() / 1000
          const added = found
            .filter(({name}) => name in WORDS || name === "snapshot")
            .map(({name, data}) => (name === "snapshot" ? {id: count++, at, name, node: "", text: "changes were missed: lookupd started again, or the page was away for too long"} : {id: count++, at, name, ...describe(JSON.parse(data))}))
          setEvents((old) => [...added.reverse(), ...old].slice(0, KEPT))
        },
        onState: (state) => (connection.value = state),
      })
    }, (problem) => {
      setError(problem)
      if (!ended && !problem.status) timer = setTimeout(begin, RETRY)
    })
    begin()
    return () => {
      ended = true
      clearTimeout(timer)
      stop?.()
    }
  }, [])
  const shown = wanted ? events.filter((event) => `${event.node} ${event.text} ${WORDS[event.name]}`.toLowerCase().includes(wanted)) : events
  return html`<section class="page" aria-label="Events"><h1 class="hidden">Events</h1>
    <div class="toolbar"><input id="search" type="search" placeholder="Only events with…  ( / )" aria-label="Only events with" value=${query.get("q") ?? ""} onInput=${(event) => setQuery({q: event.target.value})} />
      <span class="dim">${plural(shown.length, "event")} since ${clock(begun)}, when this page was opened${events.length === KEPT ? `; the newest ${KEPT}` : ""}</span></div>
    ${error && html`<${Problem} error=${error} />`}
    ${shown.length === 0 && html`<${Empty}>Nothing has happened yet.<//>`}
    <ol class="timeline">${shown.map((event) => html`<li key=${event.id} class=${BAD.includes(event.name) || event.name === "snapshot" ? "bad" : ""}>
      <time>${clock(event.at)}</time><span class="what">${WORDS[event.name] ?? "gap"}</span><b>${event.node}</b><span class="details">${event.text}</span></li>`)}</ol>
  </section>`
}
