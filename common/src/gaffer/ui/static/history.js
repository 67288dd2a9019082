// Who changed what, and what happened: the history of the node or of a job, newest first.
import {plainText} from "./ansi.js"
import {get} from "./api.js"
import {listen, paced} from "./events.js"
import {clock, date, duration, endingWithReason, inLocalTime} from "./format.js"
import {html, useEffect, useState, useValue} from "./lib.js"
import {Empty, JobLink, kindOf, Problem, ServerText, Time} from "./parts.js"
import {route, setQuery} from "./route.js"

const LIMIT = 100
const BAD = ["flap", "failed", "start_failed", "rollout_failed", "not_live", "limit_exceeded"]

export function HistoryPage() {
  const {query} = useValue(route)
  return html`<section class="page" aria-label="History"><h1 class="hidden">History</h1><div class="toolbar">
      <input id="search" type="search" placeholder="Job or session  ( / )" aria-label="Job or session" value=${query.get("job") ?? ""} onChange=${(event) => setQuery({job: event.target.value.trim()})} />
    </div><${HistoryList} job=${query.get("job")} named /></section>`
}

export function HistoryList({job = null, named = false}) {
  const [entries, setEntries] = useState(null)
  const [next, setNext] = useState(null)
  const [error, setError] = useState(null)
  useEffect(() => {
    let ended = false
    async function refresh() {
      try {
        const page = await get("/history", {job, limit: LIMIT})
        if (ended) return
        setEntries((old) => merge(page.entries, old ?? []))
        setNext((last) => last ?? page.next)
        setError(null)
      } catch (problem) {
        if (!ended) setError(problem)
      }
    }
    setEntries(null)
    setNext(null)
    const request = paced(refresh, 1000)
    refresh()
    const stop = listen(request, request)
    return () => {
      ended = true
      stop()
      request.cancel()
    }
  }, [job])
  async function more() {
    try {
      const page = await get("/history", {job, limit: LIMIT, before: next})
      setEntries((old) => merge(old, page.entries))
      setNext(page.next)
      setError(null)
    } catch (problem) {
      setError(problem)
    }
  }
  if (entries === null) return error ? html`<${Problem} error=${error} />` : html`<${Empty}>Loading…<//>`
  if (entries.length === 0) return html`<${Empty}>Nothing has happened${job ? ` to ${job}` : ""} that was written down.<//>`
  let day = null
  return html`${error && html`<${Problem} error=${error} />`}<ol class="timeline">${entries.map((entry) => {
    const heading = date(entry.at) !== day && html`<li class="day" key=${`day-${date(entry.at)}`}>${(day = date(entry.at))}</li>`
    return html`${heading}<${Entry} key=${entry.id} entry=${entry} named=${named} />`
  })}</ol>${next !== null && html`<p class="more"><button onClick=${more}>Older entries</button></p>`}`
}

function merge(first, second) {
  const known = new Set(first.map((entry) => entry.id))
  return [...first, ...second.filter((entry) => !known.has(entry.id))].sort((a, b) => b.at - a.at)
}

const TIMES = ["at", "until", "next_run", "since"] // seconds since 1970

function valueOf(name, value) {
  if (TIMES.includes(name) && typeof value === "number") return new Date(value * 1000).toISOString()
  if (Array.isArray(value) && value.every((each) => typeof each === "string")) return value.join(", ")
  return typeof value === "object" ? JSON.stringify(value) : value
}

export const isBad = ({action, outcome}) => BAD.includes(action) || outcome === "failed"

// The details of an entry as text.
export function detailsOf({action, details}) {
  if (action === "exit" && "exit_code" in details) {
    return `${endingWithReason(details)} after ${duration(details.uptime)}`
  }
  const shown = Object.entries(details).filter(([name, value]) => !(name === "state" && ["0", "1"].includes(String(value)))) // the action says it
  return plainText(shown.map(([name, value]) => (["reason", "message"].includes(name) ? String(value) : `${name} ${valueOf(name, value)}`)).join(", "))
}

function Entry({entry, named}) {
  const {kind, action, route: path, outcome, caller, address} = entry
  const bad = isBad(entry)
  const text = detailsOf(entry)
  return html`<li class=${bad ? "bad" : kindOf(outcome)}>
    <${Time} at=${entry.at} as=${clock} />
    <span class="what" title=${path ? `${action} ${path}` : null}>${entry.what}</span>
    ${named && entry.job && html`<${JobLink} name=${entry.job} />`}
    ${entry.pid && html`<span class="dim">pid ${entry.pid}</span>`}
    ${outcome !== "ok" && kind !== "job" && html`<b class="bad">${outcome}${entry.error ? `: ${entry.error}` : ""}</b>`}
    ${text && html`<span class="details" title=${inLocalTime(text)}><${ServerText} text=${text} /></span>`}
    ${entry.count > 1 && html`<span class="dim">${entry.count} times</span>`}
    ${caller && html`<span class="who dim">${caller}${address ? ` from ${address}` : ""}</span>`}
  </li>`
}
