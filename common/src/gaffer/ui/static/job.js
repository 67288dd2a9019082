// The page of one job.
import {ACTIONS} from "./actions.js"
import {get, jobPath, may} from "./api.js"
import {confirmAction} from "./confirm.js"
import {listen, paced} from "./events.js"
import {plural} from "./format.js"
import {HistoryList} from "./history.js"
import {DefinitionsTab} from "./job_definitions.js"
import {ExitsTab} from "./job_exits.js"
import {Overview} from "./job_overview.js"
import {html, useEffect, useState} from "./lib.js"
import {LogsTab} from "./logs.js"
import {Age, kindOfJob, Problem, ServerText, State, Time} from "./parts.js"
import {href} from "./route.js"

const TABS = [
  ["overview", "Overview", Overview],
  ["logs", "Logs", LogsTab],
  ["exits", "Exits", ExitsTab],
  ["definitions", "Definitions", DefinitionsTab],
  ["history", "History", ({job}) => html`<${HistoryList} job=${job.name} />`],
]

// The info of a job, refreshed when one of its events arrives: {job, error, at}.
function useJob(name) {
  const [result, setResult] = useState({name, job: null, error: null, at: null})
  useEffect(() => {
    let ended = false
    async function refresh() {
      if (document.hidden) return
      try {
        const job = await get(jobPath(name))
        if (!ended) setResult({name, job, error: null, at: Date.now()})
      } catch (error) {
        if (!ended) setResult((last) => ({...last, error}))
      }
    }
    const request = paced(refresh, 100)
    setResult({name, job: null, error: null, at: null})
    refresh()
    const stop = listen((event) => event.job === name && request(), request)
    return () => {
      ended = true
      stop()
      request.cancel()
    }
  }, [name])
  return result
}

export function JobPage({name, tab = "overview"}) {
  const {job, error, at} = useJob(name)
  const [, label, Tab] = TABS.find(([id]) => id === tab) ?? TABS[0]
  useEffect(() => {
    document.title = `${name} · ${label} · Gaffer`
  }, [name, label])
  if (job === null) return html`<section class="page">${error ? html`<${Problem} error=${error} />` : html`<p class="empty">Loading ${name}…</p>`}</section>`
  return html`<section class=${`page job-page tab-${tab}`} aria-label=${`Job ${name}`}>
    <header class="job-head">
      <h1>${name}</h1>
      <${State} state=${job.state} kind=${kindOfJob(job)} />
      <span class="facts"><b>${job.running}</b> of <b>${job.max_processes}</b> ${job.max_processes === 1 ? "process" : "processes"}
        <span class="sep">·</span>${plural(job.restarts, "restart")}
        ${job.generation && html`<span class="sep">·</span>generation ${job.generation}`}
        ${job.next_run && html`<span class="sep">·</span>next run <${Time} at=${job.next_run} />`}
      </span>
      <span class="grow"></span>
      <${Actions} job=${job} />
    </header>
    <${Remarks} job=${job} error=${error} at=${at} />
    <nav class="tabs" aria-label="Views of the job">${TABS.map(([id, title]) => html`<a key=${id} href=${href(["jobs", name, id])} aria-current=${id === tab ? "page" : null}>${title}</a>`)}</nav>
    <${Tab} job=${job} />
  </section>`
}

// What an operator must know: the reason of the state, drift, lost output, failed rollouts, and the age of stale data.
function Remarks({job, error, at}) {
  const remarks = []
  if (error) remarks.push(["warn", html`No news from the server: what you see is from <${Age} at=${at} />.`])
  if (job.disabled) remarks.push(["warn", html`Disabled since <${Time} at=${job.disabled.at} />${job.disabled.until && html` until <${Time} at=${job.disabled.until} />`}: ${job.disabled.reason}`])
  else if (job.reason) remarks.push([job.state === "failed" ? "bad" : kindOfJob(job) === "idle" ? "idle" : "warn", job.reason])
  if (job.state === "stopping") remarks.push(["busy", `Stopping: ${plural(job.instances.length, "process", "processes")} still running. The job is not stopped yet.`])
  if (job.rollout) {
    const {kind, state, replaced, processes, reason} = job.rollout
    remarks.push([reason ? "bad" : "busy", `Rollout (${kind}) ${state}: ${replaced} of ${processes} replaced${reason ? ` — ${reason}` : ""}`])
  }
  for (const drift of job.drift ?? []) remarks.push(["warn", drift.reason])
  if (job.log_lost_bytes) remarks.push(["bad", `${job.log_lost_bytes.toLocaleString("en")} bytes of output are missing in its log files.`])
  if (remarks.length === 0) return null
  return html`<ul class="remarks">${remarks.map(([kind, text], index) => html`<li key=${index} class=${kind}>${typeof text === "string" ? html`<${ServerText} text=${text} />` : text}</li>`)}</ul>`
}

const PRIMARY = ["start", "restart", "scale", "stop", "enable"]

function Actions({job}) {
  if (!may("control")) return html`<span class="dim">read only</span>`
  const usable = ACTIONS.filter((action) => action.applies(job))
  const shown = usable.filter((action) => PRIMARY.includes(action.id))
  const rest = usable.filter((action) => !PRIMARY.includes(action.id))
  const button = (action) => html`<button key=${action.id} class=${action.danger ? "danger-text" : ""} onClick=${() => confirmAction(action, [job])}>${action.label}</button>`
  return html`<div class="actions">${shown.map(button)}
    <details class="menu" onToggle=${closeOutside} onClick=${(event) => event.target.closest("button") && event.currentTarget.removeAttribute("open")}><summary>More</summary><div>${rest.map(button)}</div></details>
  </div>`
}

function closeOutside(event) {
  const menu = event.currentTarget
  if (!menu.open) return
  const close = (other) => {
    if (menu.contains(other.target) && other.key !== "Escape") return
    menu.removeAttribute("open")
    removeEventListener("pointerdown", close)
    removeEventListener("keydown", close)
  }
  addEventListener("pointerdown", close)
  addEventListener("keydown", close)
}
