// The logs of a job: what to show of them, and from where.
import {jobPath, root} from "./api.js"
import {Download} from "./download.js"
import {moment, number, plural} from "./format.js"
import {html, signal, useEffect, useMemo, useRef, useState, useValue} from "./lib.js"
import {LIMIT, LogBuffer} from "./log_buffer.js"
import {followLogs} from "./log_stream.js"
import {LogView} from "./log_view.js"
import {Connection, Problem} from "./parts.js"
import {announce} from "./dialog.js"
import {href, route, setQuery} from "./route.js"

const TAILS = ["1000", "10000", "100000", "all"]
const BEFORE = 16_384 // bytes shown before a line that is linked to

export function LogsTab({job}) {
  const {query} = useValue(route)
  const streams = (query.get("stream") ?? "out,err").split(",")
  const known = [...new Set(job.instances.map((each) => each.slot))].sort((a, b) => a - b)
  const chosen = query.get("slot") ? query.get("slot").split(",") : null
  const split = query.get("view") === "split" && known.length > 1
  const start = startOf(query)
  const panes = split ? (chosen ?? known.map(String)).slice(0, 4).map((slot) => [slot]) : [chosen]
  const shared = {job: job.name, streams, start, filter: query.get("filter") ?? "", search: query.get("find") ?? "", target: query.get("line")}
  return html`<div class="logs">
    <${LogTools} job=${job} query=${query} streams=${streams} slots=${known} chosen=${chosen} split=${split} />
    <div class=${split ? "panes" : "pane-only"}>${panes.map((slots) => html`<${Pane} key=${`${slots}|${streams}|${JSON.stringify(start)}`} ...${shared} slots=${slots} titled=${split} />`)}</div>
  </div>`
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

function LogTools({job, query, streams, slots, chosen, split}) {
  const toggleStream = (stream) => {
    const next = streams.includes(stream) ? streams.filter((each) => each !== stream) : [...streams, stream]
    setQuery({stream: next.length === 2 || next.length === 0 ? null : next.join(","), line: null})
  }
  const toggleSlot = (slot) => {
    const now = chosen ?? slots.map(String)
    const next = now.includes(slot) ? now.filter((each) => each !== slot) : [...now, slot]
    setQuery({slot: next.length === slots.length || next.length === 0 ? null : next.join(","), line: null})
  }
  const jump = (event) => event.target.value && setQuery({since: new Date(event.target.value).toISOString().replace(/\.\d+Z/, "Z"), tail: null, line: null})
  const download = {stream: streams.join(","), slot: chosen?.join(","), since: query.get("since")}
  return html`<div class="toolbar log-tools">
    <input id="search" type="search" placeholder="Search in lines  ( / )" aria-label="Search in lines" value=${query.get("find") ?? ""} onInput=${(event) => setQuery({find: event.target.value})} />
    <input type="search" placeholder="Only lines with…" aria-label="Show only lines with" value=${query.get("filter") ?? ""} onInput=${(event) => setQuery({filter: event.target.value})} />
    <div class="chips" role="group" aria-label="Streams">${["out", "err"].map((stream) => html`<button key=${stream} class="chip" aria-pressed=${streams.includes(stream)} onClick=${() => toggleStream(stream)}>std${stream}</button>`)}</div>
    ${slots.length > 1 && html`<div class="chips" role="group" aria-label="Processes">${slots.map(String).map((slot) => html`<button key=${slot} class=${`chip slot-${Number(slot) % 6}`} aria-pressed=${chosen === null || chosen.includes(slot)} onClick=${() => toggleSlot(slot)}>${slot === "0" ? "once" : `#${slot}`}</button>`)}
      <button class="chip" aria-pressed=${split} onClick=${() => setQuery({view: split ? null : "split", line: null})}>side by side</button></div>`}
    <span class="grow"></span>
    <label class="inline">From <select aria-label="How far back" value=${query.get("line") ? "line" : query.get("since") ? "since" : query.get("tail") ?? TAILS[0]} onChange=${(event) => setQuery({tail: event.target.value, since: null, line: null})}>
      ${query.get("since") && html`<option value="since" disabled>${moment(Date.parse(query.get("since")) / 1000)}</option>`}
      ${query.get("line") && html`<option value="line" disabled>a line</option>`}
      ${[...new Set([query.get("tail") ?? TAILS[0], ...TAILS])].map((tail) => html`<option key=${tail} value=${tail}>${tail === "all" ? "all that is kept" : `last ${number(Number(tail))} of each`}</option>`)}</select></label>
    <label class="inline">Time <input type="datetime-local" step="1" aria-label="Jump to a time" onChange=${jump} /></label>
    <${Download} path=${`${jobPath(job.name)}/logs`} query=${download} name=${`${job.name}.log`} command=${`gaffer logs ${job.name} --tail=all --plain${streams.length === 1 ? ` --stream=${streams[0]}` : ""} --endpoint=${root.origin} > ${job.name}.log`} />
  </div>`
}

function Pane({job, streams, slots, start, filter, search, target, titled}) {
  const buffer = useRef(null)
  const state = useMemo(() => signal({state: "connecting", since: null, error: null}), [])
  const [version, setVersion] = useState(0)
  const [following, setFollowing] = useState(target === null && start.since === undefined)
  const [unread, setUnread] = useState(0)
  const [position, setPosition] = useState(null)
  buffer.current ??= new LogBuffer()
  const {state: phase, error} = useValue(state)

  useEffect(() => {
    let frame = null
    const draw = () => {
      frame = null
      setVersion(buffer.current.version)
    }
    const close = followLogs({
      job,
      streams: target ? [target.split("@")[0].split(".")[1]] : streams,
      slots: target ? [target.split(".")[0]] : slots,
      start,
      buffer: buffer.current,
      onChange: () => (frame ??= requestAnimationFrame(draw)),
      onState: (next) => (state.value = next),
    })
    return () => {
      close()
      if (frame !== null) cancelAnimationFrame(frame)
    }
  }, [])

  const wanted = filter.toLowerCase()
  const {lines: all, dropped} = buffer.current
  const lines = useMemo(() => (wanted ? all.filter((line) => line.note || line.plain.toLowerCase().includes(wanted)) : all), [wanted, version])
  const match = search.toLowerCase()
  const hits = useMemo(() => {
    const found = []
    if (match) for (let index = 0; index < lines.length; index++) if (lines[index].plain.toLowerCase().includes(match)) found.push(index)
    return found
  }, [match, lines, version])
  const marked = useMemo(() => (position !== null ? position : target ? all.findIndex((line) => line.offset !== undefined && `${line.label}@${line.epoch}:${line.offset}` === target) : null), [position, target, version])

  useEffect(() => setPosition(null), [match, wanted])
  const seen = useRef(0)
  useEffect(() => {
    if (following) seen.current = dropped + all.length
    setUnread(dropped + all.length - seen.current)
  }, [version, following])

  function step(direction) {
    if (hits.length === 0) return
    const from = position ?? (direction > 0 ? -1 : lines.length)
    const next = direction > 0 ? hits.find((index) => index > from) ?? hits[0] : hits.findLast((index) => index < from) ?? hits.at(-1)
    setFollowing(false)
    setPosition(next)
  }

  async function link(line) {
    const target = new URL(location.href)
    target.hash = href(["jobs", job, "logs"], {line: `${line.label}@${line.epoch}:${line.offset}`})
    await navigator.clipboard?.writeText(target.href)
    announce("Copied a link to this line")
  }

  return html`<section class="pane" aria-label=${titled ? `Process ${slots}` : "Log"}>
    <div class="log-status">
      ${titled && html`<b>#${slots}</b>`}
      <${Connection} source=${state} />
      <span class="dim">${phase === "open" && all.length === 0 ? "No output yet" : plural(lines.length, "line")}${wanted ? ` of ${number(all.length)}` : ""}</span>
      ${dropped > 0 && html`<span class="warn-text">${number(dropped)} older lines dropped here (a page keeps ${number(LIMIT)})</span>`}
      ${match && html`<span>${plural(hits.length, "hit")}<button class="quiet" aria-label="Previous hit" onClick=${() => step(-1)}>↑</button><button class="quiet" aria-label="Next hit" onClick=${() => step(1)}>↓</button></span>`}
      <span class="grow"></span>
      <button class="follow" aria-pressed=${following} onClick=${() => setFollowing(!following)}>${following ? "Following" : unread > 0 ? `Paused · ${number(unread)} new` : "Paused"}</button>
    </div>
    ${error && html`<${Problem} error=${error} />`}
    <${LogView} lines=${lines} base=${wanted ? 0 : dropped} version=${version} following=${following} setFollowing=${setFollowing} labels=${true} match=${match} marked=${marked} onLine=${link} />
  </section>`
}
