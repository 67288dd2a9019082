// Ctrl-K: jump to a job, a page or an action on a job; on the page of a cluster, to a node or a job of one.
import {ACTIONS} from "./actions.js"
import {plainText} from "./ansi.js"
import {get, may} from "./api.js"
import {confirmAction} from "./confirm.js"
import {html, signal, useEffect, useMemo, useRef, useState, useValue} from "./lib.js"
import {href} from "./route.js"

export const paletteOpen = signal(false)
const MOST = 12

export function Palette({pages, withJobs}) {
  const open = useValue(paletteOpen)
  return open ? html`<${Finder} pages=${pages} withJobs=${withJobs} />` : null
}

// Whether all letters of `query` occur in `text` in this order, and how well: smaller is better, null for not at all.
function score(text, query) {
  const lower = text.toLowerCase()
  const whole = lower.indexOf(query)
  if (whole >= 0) return whole
  let at = -1
  for (const letter of query) if ((at = lower.indexOf(letter, at + 1)) < 0) return null
  return 100 + at
}

function Finder({pages, withJobs}) {
  const [query, setQuery] = useState("")
  const [jobs, setJobs] = useState([])
  const [elsewhere, setElsewhere] = useState([])
  const [at, setAt] = useState(0)
  const dialog = useRef(null)
  useEffect(() => {
    dialog.current.showModal()
    if (withJobs) get("/jobs", {view: "info"}).then((answer) => setJobs(answer.jobs), () => {})
  }, [])
  useEffect(() => {
    if (withJobs) return
    const abort = new AbortController()
    const search = (kind) => get("/search", {kind, q: query.trim(), limit: MOST}, {signal: abort.signal}).then((answer) => answer.items)
    Promise.all([search("nodes"), search("jobs")]).then(([nodes, found]) => setElsewhere([
      ...nodes.filter((node) => node.id).map((node) => ({key: node.key, text: plainText(node.name), hint: `node, ${node.status}`, run: () => (location.hash = href([], {}, node.id))})),
      ...found.filter((job) => job.node_id).map((job) => ({key: job.key, text: `${plainText(job.name)} on ${plainText(job.node)}`, hint: job.state === "none" ? "no process" : job.state, run: () => (location.hash = href(["jobs", job.name], {}, job.node_id))})),
    ]), () => {})
    return () => abort.abort()
  }, [query])
  const close = () => (paletteOpen.value = false)
  const found = useMemo(() => {
    const all = [
      ...pages.map((page) => ({text: page.label, hint: "page", run: () => (location.hash = page.href)})),
      ...jobs.flatMap((job) => [
        {text: job.name, hint: job.state, run: () => (location.hash = href(["jobs", job.name]))},
        {text: `${job.name} logs`, hint: "logs", run: () => (location.hash = href(["jobs", job.name, "logs"]))},
        ...(query && may("control") ? ACTIONS.filter((action) => action.applies(job)).map((action) => ({text: `${action.label.toLowerCase()} ${job.name}`, hint: "action…", run: () => confirmAction(action, [job])})) : []),
      ]),
    ]
    const wanted = query.trim().toLowerCase()
    return [...all, ...elsewhere]
      .map((each) => ({...each, score: wanted ? score(each.text, wanted) : 0}))
      .filter((each) => each.score !== null)
      .sort((a, b) => a.score - b.score || a.text.length - b.text.length)
      .slice(0, MOST)
  }, [query, jobs, elsewhere])

  function onKeyDown(event) {
    if (event.key === "ArrowDown") setAt((at + 1) % Math.max(1, found.length))
    else if (event.key === "ArrowUp") setAt((at + found.length - 1) % Math.max(1, found.length))
    else if (event.key === "Enter") choose(found[at])
    else return
    event.preventDefault()
  }
  function choose(item) {
    if (!item) return
    close()
    item.run()
  }
  return html`<dialog class="palette" ref=${dialog} aria-label="Jump to" onClose=${close} onMouseDown=${(event) => event.target === dialog.current && close()}>
    <input autofocus role="combobox" aria-expanded="true" aria-controls="found" aria-activedescendant=${found.length ? `found-${at}` : null} aria-label=${withJobs ? "Jump to a job, a page or an action" : "Jump to a node, a job or a page"} placeholder=${withJobs ? "Job, page or action" : "Node, job or page"} value=${query} onKeyDown=${onKeyDown} onInput=${(event) => { setQuery(event.target.value); setAt(0) }} />
    <ul id="found" role="listbox" aria-label="Found">${found.map((item, index) => html`<li key=${item.key ?? item.text + item.hint} id=${`found-${index}`} role="option" aria-selected=${index === at} onClick=${() => choose(item)}><span>${item.text}</span><small>${item.hint}</small></li>`)}
      ${found.length === 0 && html`<li class="dim" role="option" aria-selected="false">Nothing found</li>`}</ul>
  </dialog>`
}
