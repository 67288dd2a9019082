// Logs of a job or of several: what to show of them, from where, and in how many panes.
import {get, root} from "./api.js"
import {Download} from "./download.js"
import {moment, number} from "./format.js"
import {html, signal, useEffect, useMemo, useRef, useState, useValue} from "./lib.js"
import {LogBuffer} from "./log_buffer.js"
import {LogPane} from "./log_pane.js"
import {followLogs, request, sourceOf} from "./log_stream.js"
import {Empty, Problem} from "./parts.js"
import {href, route, setQuery} from "./route.js"
import {connection} from "./stream.js"

const TAILS = ["1000", "10000", "100000", "all"]
const BEFORE = 16_384 // bytes shown before a line that is linked to
const MOST_PANES = 8
const COLORS = 6

// The logs of one job, of some of its slots.
export function LogsTab({job}) {
  const slots = [...new Set(job.instances.map((each) => each.slot))].sort((a, b) => a - b).map(String)
  return html`<${Logs} jobs=${[job.name]} slots=${slots} />`
}

// The logs of several jobs, `#/logs?job=shop.web,shop.api`.
export function LogsPage() {
  const {query} = useValue(route)
  const jobs = [...new Set(query.getAll("job").flatMap((each) => each.split(",")).filter(Boolean))]
  return html`<section class="page tab-logs" aria-label="Logs">
    <div class="toolbar job-chips"><h1>Logs</h1>
      ${jobs.map((name, index) => html`<span key=${name} class=${`chip source ink-${index % COLORS}`}><a class="job" href=${href(["jobs", name, "logs"])}>${name}</a><button class="quiet" aria-label=${`Remove ${name}`} onClick=${() => setQuery({job: jobs.filter((each) => each !== name).join(",")})}>×</button></span>`)}
      <${AddJob} jobs=${jobs} />
    </div>
    ${jobs.length === 0 ? html`<${Empty}>Choose the jobs whose logs to merge, here or by selecting them in the list of jobs.<//>` : html`<${Logs} jobs=${jobs} slots=${[]} main />`}
  </section>`
}

// A field that completes the names of jobs, and calls for another one.
function AddJob({jobs}) {
  const [names, setNames] = useState([])
  const [typed, setTyped] = useState("")
  const [error, setError] = useState(null)
  useEffect(() => {
    const abort = new AbortController()
    get("/search", {kind: "jobs", q: typed, sort: "name", limit: 50}, {signal: abort.signal}).then(({items}) => {
      setNames(items.map(({name}) => name))
      setError(null)
    }, (problem) => abort.signal.aborted || setError(problem))
    return () => abort.abort()
  }, [typed])
  function add(name) {
    setTyped("")
    setQuery({job: [...new Set([...jobs, name])].join(","), line: null})
  }
  function onInput({target, inputType}) {
    const chosen = !inputType || inputType === "insertReplacementText" // of the list, not typed
    if (chosen && target.value.includes(".")) add(target.value.trim())
    else setTyped(target.value)
  }
  function onKeyDown({key}) {
    const name = typed.trim()
    if (key === "Enter" && name.includes(".")) add(name)
  }
  return html`<input class="add-job" list="job-names" placeholder="Add a job…" aria-label="Add a job" value=${typed} onInput=${onInput} onKeyDown=${onKeyDown} />
    <datalist id="job-names">${names.filter((name) => !jobs.includes(name)).map((name) => html`<option key=${name} value=${name} />`)}</datalist>
    ${error && html`<${Problem} error=${error} />`}`
}

function startOf(query) {
  const line = query.get("line")
  if (line) {
    const [, epoch, offset] = /@(.*):(\d+)$/.exec(line) ?? []
    if (offset !== undefined) return {offset: `${epoch}:${Math.max(0, Number(offset) - BEFORE)}`}
  }
  if (query.get("since")) return {since: query.get("since")}
  const tail = query.get("tail") ?? TAILS[0]
  return tail === "all" ? {} : {tail}
}

// What is side by side, and how to call it: jobs, or the slots of one.
function sourcesOf(jobs, slots) {
  if (jobs.length > 1) return {names: jobs, of: (source) => source.job, title: (name) => name}
  return {names: slots, of: (source) => source.slot, title: (slot) => (slot === "0" ? "once" : `#${slot}`)}
}

// `main`: the page has no other stream than that of the logs.
function Logs({jobs, slots, main = false}) {
  const {query} = useValue(route)
  const streams = (query.get("stream") ?? "out,err").split(",")
  const chosen = query.get("slot") && jobs.length === 1 ? query.get("slot").split(",") : null
  const start = startOf(query)
  const target = jobs.length === 1 ? query.get("line") : null
  const sources = sourcesOf(jobs, chosen ?? slots)
  const split = query.get("view") === "split" && sources.names.length > 1 && target === null
  const panes = split ? sources.names.slice(0, MOST_PANES) : [null]
  const shown = {stream: streams.join(","), slot: split && jobs.length === 1 ? panes.join(",") : chosen?.join(",")}
  if (target) Object.assign(shown, {slot: target.split(".")[0], stream: target.split("@")[0].split(".")[1]})
  const followed = split && jobs.length > 1 ? panes : jobs
  const views = {filter: query.get("filter") ?? "", search: query.get("find") ?? "", target}
  return html`<div class="logs">
    <${LogTools} main=${main} jobs=${jobs} query=${query} streams=${streams} slots=${slots} chosen=${chosen} split=${split} splits=${sources.names.length > 1} download=${shown} />
    ${split && sources.names.length > MOST_PANES && html`<p class="warn-text">${MOST_PANES} of ${number(sources.names.length)} are side by side: ${sources.names.slice(MOST_PANES).map(sources.title).join(", ")} ${sources.names.length === MOST_PANES + 1 ? "is" : "are"} left out.</p>`}
    <${Panes} key=${JSON.stringify([followed, shown, start, panes])} main=${main} jobs=${jobs} followed=${followed} shown=${shown} start=${start} panes=${panes} sources=${sources} views=${views} />
  </div>`
}

// One stream, whose logs go to the buffers of the panes.
function Panes({main, jobs, followed, shown, start, panes, sources, views}) {
  const buffers = useRef(null)
  const state = useMemo(() => signal({state: "connecting", since: null, error: null}), [])
  const [, draw] = useState(0)
  buffers.current ??= panes.map(() => new LogBuffer(panes.length))
  const bufferOf = (label) => buffers.current[Math.max(0, panes.indexOf(sources.of(sourceOf(label, followed))))]

  useEffect(() => {
    let frame = null
    const close = followLogs({
      jobs: followed,
      query: shown,
      start,
      buffers: buffers.current,
      bufferOf,
      onChange: () =>
        (frame ??= requestAnimationFrame(() => {
          frame = null
          draw((count) => count + 1)
        })),
      onState: (next) => {
        state.value = next
        if (main && next.state !== "refused") connection.value = next
      },
    })
    return () => {
      close()
      if (frame !== null) cancelAnimationFrame(frame)
    }
  }, [])

  const badge = (label) => {
    const {job, slot, stream} = sourceOf(label, followed)
    const color = jobs.length > 1 ? jobs.indexOf(job) % COLORS : Number(slot) % COLORS
    return {text: jobs.length > 1 ? `${job} ${slot}.${stream}` : `${slot}.${stream}`, color}
  }
  return html`<div class=${panes.length > 1 ? "panes" : "pane-only"}>${panes.map((name, index) => html`<${LogPane} key=${name ?? ""} ...${views} jobs=${followed} buffer=${buffers.current[index]} version=${buffers.current[index].version} state=${state} badge=${badge}
    title=${name === null ? null : sources.title(name)} follows=${views.target === null && start.since === undefined} />`)}</div>`
}

function LogTools({main, jobs, query, streams, slots, chosen, split, splits, download}) {
  const toggle = (all, now, name, key) => {
    const next = now.includes(name) ? now.filter((each) => each !== name) : [...now, name]
    setQuery({[key]: next.length === all.length || next.length === 0 ? null : next.join(","), line: null})
  }
  const jump = (event) => event.target.value && setQuery({since: new Date(event.target.value).toISOString().replace(/\.\d+Z/, "Z"), tail: null, line: null})
  const file = request(jobs, {...download, since: query.get("since")})
  return html`<div class="toolbar log-tools">
    <input id="search" type="search" placeholder="Search in lines  ( / )" aria-label="Search in lines" value=${query.get("find") ?? ""} onInput=${(event) => setQuery({find: event.target.value})} />
    <input type="search" placeholder="Only lines with…" aria-label="Show only lines with" value=${query.get("filter") ?? ""} onInput=${(event) => setQuery({filter: event.target.value})} />
    <div class="chips" role="group" aria-label="Streams">${["out", "err"].map((stream) => html`<button key=${stream} class="chip" aria-pressed=${streams.includes(stream)} onClick=${() => toggle(["out", "err"], streams, stream, "stream")}>std${stream}</button>`)}</div>
    ${slots.length > 1 && html`<div class="chips" role="group" aria-label="Processes">${slots.map((slot) => html`<button key=${slot} class=${`chip ink-${Number(slot) % COLORS}`} aria-pressed=${chosen === null || chosen.includes(slot)} onClick=${() => toggle(slots, chosen ?? slots, slot, "slot")}>${slot === "0" ? "once" : `#${slot}`}</button>`)}</div>`}
    ${splits && html`<button class="chip" aria-pressed=${split} onClick=${() => setQuery({view: split ? null : "split", line: null})}>side by side</button>`}
    ${jobs.length === 1 && !main && html`<a href=${href(["logs"], {job: jobs[0]})}>With other jobs</a>`}
    <span class="start"><label class="inline">From <select aria-label="How far back" value=${query.get("line") ? "line" : query.get("since") ? "since" : query.get("tail") ?? TAILS[0]} onChange=${(event) => setQuery({tail: event.target.value, since: null, line: null})}>
      ${query.get("since") && html`<option value="since" disabled>${moment(Date.parse(query.get("since")) / 1000)}</option>`}
      ${query.get("line") && html`<option value="line" disabled>a line</option>`}
      ${[...new Set([query.get("tail") ?? TAILS[0], ...TAILS])].map((tail) => html`<option key=${tail} value=${tail}>${tail === "all" ? "all that is kept" : `last ${number(Number(tail))} of each`}</option>`)}</select></label>
    <label class="inline">Time <input type="datetime-local" step="1" aria-label="Jump to a time" onChange=${jump} /></label>
    <${Download} path=${file.path} query=${file.query} name=${`${jobs.length === 1 ? jobs[0] : "logs"}.log`} command=${`gaffer logs ${jobs.join(" ")} --tail=all --endpoint=${root.origin}`} /></span>
  </div>`
}
