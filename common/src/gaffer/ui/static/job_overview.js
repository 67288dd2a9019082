// What a job is and which processes it has.
import {quote, SIGNAL_PROCESS, STOP_PROCESS} from "./actions.js"
import {get, home, may, root} from "./api.js"
import {Charts} from "./charts.js"
import {Environment} from "./environment.js"
import {confirmAction} from "./confirm.js"
import {bytes, duration, endingWithReason, endpoint, percent, predecessor} from "./format.js"
import {html, useEffect, useInterval, useState} from "./lib.js"
import {Output} from "./output.js"
import {Empty, JobLink, NextStart, State, Time, Uptime} from "./parts.js"
import {href} from "./route.js"

const EVERY = 2000 // ms between measurements
const NOTHING = {at: null, byPid: new Map(), bySlot: new Map()}

export function Overview({job}) {
  const [usage, setUsage] = useState(NOTHING)
  async function measure() {
    try {
      const {items} = await get("/search", {kind: "processes", session: job.name.split(".")[0], q: job.name, sort: "slot", limit: 500})
      const found = items.filter(({name}) => name === job.name)
      setUsage({at: Date.now(), byPid: new Map(found.map((each) => [each.pid, each])), bySlot: bySlot(found)})
    } catch {
      setUsage((last) => ({...NOTHING, at: last.at})) // the page of the job says that the server is silent
    }
  }
  useEffect(() => void measure(), [job.name])
  useInterval(measure, EVERY)
  return html`<div class="overview">
    <${Processes} job=${job} usage=${usage.byPid} />
    <${Charts} job=${job} usage=${usage} />
    <${LastExit} job=${job} />
    <${Definition} job=${job} />
  </div>`
}

// The usage of each slot; slot 0 has all processes that run once.
function bySlot(processes) {
  const found = new Map()
  for (const {slot, cpu, memory} of processes) {
    if (cpu === null) continue
    const before = found.get(slot) ?? {cpu: 0, memory: 0}
    found.set(slot, {cpu: before.cpu + cpu, memory: before.memory + memory})
  }
  return found
}

function Processes({job, usage}) {
  if (job.instances.length === 0) return html`<${Empty}>No process.<//>`
  return html`<table class="list processes">
    <caption>Processes</caption>
    <thead><tr><th class="num">Slot</th><th>State</th><th class="num">Pid</th><th class="num">OS pid</th><th class="num">Uptime</th><th class="num">CPU %</th><th class="num">Memory</th><th>Endpoints</th><th></th></tr></thead>
    <tbody>${job.instances.map((each) => html`<${Process} key=${`${each.slot}.${each.pid}`} job=${job} instance=${each} usage=${usage.get(each.pid)} />`)}</tbody>
  </table>`
}

// An opener of the same origin gives its token to the terminal.
const terminalRel = () => (root === home ? "opener" : "noopener")

function Process({job, instance, usage}) {
  const target = {pid: instance.pid, job: job.name}
  const writable = job.config.redirect_input && instance.pid !== null
  return html`<tr>
    <td class="num" data-label="slot">${instance.slot || "once"}</td>
    <td><${State} state=${instance.state} detail=${instance.probe_error} /> <small><${NextStart} seconds=${instance.retry_in} /></small></td>
    <td class="num" data-label="pid">${instance.pid ?? "–"}</td>
    <td class="num dim" data-label="os pid">${instance.os_pid ?? "–"}</td>
    <td class="num" data-label="up"><${Uptime} seconds=${instance.pid === null ? null : instance.uptime} /></td>
    <td class="num" data-label="cpu">${percent(usage?.cpu)}</td>
    <td class="num" data-label="memory">${bytes(usage?.memory)}</td>
    <td>${(instance.endpoints ?? []).map(endpoint).join(", ")}</td>
    <td class="row-actions">
      <a href=${href(["jobs", job.name, "logs"], {slot: instance.slot})}>Logs</a>
      ${writable && may("control") && html`<a href=${new URL(`ui/terminal.html#${instance.pid}`, root).href} target="_blank" rel=${terminalRel()}>Terminal</a>`}
      ${instance.pid !== null && may("control") && html`
        <button class="link" onClick=${() => confirmAction(SIGNAL_PROCESS, [target])}>Signal</button>
        <button class="link danger-text" onClick=${() => confirmAction(STOP_PROCESS, [target])}>Stop</button>`}
    </td>
  </tr>`
}

function LastExit({job}) {
  const exit = job.last_exit
  if (!exit) return null
  return html`<section class="block"><h2>Last exit <small><${Time} at=${exit.at} /></small></h2>
    <p><b>${endingWithReason(exit)}</b> <a href=${href(["jobs", job.name, "exits"])}>all exits</a></p>
    ${exit.output && html`<${Output} text=${exit.output} />`}
  </section>`
}

const SHOWN = ["cmd", "args", "cwd", "kind", "restart", "schedule", "every", "port", "ready", "live", "after", "max_memory", "max_lifetime", "uid", "gid", "graceful_timeout", "stop_signal"]
const SHOWN_AS = {args: (words) => words.map(quote).join(" "), every: duration, max_memory: bytes, max_lifetime: duration, graceful_timeout: duration}

function Definition({job}) {
  const {config} = job
  const rows = SHOWN.filter((key) => {
    const value = config[key]
    return value !== null && value !== undefined && value !== "" && value !== 0 && !(Array.isArray(value) && value.length === 0)
  })
  const variables = Object.entries(config.env ?? {})
  return html`<section class="block"><h2>Definition <small>generation ${job.generation ?? 1}</small></h2>
    <dl class="facts-list">${rows.map((key) => html`<dt key=${key}>${key}</dt><dd><${Value} name=${key} value=${config[key]} job=${job} /></dd>`)}
      ${variables.length > 0 && html`<dt>env</dt><dd><${Environment} variables=${variables} /></dd>`}
    </dl></section>`
}

function Value({name, value, job}) {
  if (name === "after") return html`${value.map((each) => html`<span key=${each}><${JobLink} name=${predecessor(each, job.name)} /> </span>`)}`
  return html`<code>${name in SHOWN_AS ? SHOWN_AS[name](value) : String(value)}</code>`
}

