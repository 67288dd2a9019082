// What happened in the cluster, newest first: what lookupd sees of nodes, and what nodes report. Many of one kind are one line.
import {plainText} from "./ansi.js"
import {get, may} from "./api.js"
import {clock, date, moment, number, plural} from "./format.js"
import {detailsOf, isBad} from "./history.js"
import {html, useEffect, useMemo, useState, useValue} from "./lib.js"
import {Age, Empty, Problem, Time} from "./parts.js"
import {href, route, setQuery} from "./route.js"
import {useStableRows} from "./stable.js"
import {connection, follow, HEARTBEAT, lost} from "./stream.js"

const PAGE = 500 // entries
const MOST = 2000 // entries that the page keeps
const SHOWN = 200 // lines
const NAMED = 3 // nodes of a line that are named, not counted
const WINDOW = 600 // seconds: entries of one kind that are closer become one line
const RETRY = 2000 // ms

// Returns {entries, next, begun, dropped, left, at, error}; `entries` is null until the first answer.
function useHistory(filter) {
  const [state, setState] = useState({entries: null, next: null, begun: null, dropped: 0, left: 0, at: null, error: null})
  useEffect(() => {
    const abort = new AbortController()
    let stop = null
    let timer = null

    async function load() {
      clearTimeout(timer)
      try {
        const page = await get("/history", {...filter, limit: PAGE}, {signal: abort.signal})
        if (abort.signal.aborted) return
        setState({...page, left: 0, at: Date.now(), error: null})
        stop?.()
        stop = follow({
          path: "/history/changes",
          query: (lastId) => ({...filter, after: lastId ?? `${page.epoch}:${page.seq}`, heartbeat: HEARTBEAT}),
          onEvents: (events) => {
            if (events.some((event) => event.name === "reset")) return void load()
            const added = events.flatMap((event) => JSON.parse(event.data).entries)
            if (added.length) setState((old) => ({...old, ...limited([...added.reverse(), ...old.entries], old.left), at: Date.now()}))
          },
          onState: (now) => (connection.value = now),
        })
      } catch (error) {
        if (abort.signal.aborted) return
        setState((old) => ({...old, error}))
        if (error.status) return
        if (stop === null) lost(error)
        timer = setTimeout(load, RETRY)
      }
    }
    load()
    return () => {
      abort.abort()
      clearTimeout(timer)
      stop?.()
    }
  }, [JSON.stringify(filter)])

  async function more() {
    try {
      const page = await get("/history", {...filter, limit: PAGE, before: state.next})
      setState((old) => ({...old, next: page.next, entries: [...old.entries, ...page.entries], error: null}))
    } catch (error) {
      setState((old) => ({...old, error}))
    }
  }
  return [state, more]
}

const limited = (entries, left) => ({entries: entries.slice(0, MOST), left: left + Math.max(0, entries.length - MOST)})

// Lines of one or more entries, newest first.
function grouped(entries) {
  const groups = []
  const open = new Map()
  for (const entry of [...entries].sort((a, b) => b.at - a.at || b.id - a.id)) {
    const kind = [entry.action, entry.route, entry.outcome, entry.job, entry.caller].join("\n")
    const group = open.get(kind)
    if (group && group.entries.at(-1).at - entry.at <= WINDOW) {
      group.entries.push(entry)
    } else {
      const next = {entries: [entry]}
      open.set(kind, next)
      groups.push(next)
    }
  }
  // The oldest entry names a line: newer ones join it.
  return groups.map((group) => ({...group, key: group.entries.at(-1).id, count: group.entries.reduce((sum, entry) => sum + entry.count, 0)}))
}

export function ClusterEventsPage() {
  const {query} = useValue(route)
  const filter = {q: query.get("q") ?? "", node: query.get("node") ?? "", job: query.get("job") ?? "", failed: query.get("failed") === "true" ? "true" : ""}
  const [state, more] = useHistory(filter)
  const {entries, next, begun, dropped, left, at, error} = state
  const groups = useMemo(() => (entries === null ? null : grouped(entries)), [entries])
  const stable = useStableRows(groups, (group) => group.key)
  const [opened, setOpened] = useState(() => new Set())
  const [lines, setLines] = useState(SHOWN)
  function toggle(key) {
    const changed = new Set(opened)
    if (!changed.delete(key)) changed.add(key)
    setOpened(changed)
  }
  const filtered = Object.values(filter).some(Boolean)
  const total = entries?.reduce((sum, entry) => sum + entry.count, 0) ?? 0
  let day = null
  return html`<section class="page" aria-label="Events"><h1 class="hidden">Events</h1>
    <div class="toolbar"><input id="search" type="search" placeholder="Only events with…  ( / )" aria-label="Only events with" value=${filter.q} onInput=${(event) => setQuery({q: event.target.value})} />
      <button class="chip bad" aria-pressed=${Boolean(filter.failed)} onClick=${() => setQuery({failed: filter.failed ? null : "true"})}><i aria-hidden="true"></i>failures only</button>
      ${["node", "job"].filter((name) => filter[name]).map((name) => html`<button key=${name} class="chip" aria-pressed="true" onClick=${() => setQuery({[name]: null})}>${name} ${plainText(filter[name])} ×</button>`)}</div>
    ${error && (error.status || entries === null) && html`<${Problem} error=${error} />`}
    <div class="notice" aria-live="polite">
      ${entries !== null && html`<span class="count">${plural(total, "event")}</span>`}
      ${error && at && html`<span class="dim"><${Age} at=${at} prefix="as of " /></span>`}
      ${entries?.some((entry) => entry.kind === "call") && !may("control") && html`<span class="dim">Who did it is shown with the cluster key.</span>`}
      ${(stable.added > 0 || stable.moved) && html`<button onClick=${stable.apply}>${stable.added > 0 ? `${plural(stable.added, "new line")} — show` : "The order has changed — sort again"}</button>`}</div>
    ${entries === null && !error && html`<${Empty}>Loading…<//>`}
    ${entries?.length === 0 && html`<${Empty}>${filtered ? "No event matches the filter." : "Nothing has happened yet."}<//>`}
    <ol class="timeline groups" ...${stable.hold}>${stable.rows.slice(0, lines).map((group) => {
      const [newest] = group.entries
      const heading = date(newest.at) !== day && html`<li class="day" key=${`day ${date(newest.at)}`}>${(day = date(newest.at))}</li>`
      return html`${heading}<${Group} key=${group.key} group=${group} open=${opened.has(group.key)} toggle=${toggle} />`
    })}</ol>
    ${stable.rows.length > lines && html`<p class="more"><button onClick=${() => setLines(lines + SHOWN)}>Show ${number(Math.min(SHOWN, stable.rows.length - lines))} more lines</button></p>`}
    ${entries !== null && stable.rows.length <= lines && (next !== null ? html`<p class="more"><button onClick=${more}>Older events</button></p>` : html`<p class="gap">${left + dropped > 0 ? `${plural(left + dropped, "older event")} ${left + dropped === 1 ? "is" : "are"} not kept here.` : `This lookupd started at ${moment(begun)}. Older events are those that the nodes sent again: at most the last 50 of each.`}</p>`)}
  </section>`
}

// What the entries of a line have in common; of jobs, else what the newest says.
function summary(entries) {
  const [newest] = entries
  const details = new Set(entries.map(detailsOf)).size === 1 ? detailsOf(newest) : newest.job && detailsOf(newest) ? `last: ${detailsOf(newest)}` : ""
  return {...newest, text: details}
}

function Group({group, open, toggle}) {
  const [newest] = group.entries
  const nodes = [...new Map(group.entries.map((entry) => [entry.node_id ?? entry.node, entry])).values()].filter((entry) => entry.node !== null)
  const several = group.entries.length > 1
  return html`<li class=${isBad(newest) ? "bad" : ""}><div class="row">
      ${several ? html`<button class="opener" aria-expanded=${open} aria-label=${`${open ? "Hide" : "Show"} ${group.entries.length} entries`} onClick=${() => toggle(group.key)}>${open ? "▾" : "▸"}</button>` : html`<span class="opener" aria-hidden="true"></span>`}
      <${Time} at=${newest.at} as=${clock} />
      <span class="what">${plainText(newest.what)}</span>
      ${group.count > 1 && html`<span class="count-tag">${number(group.count)} times${several && html`, since <${Time} at=${group.entries.at(-1).at} />`}</span>`}
      <${Subject} entry=${newest} nodes=${nodes} />
      <${Facts} entry=${summary(group.entries)} /></div>
    ${several && open && html`<ol>${group.entries.map((entry) => html`<li key=${entry.id} class="row"><${Time} at=${entry.at} />${entry.count > 1 && html`<span class="count-tag">${number(entry.count)} times</span>`}<${Subject} entry=${entry} nodes=${entry.node === null ? [] : [entry]} /><${Facts} entry=${entry} /></li>`)}</ol>`}
  </li>`
}

const NodeLink = ({entry: {node, node_id: id}}) => (id ? html`<a href=${href([], {}, id)}>${plainText(node)}</a>` : plainText(node))

function Subject({entry, nodes}) {
  const job = entry.job && (nodes.length === 1 && entry.node_id ? html`<a class="job" href=${href(["jobs", entry.job], {}, entry.node_id)}>${plainText(entry.job)}</a>` : html`<span class="job">${plainText(entry.job)}</span>`)
  const named = nodes.length <= NAMED ? nodes.map((each, index) => html`${index > 0 && ", "}<b><${NodeLink} entry=${each} /></b>`) : html`<b>${plural(nodes.length, "node")}</b>`
  const where = nodes.length > 0 && named
  return html`${job}${where && html`<span>${job ? "on " : ""}${where}</span>`}${entry.pid !== null && nodes.length === 1 && html`<span class="dim">pid ${entry.pid}</span>`}`
}

function Facts({entry}) {
  const text = entry.text ?? detailsOf(entry)
  const failed = entry.outcome !== "ok" && entry.kind !== "job" && entry.kind !== "node"
  return html`${failed && html`<b class="bad">${entry.outcome}${entry.error ? `: ${plainText(entry.error)}` : ""}</b>`}
    ${text && html`<span class="details">${text}</span>`}
    ${entry.caller && html`<span class="who dim">by ${plainText(entry.caller)}</span>`}`
}
