// What a job is and which processes it has.
import {SIGNAL_PROCESS, STOP_PROCESS} from "./actions.js"
import {get, home, jobPath, may, root} from "./api.js"
import {Charts} from "./charts.js"
import {Environment} from "./environment.js"
import {confirmAction} from "./confirm.js"
import {bytes, endingWithReason, endpoint, parseSize, percent, predecessor} from "./format.js"
import {html, useEffect, useInterval, useState} from "./lib.js"
import {Output} from "./output.js"
import {Empty, JobLink, State, Time, Uptime} from "./parts.js"
import {href} from "./route.js"

const EVERY = 2000 // ms between measurements

export function Overview({job}) {
  const [stats, setStats] = useState({at: null, byPid: new Map()})
  async function measure() {
    try {
      const {stats: found} = await get(`${jobPath(job.name)}/stats`)
      setStats({at: Date.now(), byPid: new Map(found.map((each) => [each.pid, each]))})
    } catch {
      setStats((last) => ({...last, byPid: new Map()})) // the page of the job says that the server is silent
    }
  }
  useEffect(() => void measure(), [job.name])
  useInterval(measure, EVERY)
  return html`<div class="overview">
    <${Processes} job=${job} stats=${stats.byPid} />
    <${Charts} key=${job.name} job=${job} stats=${stats} />
    <${LastExit} job=${job} />
    <${Definition} job=${job} />
  </div>`
}

function Processes({job, stats}) {
  if (job.instances.length === 0) return html`<${Empty}>No process.<//>`
  return html`<table class="list processes">
    <caption>Processes</caption>
    <thead><tr><th class="num">Slot</th><th>State</th><th class="num">Pid</th><th class="num">OS pid</th><th class="num">Uptime</th><th class="num">CPU %</th><th class="num">Memory</th><th>Endpoints</th><th></th></tr></thead>
    <tbody>${job.instances.map((each) => html`<${Process} key=${`${each.slot}.${each.pid}`} job=${job} instance=${each} stats=${stats.get(each.pid)} />`)}</tbody>
  </table>`
}

// An opener of the same origin gives its token to the terminal.
const terminalRel = () => (root === home ? "opener" : "noopener")

function Process({job, instance, stats}) {
  const target = {pid: instance.pid, job: job.name}
  const writable = job.config.redirect_input && instance.pid !== null
  return html`<tr>
    <td class="num" data-label="slot">${instance.slot || "once"}</td>
    <td><${State} state=${instance.state} detail=${instance.probe_error} /></td>
    <td class="num" data-label="pid">${instance.pid ?? "–"}</td>
    <td class="num dim" data-label="os pid">${instance.os_pid ?? "–"}</td>
    <td class="num" data-label="up"><${Uptime} seconds=${instance.uptime} /></td>
    <td class="num" data-label="cpu">${percent(stats?.cpu)}</td>
    <td class="num" data-label="memory">${bytes(parseSize(stats?.mem_info1))}</td>
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
  return html`<code>${Array.isArray(value) ? value.join(" ") : String(value)}</code>`
}

