// The nodes that lookupd knows, and the jobs on them. The page calls a node directly, at the address that it announces.
import {plainText} from "./ansi.js"
import {CLUSTER_ACTIONS, confirmOnNodes} from "./cluster_actions.js"
import {duration, endpoint, inLocalTime, moment, number, plural} from "./format.js"
import {Heading, limitOf, More, moveWithArrows, StateFilter} from "./lists.js"
import {html, useState, useValue} from "./lib.js"
import {LookupdStrip} from "./lookupds.js"
import {Age, Empty, kindOf, kindOfJob, Problem, ServerText, State} from "./parts.js"
import {href, route, setQuery} from "./route.js"
import {useSearch} from "./search.js"
import {useStableRows} from "./stable.js"

function useList(kind, defaults) {
  const {query} = useValue(route)
  const params = {
    kind,
    q: query.get("q") ?? "",
    state: query.get("state") ?? "",
    node: query.get("node") ?? "",
    ready: query.get("ready") ?? "",
    sort: query.get("sort") ?? defaults.sort,
    limit: limitOf(query),
  }
  const result = useSearch(params)
  return {params, result, stable: useStableRows(result.items, (item) => item.key)}
}

// The name of a node or of its job leads to the page of the node. Nodes of 0.5 have no id, and no dashboard.
function NodeLink({id, path, children}) {
  return id ? html`<a class="job" href=${href(path, {}, id)}>${children}</a>` : html`<span class="job">${children}</span>`
}

function Frame({label, noun, states, list, children, bulk}) {
  const {params, result, stable} = list
  return html`<section class="page" aria-label=${label}>
    <h1 class="hidden">${label}</h1>
    <div class="toolbar">
      <input id="search" type="search" placeholder=${`Search ${label.toLowerCase()}  ( / )`} aria-label=${`Search ${label.toLowerCase()}`} value=${params.q} onInput=${(event) => setQuery({q: event.target.value, limit: null})} />
      <${StateFilter} states=${states} counts=${result.counts} chosen=${params.state} />
      ${params.node && html`<button class="chip" aria-pressed="true" onClick=${() => setQuery({node: null})}>node ${params.node} ×</button>`}
      ${params.ready && html`<button class="chip" aria-pressed="true" onClick=${() => setQuery({ready: null})}>${params.ready === "true" ? "ready" : "not ready"} ×</button>`}
    </div>
    ${(result.error?.status || (result.error && !result.at)) && html`<${Problem} error=${result.error} />`}
    ${result.warming && html`<div class="banner">This lookupd has just started: some nodes may not have reported yet.</div>`}
    ${result.stale && !result.warming && html`<div class="banner">Most nodes are silent: this may be out of date.</div>`}
    <div class="notice" aria-live="polite">
      ${bulk || html`${result.items !== null && html`<span class="count">${plural(result.total, noun)}</span>`}
      ${result.error && result.at && html`<span class="dim"><${Age} at=${result.at} prefix="as of " /></span>`}
      ${stable.added > 0 && html`<button onClick=${stable.apply}>${plural(stable.added, `new ${noun}`)} — show</button>`}
      ${stable.moved && html`<button onClick=${stable.apply}>The order has changed — sort again</button>`}
      ${noun === "node" && html`<${LookupdStrip} />`}`}
    </div>
    ${children}
    ${result.items?.length === 0 && html`<${Empty}>${params.q || params.state || params.node || params.ready ? `No ${noun} matches the filter.` : `No ${noun} is known here.`}<//>`}
    <${More} result=${result} limit=${params.limit} />
  </section>`
}

const NODE_COLUMNS = [
  {key: "status", label: "State"},
  {key: "name", label: "Node"},
  {key: "not_ready", label: "Jobs not ready", numeric: true, descending: true},
  {key: "jobs", label: "Jobs", numeric: true, descending: true},
  {key: "processes", label: "Processes", numeric: true, descending: true},
  {key: "age_ms", label: "Last heard", numeric: true, descending: true},
  {key: "version", label: "Protocol"},
  {key: "lookupds", label: "Lookupds", unsorted: true},
  {key: "labels", label: "Labels", unsorted: true},
]

export function NodesPage() {
  const list = useList("nodes", {sort: "status"})
  const {params, stable} = list
  return html`<${Frame} label="Nodes" noun="node" states=${["suspect", "draining", "alive"]} list=${list}>
    <table class="list cluster" ...${stable.hold} onKeyDown=${moveWithArrows}>
      <thead><tr>${NODE_COLUMNS.map((column) => html`<${Heading} key=${column.key} column=${column} sort=${params.sort} />`)}</tr></thead>
      <tbody>${stable.rows.map((node) => html`<${NodeRow} key=${node.key} node=${node} />`)}</tbody>
    </table>
  <//>`
}

function NodeRow({node}) {
  return html`<tr class=${node.conflict ? "bad" : kindOf(node.status)}>
    <td class="c-state"><${State} state=${node.status} detail=${node.conflict ? "name conflict" : null} /></td>
    <td class="c-name"><${NodeLink} id=${node.id} path=${[]}>${plainText(node.name)}<//></td>
    <td class="num" data-label="not ready">${node.not_ready ? html`<a href=${href(["jobs"], {node: node.name, ready: false})}>${number(node.not_ready)}</a>` : html`<span class="dim">0</span>`}</td>
    <td class="num" data-label=${node.jobs === 1 ? "job" : "jobs"}><a href=${href(["jobs"], {node: node.name})}>${number(node.jobs)}</a></td>
    <td class="num" data-label=${node.processes === 1 ? "process" : "processes"}>${number(node.processes)}</td>
    <td class="num" data-label="ago">${duration(node.age_ms / 1000)}</td>
    <td data-label="protocol">${plainText(node.version)}</td>
    <td data-label="lookupds"><${Links} links=${node.lookupds} /></td>
    <td class="c-labels"><${Labels} labels=${node.labels ?? {}} /></td>
  </tr>`
}

// To how many of its lookupds the node is connected, as it says.
function Links({links}) {
  if (links === null) return html`<span class="dim">–</span>`
  const lost = links.filter((link) => !link.connected)
  const text = html`${links.length - lost.length}<span class="dim">/${links.length}</span>`
  if (lost.length === 0) return text
  const title = lost.map((link) => `not connected to ${link.address} since ${moment(link.since)}${link.error ? `: ${plainText(link.error)}` : ""}`).join("\n")
  return html`<a class="short" title=${title} href=${href(["lookupds"])}>${text}</a>`
}

const SHOWN_LABELS = 6
const LABEL_LENGTH = 60

function Labels({labels}) {
  const all = Object.entries(labels).map(([name, value]) => plainText(`${name}=${value}`))
  return html`${all.slice(0, SHOWN_LABELS).map((text) => html`<span key=${text} class="label-tag" title=${text}>${text.length > LABEL_LENGTH ? `${text.slice(0, LABEL_LENGTH)}…` : text}</span>`)}
    ${all.length > SHOWN_LABELS && html`<span class="label-tag" title=${all.join("\n")}>and ${all.length - SHOWN_LABELS} more</span>`}`
}

const JOB_STATES = ["failed", "backoff", "none", "stopping", "starting", "waiting", "stopped", "completed", "running"]
const JOB_COLUMNS = [
  {key: "state", label: "State"},
  {key: "name", label: "Job"},
  {key: "node", label: "Node"},
  {key: "ready", label: "Ready", numeric: true},
  {key: "reason", label: "Reason"},
  {key: "endpoints", label: "Endpoints", unsorted: true},
]

export function ClusterJobsPage() {
  const list = useList("jobs", {sort: "state"})
  const {params, stable} = list
  const [chosen, setChosen] = useState(() => new Set())
  const actable = stable.rows.filter((job) => job.node_id)
  const selected = actable.filter((job) => chosen.has(job.key))
  function toggle(key) {
    const next = new Set(chosen)
    if (!next.delete(key)) next.add(key)
    setChosen(next)
  }
  const bulk = selected.length > 0 && html`<${BulkActions} jobs=${selected} clear=${() => setChosen(new Set())} />`
  return html`<${Frame} label="Jobs" noun="job" states=${JOB_STATES} list=${list} bulk=${bulk}>
    <table class="list cluster jobs" ...${stable.hold} onKeyDown=${moveWithArrows}>
      <thead><tr><th class="check"><input type="checkbox" aria-label="Select all rows" checked=${selected.length > 0 && selected.length === actable.length} onChange=${(event) => setChosen(new Set(event.target.checked ? actable.map((job) => job.key) : []))} /></th>
        ${JOB_COLUMNS.map((column) => html`<${Heading} key=${column.key} column=${column} sort=${params.sort} />`)}</tr></thead>
      <tbody>${stable.rows.map((job) => html`<${JobRow} key=${job.key} job=${job} chosen=${chosen.has(job.key)} toggle=${toggle} />`)}</tbody>
    </table>
  <//>`
}

function BulkActions({jobs, clear}) {
  const nodes = new Set(jobs.map((job) => job.node_id)).size
  return html`<strong>${plural(jobs.length, "job")} on ${plural(nodes, "node")} selected</strong>
    ${CLUSTER_ACTIONS.map((action) => html`<button key=${action.id} onClick=${() => confirmOnNodes(action, jobs)}>${action.label}</button>`)}
    <button class="quiet" onClick=${clear}>Clear</button>`
}

function JobRow({job, chosen, toggle}) {
  const [session, name] = job.name.split(/\.(.*)/s)
  const kind = kindOfJob(job)
  // A node that reports no states: what runs is all that is known.
  const expected = job.expected ?? job.processes.length
  const detail = job.reason ? plainText(job.reason) : ""
  return html`<tr class=${job.state === "none" ? "warn" : kind} aria-selected=${chosen}>
    <td class="check"><input type="checkbox" aria-label=${`Select ${job.name} on ${job.node}`} checked=${chosen} disabled=${!job.node_id} title=${job.node_id ? null : "A node of gaffer 0.5: act there."} onChange=${() => toggle(job.key)} /></td>
    <td class="c-state"><${State} state=${job.state === "none" ? "no process" : job.state} kind=${kind} detail=${job.status === "alive" ? null : `node ${job.status}`} /></td>
    <td class="c-name"><${NodeLink} id=${job.node_id} path=${["jobs", job.name]}><span class="session">${plainText(session)}.</span>${plainText(name)}<//></td>
    <td><a href=${href(["jobs"], {node: job.node})}>${plainText(job.node)}</a></td>
    <td class="num" data-label="ready"><span class=${job.ready < expected ? "short" : ""}>${job.ready}</span><span class="dim">/${expected}</span></td>
    <td class="c-reason dim" title=${inLocalTime(detail)}><${ServerText} text=${detail} /></td>
    <td class="c-endpoints dim">${job.processes.flatMap((each) => each.endpoints ?? []).slice(0, 4).map(endpoint).join(", ")}</td>
  </tr>`
}
