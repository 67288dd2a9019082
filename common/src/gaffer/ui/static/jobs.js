// The jobs of the node.
import {ACTIONS} from "./actions.js"
import {may, whereabouts} from "./api.js"
import {confirmAction} from "./confirm.js"
import {bytes, endingWithReason, inLocalTime, number, percent, plural} from "./format.js"
import {html, useState, useValue} from "./lib.js"
import {Heading, limitOf, More, moveWithArrows, StateFilter} from "./lists.js"
import {Age, Empty, JobLink, kindOfJob, NextStart, Problem, ServerText, State, Uptime} from "./parts.js"
import {href, route, setQuery} from "./route.js"
import {useSearch} from "./search.js"
import {useStableRows} from "./stable.js"

const STATES = ["failed", "backoff", "stopping", "starting", "waiting", "stopped", "completed", "running"]
const COLUMNS = [
  {key: "state", label: "State"},
  {key: "name", label: "Job"},
  {key: "running", label: "Processes", numeric: true},
  {key: "reason", label: "Reason"},
  {key: "restarts", label: "Restarts", numeric: true, descending: true},
  {key: "uptime", label: "Uptime", numeric: true},
  {key: "cpu", label: "CPU %", numeric: true, descending: true},
  {key: "memory", label: "Memory", numeric: true, descending: true},
]

export function JobsPage() {
  const {query} = useValue(route)
  const params = {
    kind: "jobs",
    q: query.get("q") ?? "",
    state: query.get("state") ?? "",
    sort: query.get("sort") ?? "state",
    limit: limitOf(query),
  }
  const result = useSearch(params)
  const stable = useStableRows(result.items)
  const [chosen, setChosen] = useState(() => new Set())
  const selected = stable.rows.filter((job) => chosen.has(job.name))

  function toggle(name) {
    const next = new Set(chosen)
    if (!next.delete(name)) next.add(name)
    setChosen(next)
  }

  return html`<section class="page" aria-label="Jobs">
    <h1 class="hidden">Jobs of ${whereabouts()}</h1>
    <div class="toolbar">
      <input id="search" type="search" placeholder="Search jobs  ( / )" aria-label="Search jobs" value=${params.q}
        onInput=${(event) => setQuery({q: event.target.value, limit: null})} />
      <${StateFilter} states=${STATES} counts=${result.counts} chosen=${params.state} />
    </div>
    ${(result.error?.status || (result.error && !result.at)) && html`<${Problem} error=${result.error} />`}
    <div class="notice" aria-live="polite">
      ${selected.length === 0 && result.items !== null && html`<span class="count">${plural(result.total, "job")}</span>`}
      ${selected.length === 0 && result.error && html`<span class="dim"><${Age} at=${result.at} prefix="as of " /></span>`}
      ${selected.length > 0 && html`<${BulkActions} jobs=${selected} clear=${() => setChosen(new Set())} />`}
      ${selected.length === 0 && stable.added > 0 && html`<button onClick=${stable.apply}>${plural(stable.added, "new job")} — show</button>`}
      ${selected.length === 0 && stable.moved && html`<button onClick=${stable.apply}>The order has changed — sort again</button>`}
    </div>
    <table class="list jobs" ...${stable.hold} onKeyDown=${moveWithArrows}>
      <thead><tr>
        <th class="check"><input type="checkbox" aria-label="Select all rows" checked=${selected.length > 0 && selected.length === stable.rows.length}
          onChange=${(event) => setChosen(new Set(event.target.checked ? stable.rows.map((job) => job.name) : []))} /></th>
        ${COLUMNS.map((column) => html`<${Heading} key=${column.key} column=${column} sort=${params.sort} />`)}
      </tr></thead>
      <tbody>${stable.rows.map((job) => html`<${Row} key=${job.name} job=${job} chosen=${chosen.has(job.name)} toggle=${toggle} />`)}</tbody>
    </table>
    ${result.items?.length === 0 && html`<${Empty}>${params.q || params.state ? "No job matches the filter." : "This node has no jobs. gaffer load starts those of a Procfile."}<//>`}
    <${More} result=${result} limit=${params.limit} />
  </section>`
}

function Row({job, chosen, toggle}) {
  const detail = reasonOf(job)
  const kind = kindOfJob(job)
  const short = job.running < job.expected
  return html`<tr class=${kind} aria-selected=${chosen}>
    <td class="check"><input type="checkbox" aria-label=${`Select ${job.name}`} checked=${chosen} onChange=${() => toggle(job.name)} /></td>
    <td class="c-state"><${State} state=${job.state} kind=${kind} /></td>
    <td class="c-name" title=${job.name}><${JobLink} name=${job.name} /></td>
    <td class="num c-running" data-label="processes"><span class=${short ? "short" : ""}>${job.running}</span><span class="dim">/${job.max_processes}</span></td>
    <td class="c-reason dim" title=${inLocalTime(detail)}><${NextStart} seconds=${job.retry_in} />${job.retry_in !== null && detail && " · "}<${ServerText} text=${detail} /></td>
    <td class=${`num c-restarts${nil(job.restarts || null)}`} data-label="restarts">${job.restarts ? number(job.restarts) : html`<span class="dim">0</span>`}</td>
    <td class=${`num c-uptime${nil(job.uptime)}`} data-label="up"><${Uptime} seconds=${job.uptime} /></td>
    <td class=${`num c-cpu${nil(job.cpu)}`} data-label="cpu">${percent(job.cpu)}</td>
    <td class=${`num c-memory${nil(job.memory)}`} data-label="memory">${bytes(job.memory)}</td>
  </tr>`
}

const nil = (value) => (value === null ? " nil" : "")

function reasonOf(job) {
  if (job.disabled) return `disabled: ${job.disabled.reason}`
  if (job.reason) return job.reason
  const exit = job.last_exit
  return exit && job.state !== "running" ? `last: ${endingWithReason(exit)}` : ""
}

function BulkActions({jobs, clear}) {
  const usable = ACTIONS.filter((action) => action.bulk)
  const names = jobs.map((job) => job.name)
  return html`<strong>${plural(jobs.length, "job")} selected</strong>
    ${may("control") && usable.map((action) => {
      const targets = jobs.filter(action.applies)
      return html`<button key=${action.id} disabled=${targets.length === 0} onClick=${() => confirmAction(action, targets)}>${action.label}${targets.length < jobs.length ? ` (${targets.length})` : ""}</button>`
    })}
    <a class="button" href=${jobs.length === 1 ? href(["jobs", jobs[0].name, "logs"]) : href(["logs"], {job: names.join(",")})}>Logs</a>
    ${!may("control") && html`<span class="dim">Your key may only read.</span>`}
    <button class="quiet" onClick=${clear}>Clear</button>`
}
