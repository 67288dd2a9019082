// Small parts of all pages.
import {explain} from "./api.js"
import {duration, fullTime, moment, splitTimes} from "./format.js"
import {html, useInterval, useState, useValue} from "./lib.js"
import {href} from "./route.js"

const KINDS = {
  running: "good", ready: "good", alive: "good", ok: "good",
  starting: "busy", stopping: "busy", draining: "busy", spawning: "busy", warming: "busy",
  backoff: "warn", suspect: "warn", stale: "warn", refused: "warn", abandoned: "warn",
  failed: "bad", expired: "bad",
}

export const kindOf = (state) => KINDS[state] ?? "idle"

// The same of a job: one that waits is well only if no process should run now; one that is up has a reason for it only if something
// is wrong, such as a crash loop.
export function kindOfJob(job) {
  const troubled = job.state === "waiting" ? job.expected > 0 : ["starting", "running"].includes(job.state) && job.reason
  return troubled ? "warn" : kindOf(job.state)
}

// A state: a sign that differs in shape as well as in colour, and its word.
export function State({state, detail, kind = kindOf(state)}) {
  return html`<span class=${`state ${kind}`}><i aria-hidden="true"></i>${state}${detail && html` <small>${detail}</small>`}</span>`
}

export const JobLink = ({name, tab}) => {
  const [session, job] = name.split(/\.(.*)/s)
  return html`<a class="job" href=${href(tab ? ["jobs", name, tab] : ["jobs", name])}><span class="session">${session}.</span>${job}</a>`
}

// A time (seconds) in the time zone of the browser; the tooltip has it in full.
export function Time({at, as = moment}) {
  if (at === null || at === undefined) return html`<span>–</span>`
  return html`<time datetime=${new Date(at * 1000).toISOString()} title=${fullTime(at)}>${as(at)}</time>`
}

// A text of the server, whose times become those of the browser.
export const ServerText = ({text}) => splitTimes(text).map((part) => (typeof part === "number" ? html`<${Time} at=${part} />` : part))

// The time since `at` (ms), which counts on.
export function Age({at, prefix = "", suffix = " ago"}) {
  const [now, setNow] = useState(Date.now())
  useInterval(() => setNow(Date.now()), 1000)
  return html`<span>${prefix}${duration(Math.max(0, now - at) / 1000)}${suffix}</span>`
}

// A duration (seconds) that was right when it arrived, and counts on.
export function Uptime({seconds}) {
  const [start, setStart] = useState(null)
  const [now, setNow] = useState(Date.now())
  useInterval(() => setNow(Date.now()), 1000)
  if (seconds === null || seconds === undefined) return html`<span>–</span>`
  if (start === null || start.seconds !== seconds) setStart({seconds, at: Date.now()})
  return html`<span>${duration(seconds + Math.max(0, now - (start?.at ?? now)) / 1000)}</span>`
}

// When a process starts again after failures, in `seconds` when that arrived; it counts down.
export function NextStart({seconds}) {
  const [start, setStart] = useState(null)
  const [now, setNow] = useState(Date.now())
  useInterval(() => setNow(Date.now()), 1000)
  if (seconds === null || seconds === undefined) return null
  if (start === null || start.seconds !== seconds) setStart({seconds, at: Date.now()})
  const left = Math.max(0, Math.ceil(seconds - Math.max(0, now - (start?.at ?? now)) / 1000))
  return html`<span class="next-start">next start ${left ? `in ${duration(left)}` : "now"}</span>`
}

export function Problem({error, retry}) {
  return html`<div class="problem" role="alert"><strong>${error.status ? `Refused (${error.status})` : "No answer"}</strong>
    <span><${ServerText} text=${explain(error)} /></span>${retry && html`<button onClick=${retry}>Try again</button>`}</div>`
}

// The state of the stream that keeps a view up to date.
export function Connection({source}) {
  const {state, since, error} = useValue(source)
  const text = {
    open: "Live",
    connecting: "Connecting…",
    hidden: "Paused while hidden",
    refused: error ? explain(error) : "Refused",
  }
  if (state === "none") return null
  return html`<span class=${`connection ${state}`} role="status">
    <i aria-hidden="true"></i>${state === "lost" ? html`<span>Connection lost <${Age} at=${since} />, retrying</span>` : text[state]}
  </span>`
}

export function Empty({children}) {
  return html`<p class="empty">${children}</p>`
}
