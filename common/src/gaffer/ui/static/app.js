// The shell of the dashboard: what serves it, where one is, keys that work everywhere.
import {plainText} from "./ansi.js"
import {allowance, askForKey, callAt, get, home, isGuest, loadAllowance, logOut, needsLogin, root, setNodeName, whereabouts} from "./api.js"
import {Dialog, Messages} from "./dialog.js"
import {html, render, useEffect, useState, useValue} from "./lib.js"
import {Login} from "./login.js"
import {followHistory, pageOf} from "./navigation.js"
import {Palette, paletteOpen} from "./palette.js"
import {Age, Connection, Empty, Problem} from "./parts.js"
import {href, route} from "./route.js"
import {connection, NO_STREAM} from "./stream.js"

const NODE_PAGES = [
  {id: "jobs", label: "Jobs", load: async () => (await import("./jobs.js")).JobsPage},
  {id: "order", label: "Order", load: async () => (await import("./order.js")).OrderPage},
  {id: "history", label: "History", load: async () => (await import("./history.js")).HistoryPage},
  {id: "logs", label: "Logs of several jobs", aside: true, load: async () => (await import("./logs.js")).LogsPage},
  {id: "node", label: "Node", load: async () => (await import("./node.js")).NodePage},
]
const CLUSTER_PAGES = [
  {id: "nodes", label: "Nodes", load: async () => (await import("./cluster.js")).NodesPage},
  {id: "jobs", label: "Jobs", load: async () => (await import("./cluster.js")).ClusterJobsPage},
  {id: "events", label: "Events", load: async () => (await import("./cluster_events.js")).ClusterEventsPage},
  {id: "lookupds", label: "Lookupds", load: async () => (await import("./lookupds.js")).LookupdsPage},
]
const JOB_PAGE = {id: "job", load: async () => (await import("./job.js")).JobPage}

function App() {
  const {at} = useValue(route)
  return html`<${Site} key=${at ?? ""} at=${at} />`
}

// What one daemon shows: the one that serves the page, or, `at` its id, a node of a cluster.
function Site({at}) {
  const [found, setFound] = useState({health: null, node: null})
  const [error, setError] = useState(null)
  const login = useValue(needsLogin)
  async function begin() {
    try {
      const node = at === null ? null : await get(`/nodes/${encodeURIComponent(at)}`, {}, {base: home})
      callAt(node?.origin ?? null)
      setFound({health: null, node})
      const health = await get("/health")
      setNodeName(health.name ?? null)
      await loadAllowance()
      setFound({health, node})
      setError(null)
    } catch (problem) {
      setError(problem)
    }
  }
  useEffect(() => void begin(), [])
  useEffect(() => {
    if (error === null || error.status) return
    const timer = setTimeout(begin, 2000)
    return () => clearTimeout(timer)
  }, [error])
  const {health, node} = found
  if (health === null) {
    return html`<header class="top"><${Brand} /></header><main><${Login} onDone=${begin} />${node && !error && !login && html`<${Empty}>Asking ${plainText(node.name)} at ${root.host}…<//>`}${error && !login && html`<div class="page"><${Problem} error=${error} retry=${begin} />
      ${node && html`<p><a href=${new URL("ui/", root).href} target="_blank" rel="noopener noreferrer">Open the dashboard of ${plainText(node.name)} itself ↗</a></p>`}</div>`}</main>`
  }
  const cluster = "nodes" in health
  const pages = (cluster ? CLUSTER_PAGES : NODE_PAGES).map((page) => ({...page, href: href([page.id])}))
  return html`<${Shell} pages=${pages} health=${health} cluster=${cluster} node=${node} begin=${begin} />`
}

const Brand = () => html`<a class="brand" href=${href([], {}, null)}>Gaffer</a>`

function Shell({pages, health, cluster, node, begin}) {
  const place = useValue(route)
  const {path} = place
  const granted = useValue(allowance)
  const page = pages.find(({id}) => id === path[0]) ?? pages[0]
  const job = !cluster && path[0] === "jobs" && path[1]
  useEffect(() => {
    if (!job) document.title = `${page.label} · ${health.name ?? root.host} · Gaffer`
  }, [page, job])
  useKeys()
  return html`<header class="top">
      <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus() }}>Skip to the content</a>
      <${Brand} />
      <span class="where" title=${`${cluster ? "cluster" : "node"} ${whereabouts()}, gaffer${cluster ? "_lookupd" : "d"} ${health.version}`}>${node ? html`<a href=${href([], {}, null)}>cluster</a> › node <b>${plainText(node.name)}</b> at <a href=${new URL("ui/", root).href} target="_blank" rel="noopener noreferrer">${root.host} ↗</a>` : health.name ? html`node <b>${health.name}</b> at ${root.host}` : html`${cluster ? "cluster at " : "node "}<b>${root.host}</b>`}</span>
      <nav aria-label="Pages">${pages.filter((each) => !each.aside).map((each) => html`<a key=${each.id} href=${each.href} aria-current=${each === page ? "page" : null}>${each.label}</a>`)}</nav>
      <span class="grow"></span>
      <button class="jump" onClick=${() => (paletteOpen.value = true)}>Jump to… <kbd>Ctrl K</kbd></button>
      <${Connection} source=${connection} />
      ${isGuest() && html`<button onClick=${askForKey}>Log in to act</button>`}
      ${granted?.cookie && html`<button class="quiet" onClick=${logOut}>Log out</button>`}
    </header>
    <main id="main" tabindex="-1">
      <${Login} onDone=${begin} />
      <${Lost} />
      <div key=${pageOf(place)} data-page=${pageOf(place)}>${job ? html`<${Lazy} page=${JOB_PAGE} name=${path[1]} tab=${path[2]} />` : html`<${Lazy} page=${page} />`}</div>
    </main>
    <${Messages} /><${Dialog} /><${Palette} pages=${pages} withJobs=${!cluster} />`
}

// A page whose module is loaded when it is opened.
function Lazy({page, ...properties}) {
  const [Page, setPage] = useState(null)
  const [failed, setFailed] = useState(false)
  useEffect(() => {
    connection.value = NO_STREAM
    page.load().then((found) => setPage(() => found), () => setFailed(true))
  }, [page.id])
  if (failed) return html`<div class="problem" role="alert">This page could not be loaded. <button onClick=${() => location.reload()}>Reload</button></div>`
  return Page === null ? null : html`<${Page} ...${properties} />`
}

function Lost() {
  const {state, since} = useValue(connection)
  if (state !== "lost") return null
  return html`<div class="banner lost" role="alert"><span>The connection to ${root.host} is lost, for <${Age} at=${since} suffix="" />. What you see is as old as that. It comes back by itself.</span></div>`
}

function useKeys() {
  useEffect(() => {
    function onKey(event) {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault()
        paletteOpen.value = !paletteOpen.peek()
      } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.target.closest("input, textarea, select, dialog")) {
        const field = document.getElementById("search")
        if (field === null) return
        event.preventDefault()
        field.focus()
        field.select()
      } else if (event.key === "ArrowDown" && event.target.id === "search") {
        const first = document.querySelector("table.list tbody a")
        if (first === null) return
        event.preventDefault()
        first.focus()
      }
    }
    addEventListener("keydown", onKey)
    return () => removeEventListener("keydown", onKey)
  }, [])
}

followHistory()
render(html`<${App} />`, document.getElementById("app"))
