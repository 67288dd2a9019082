// The node itself: how it is, which lookupds know it, and taking it out of service.
import {explain, get, may, root} from "./api.js"
import {confirmAction} from "./confirm.js"
import {duration, number, plural} from "./format.js"
import {html, useEffect, useInterval, useState} from "./lib.js"
import {listen, paced} from "./events.js"
import {Age, Empty, Problem, State, Time} from "./parts.js"

const EVERY = 5000 // ms

const DRAIN = {
  label: "Drain",
  danger: true,
  effect: ([node]) => `Takes the node out of service: lookupds stop listing it, then ${plural(node.processes, "process", "processes")} end. Jobs wait until it is back in service.`,
  request: () => ({path: "/drain", body: {}}),
  command: () => "gaffer drain",
}
const UNDRAIN = {
  label: "Put back into service",
  title: ([node]) => `Put ${node.name} back into service`,
  effect: () => "Jobs of the node start again.",
  request: () => ({method: "DELETE", path: "/drain"}),
  command: () => "gaffer undrain",
}
const UPGRADE = {
  label: "Upgrade",
  danger: true,
  effect: ([node]) => `Replaces gafferd by the version that is installed on the host. ${plural(node.processes, "process", "processes")} keep running; this page reconnects.`,
  request: () => ({path: "/upgrade", body: {}}),
  command: () => "gaffer upgrade",
}

export function NodePage() {
  const [found, setFound] = useState({health: null, drain: null, at: null, error: null})
  async function refresh() {
    try {
      const [health, drain] = await Promise.all([get("/health"), get("/drain")])
      setFound({health, drain, at: Date.now(), error: null})
    } catch (error) {
      setFound((last) => ({...last, error}))
    }
  }
  useEffect(() => {
    refresh()
    const request = paced(refresh, 300)
    const stop = listen(request, request)
    return () => {
      stop()
      request.cancel()
    }
  }, [])
  useInterval(refresh, EVERY)
  const {health, drain, at, error} = found
  if (health === null) return html`<section class="page">${error ? html`<${Problem} error=${error} />` : html`<${Empty}>Loading…<//>`}</section>`
  const name = health.name ?? root.host
  const target = {name, processes: health.processes}
  const state = drain.drained ? "drained" : drain.draining ? "draining" : "in service"
  return html`<section class="page" aria-label="Node">
    <header class="job-head"><h1>${name}</h1><${State} state=${state} kind=${{"in service": "good", draining: "busy", drained: "warn"}[state]} />
      <span class="facts"><b>${number(health.jobs)}</b> jobs<span class="sep">·</span><b>${number(health.processes)}</b> processes</span>
      <span class="grow"></span>
      ${may("control") && html`<div class="actions">
        ${drain.draining ? html`<button onClick=${() => confirmAction(UNDRAIN, [target])}>Put back into service</button>` : html`<button class="danger-text" onClick=${() => confirmAction(DRAIN, [target])}>Drain</button>`}
        ${may("define") && health.keeper && html`<button onClick=${() => confirmAction(UPGRADE, [target])}>Upgrade</button>`}</div>`}
    </header>
    <ul class="remarks">
      ${error && html`<li class="warn">${explain(error)} What you see is from <${Age} at=${at} />.</li>`}
      ${state === "draining" && html`<li class="busy">Draining: ${plural(drain.processes, "process", "processes")} still running.</li>`}
      ${state === "drained" && html`<li class="warn">Out of service: jobs wait, and lookup servers do not list the node, until it is put back.</li>`}
      ${health.state_error && html`<li class="bad">The state directory can't be written: ${health.state_error}</li>`}
      ${health.keeper?.error && html`<li class="bad">Keeper: ${health.keeper.error}</li>`}
      ${health.lookupds.filter((each) => !each.connected).map((each) => html`<li class="bad" key=${each.address}>Not connected to ${each.address}${each.error ? `: ${each.error}` : ""}. The cluster does not see this node there.</li>`)}
    </ul>
    <div class="overview">
      <section class="block"><h2>gafferd</h2><dl class="facts-list">
        <dt>address</dt><dd>${root.host}</dd>
        <dt>version</dt><dd>${health.version}</dd>
        <dt>pid</dt><dd>${health.pid}</dd>
        <dt>uptime</dt><dd>${duration(health.uptime)}</dd>
        <dt>keeper</dt><dd>${health.keeper ? html`pid ${health.keeper.pid}, since <${Time} at=${health.keeper.since} />: processes outlive gafferd` : "none: processes end with gafferd"}</dd>
      </dl></section>
      <section class="block"><h2>Lookup servers</h2>${health.lookupds.length === 0 ? html`<p class="dim">The node announces itself to none.</p>` : html`<table class="list fitting"><thead><tr><th>State</th><th>Address</th></tr></thead>
        <tbody>${health.lookupds.map((each) => html`<tr key=${each.address}><td><${State} state=${each.connected ? "connected" : "not connected"} kind=${each.connected ? "good" : "bad"} /></td><td>${each.address}</td></tr>`)}</tbody></table>`}</section>
    </div>
  </section>`
}
