// The nodes that lookupd knows, and the jobs on them. The page calls a node directly, at the address that it announces.
import {duration, endpoint, number, plural} from "./format.js"
import {Heading, limitOf, More, moveWithArrows, StateFilter} from "./lists.js"
import {html, useValue} from "./lib.js"
import {Age, Empty, kindOf, Problem, State} from "./parts.js"
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

function Frame({label, noun, states, list, children, extra}) {
  const {params, result, stable} = list
  return html`<section class="page" aria-label=${label}>
    <h1 class="hidden">${label}</h1>
    <div class="toolbar">
      <input id="search" type="search" placeholder=${`Search ${label.toLowerCase()}  ( / )`} aria-label=${`Search ${label.toLowerCase()}`} value=${params.q} onInput=${(event) => setQuery({q: event.target.value, limit: null})} />
      <${StateFilter} states=${states} counts=${result.counts} chosen=${params.state} />
      ${params.node && html`<button class="chip" aria-pressed="true" onClick=${() => setQuery({node: null})}>node ${params.node} ×</button>`}
    </div>
    ${(result.error?.status || (result.error && !result.at)) && html`<${Problem} error=${result.error} />`}
    ${result.warming && html`<div class="banner">This lookupd has just started: some nodes may not have reported yet.</div>`}
    ${result.stale && !result.warming && html`<div class="banner">Most nodes are silent: this may be out of date.</div>`}
    <div class="notice" aria-live="polite">
      ${result.items !== null && html`<span class="count">${plural(result.total, noun)}</span>`}${extra}
      ${result.error && result.at && html`<span class="dim"><${Age} at=${result.at} prefix="as of " /></span>`}
      ${stable.added > 0 && html`<button onClick=${stable.apply}>${plural(stable.added, `new ${noun}`)} — show</button>`}
      ${stable.moved && html`<button onClick=${stable.apply}>The order has changed — sort again</button>`}
    </div>
    ${children}
    ${result.items?.length === 0 && html`<${Empty}>${params.q || params.state || params.node ? `No ${noun} matches the filter.` : `No ${noun} is known here.`}<//>`}
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
    <td class="c-name"><${NodeLink} id=${node.id} path=${[]}>${node.name}<//></td>
    <td class="num" data-label="not ready">${node.not_ready ? html`<a href=${href(["jobs"], {node: node.name, state: "none,starting,draining"})}>${number(node.not_ready)}</a>` : html`<span class="dim">0</span>`}</td>
    <td class="num" data-label="jobs"><a href=${href(["jobs"], {node: node.name})}>${number(node.jobs)}</a></td>
    <td class="num" data-label="processes">${number(node.processes)}</td>
    <td class="num" data-label="ago">${duration(node.age_ms / 1000)}</td>
    <td data-label="protocol">${node.version}</td>
    <td class="c-labels">${Object.entries(node.labels ?? {}).map(([name, value]) => html`<span key=${name} class="label-tag">${name}=${value}</span>`)}</td>
  </tr>`
}

const JOB_COLUMNS = [
  {key: "state", label: "State"},
  {key: "name", label: "Job"},
  {key: "node", label: "Node"},
  {key: "processes", label: "Processes", unsorted: true, numeric: true},
  {key: "endpoints", label: "Endpoints", unsorted: true},
]

export function ClusterJobsPage() {
  const list = useList("jobs", {sort: "state"})
  const {params, stable} = list
  return html`<${Frame} label="Jobs" noun="job" states=${["none", "starting", "draining", "ready"]} list=${list}>
    <table class="list cluster" ...${stable.hold} onKeyDown=${moveWithArrows}>
      <thead><tr>${JOB_COLUMNS.map((column) => html`<${Heading} key=${column.key} column=${column} sort=${params.sort} />`)}</tr></thead>
      <tbody>${stable.rows.map((job) => html`<${JobRow} key=${job.key} job=${job} />`)}</tbody>
    </table>
  <//>`
}

function JobRow({job}) {
  const [session, name] = job.name.split(/\.(.*)/s)
  const ready = job.processes.filter((each) => each.state === "ready" || each.state === "running").length
  return html`<tr class=${job.state === "none" ? "warn" : kindOf(job.state)}>
    <td class="c-state"><${State} state=${job.state === "none" ? "no process" : job.state} kind=${job.state === "none" ? "idle" : undefined} detail=${job.status === "alive" ? null : `node ${job.status}`} /></td>
    <td class="c-name"><${NodeLink} id=${job.node_id} path=${["jobs", job.name]}><span class="session">${session}.</span>${name}<//></td>
    <td><a href=${href(["jobs"], {node: job.node})}>${job.node}</a></td>
    <td class="num" data-label="ready">${ready}<span class="dim">/${job.processes.length}</span></td>
    <td class="dim">${job.processes.flatMap((each) => each.endpoints ?? []).slice(0, 4).map(endpoint).join(", ")}</td>
  </tr>`
}
