// One action on jobs of several nodes. lookupd knows too little of jobs and has no rights on nodes, so each node is asked first: how
// its job is, and whether this page may act there. What can't be asked is named and left out.
import {actionNamed} from "./actions.js"
import {plainText} from "./ansi.js"
import {act, explain, get, home, jobPath, NoAnswer, tryKey} from "./api.js"
import {Copy, Field, whatFailed} from "./confirm.js"
import {announce, closeDialog, openDialog} from "./dialog.js"
import {plural} from "./format.js"
import {html, useEffect, useRef, useState} from "./lib.js"
import {State} from "./parts.js"
import {href} from "./route.js"

export const CLUSTER_ACTIONS = ["start", "restart", "restart-now", "scale", "stop"].map(actionNamed)

const LOOK = 8000 // ms for the answer of a node before the action
const AT_ONCE = 6 // nodes
const ROLLOUT = 300_000 // ms for a rolling restart on one node, as in `gaffer restart`
const POLL = 500 // ms

// `rows` are jobs as lookupd lists them.
export function confirmOnNodes(action, rows) {
  openDialog(() => html`<${Confirmation} action=${action} rows=${rows} />`)
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))
const baseOf = (row) => new URL("./", row.origin)
const quote = (text) => (/^[\w.,:=+/@%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)

// Runs `task` for each item, for a few of them at a time.
async function forEach(items, task) {
  const rest = [...items]
  await Promise.all(Array.from({length: AT_ONCE}, async () => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await task(item)
  }))
}

function byNode(targets) {
  const nodes = new Map()
  for (const target of targets) nodes.set(target.node_id, [...(nodes.get(target.node_id) ?? []), target])
  return [...nodes.values()]
}

// The commands that do the same: one for all nodes with the same jobs.
function commandsOf(action, targets, values) {
  const groups = new Map()
  for (const jobs of byNode(targets)) {
    const names = jobs.map((each) => each.name).sort().join(" ")
    groups.set(names, [...(groups.get(names) ?? []), jobs])
  }
  return [...groups.values()].flatMap((nodes) => {
    const chosen = nodes.map(([{node, node_id, ambiguous}]) => ` --node=${quote(ambiguous ? node_id : node)}`).join("")
    const calls = action.id === "scale" ? nodes[0].map((job) => [job]) : [nodes[0]]
    return calls.map((jobs) => `${action.command(jobs, values)}${chosen} --lookupd=${home.origin}`)
  })
}

// How far a rolling restart of a job is: {done, text}. Throws Error if it has failed.
function progressOf(job) {
  const {rollout} = job
  if (rollout?.kind === "restart") {
    if (rollout.state === "failed") throw new Error(rollout.reason ?? "a new process did not become ready")
    return {done: rollout.state === "done", text: `${rollout.replaced} of ${rollout.processes} replaced`}
  }
  if (job.state === "failed") throw new Error(`the job has failed: ${job.reason ?? "no reason given"}`)
  const ready = job.instances.filter((each) => each.slot > 0 && ["ready", "running"].includes(each.state)).length
  return {done: job.state === "completed" || ready >= job.max_processes, text: `${ready} of ${job.max_processes} ready`}
}

function Confirmation({action, rows}) {
  const [found, setFound] = useState(() => new Map()) // by key: {job} or {error}
  const results = useRef(new Map()) // by key: {target, kind, text}
  const [outcomes, setOutcomes] = useState(results.current)
  const [values, setValues] = useState(null)
  const [phase, setPhase] = useState("asking") // "asking", "asked", "acting", "done"
  const open = useRef(true)
  const names = rows.map((row) => row.node)
  const targets = rows.map((row) => ({...row, ambiguous: rows.some((other) => other.node === row.node && other.node_id !== row.node_id)}))
  const jobOf = (target) => ({...target, ...found.get(target.key)?.job})
  const known = targets.filter((target) => found.get(target.key)?.job)
  const usable = known.filter((target) => action.applies(jobOf(target)))
  const locked = targets.filter((target) => ["auth_required", "token_required"].includes(found.get(target.key)?.error?.code))
  const fields = known.length > 0 ? action.fields?.(jobOf(known[0]), values ?? {}) ?? [] : []
  const chosen = values ?? Object.fromEntries(fields.map((field) => [field.name, field.value]))
  const rolling = action.id === "restart"

  function note(target, kind, text) {
    results.current.set(target.key, {target, kind, text})
    setOutcomes(new Map(results.current))
  }

  async function look(wanted) {
    setPhase("asking")
    await forEach(byNode(wanted), async (jobs) => {
      let failure = null
      for (const target of jobs) {
        let answer = {error: failure}
        try {
          if (failure === null) answer = {job: await get(jobPath(target.name), {}, {base: baseOf(target), limit: LOOK})}
        } catch (error) {
          answer = {error}
          if (error.status !== 404) failure = error
        }
        setFound((old) => new Map(old).set(target.key, answer))
      }
    })
    setPhase("asked")
  }
  useEffect(() => {
    look(targets)
    return () => (open.current = false)
  }, [])

  // Acts on the jobs of one node, one after the other; returns whether all went well.
  async function actOn(jobs) {
    for (const [index, target] of jobs.entries()) {
      const base = baseOf(target)
      const {method = "POST", path, ...options} = action.request(jobOf(target), chosen)
      note(target, "busy", "sending…")
      try {
        await act(method, path, {...options, base})
        if (rolling) await awaitRollout(target, base)
        note(target, "good", rolling ? "replaced" : "accepted")
      } catch (error) {
        note(target, error instanceof NoAnswer ? "warn" : "bad", whatFailed(error, base))
        const why = error instanceof NoAnswer ? "the node does not answer" : "the one before failed"
        if (rolling || error instanceof NoAnswer) for (const left of jobs.slice(index + 1)) note(left, "warn", `not done: ${why}`)
        if (rolling || error instanceof NoAnswer) return false
      }
    }
    return true
  }

  async function awaitRollout(target, base) {
    const end = Date.now() + ROLLOUT
    for (let silent = null; ; ) {
      try {
        const {done, text} = progressOf(await get(jobPath(target.name), {}, {base, limit: LOOK}))
        silent = null
        if (done) return
        note(target, "busy", `${text}…`)
      } catch (error) {
        if (error.status || error.constructor === Error) throw error
        silent ??= Date.now() // a node that is away for a moment may come back
        note(target, "busy", "accepted, but the node does not answer now…")
        if (Date.now() - silent > 2 * LOOK) throw new Error("it was accepted, but the node does not answer any more: look whether its processes are ready")
      }
      if (Date.now() > end) throw new Error(`not finished after ${ROLLOUT / 1000} s; it goes on`)
      await pause(POLL)
    }
  }

  async function submit(event) {
    event.preventDefault()
    if (phase !== "asked" || usable.length === 0) return
    setPhase("acting")
    const nodes = byNode(usable)
    let failed = null
    if (rolling) {
      for (const jobs of nodes) {
        if (failed === null && open.current && (await actOn(jobs))) continue
        if (failed === null && open.current) failed = jobs[0].node
        else for (const job of jobs) note(job, "warn", open.current ? `not done, since ${failed} failed` : "not done: the dialog was closed")
      }
    } else {
      await forEach(nodes, actOn)
    }
    setPhase("done")
    if (open.current) return
    const bad = [...results.current.values()].filter((each) => each.kind !== "good")
    announce(`${action.label}: accepted for ${usable.length - bad.length} of ${plural(usable.length, "job")}${bad.slice(0, 3).map(({target, text}) => `; ${target.name} on ${target.node}: ${text}`).join("")}`, bad.length ? "bad" : "info")
  }

  const counts = (kind) => [...outcomes.values()].filter((each) => each.kind === kind).length
  const problems = phase === "done" ? usable.length - counts("good") : 0
  const nodes = new Set(names).size
  const commands = usable.length > 0 ? commandsOf(action, usable, chosen) : []
  return html`<div class="confirm many">
    <h2 id="dialog-title">${action.label}: ${plural(rows.length, "job")} on ${plural(nodes, "node")}</h2>
    <ul class="target-list" aria-label="Targets">${targets.map((target) => html`<${Target} key=${target.key} target=${target} answer=${found.get(target.key)} outcome=${outcomes.get(target.key)} applies=${usable.includes(target)} />`)}</ul>
    ${phase === "asked" && locked.length > 0 && html`<${Keys} targets=${locked} done=${look} />`}
    <form onSubmit=${submit}>
      ${usable.length > 0 && phase !== "done" && html`
        ${fields.map((field) => html`<${Field} key=${field.name} field=${field} value=${chosen[field.name]} onChange=${(value) => setValues({...chosen, [field.name]: value})} />`)}
        <p>${action.effect(usable.map(jobOf), chosen)}${rolling && nodes > 1 ? " One node after the other; it stops at the first that fails. Keep this page open until it is done." : ""}</p>
        ${commands.map((command) => html`<div class="command" key=${command}><code>${command}</code><${Copy} text=${command} /></div>`)}`}
      ${phase === "asked" && usable.length === 0 && html`<p>Nothing to do: none of these jobs can be asked, or none is in a state for this.</p>`}
      ${phase === "done" && html`<p role="status">${problems === 0 ? usable.length === 1 ? "Accepted." : `Accepted for all ${usable.length} jobs.` : html`<b class="bad">Accepted for ${counts("good")} of ${plural(usable.length, "job")}.</b> What has not answered may have been done: look before you repeat it.`}</p>`}
      <footer>
        <button type="button" onClick=${closeDialog}>${phase === "acting" && rolling ? "Stop after this node" : phase === "acting" || phase === "done" ? "Close" : "Cancel"}</button>
        ${phase !== "done" && html`<button class=${action.danger ? "danger" : "primary"} disabled=${phase !== "asked" || usable.length === 0}>${phase === "asking" ? "Asking the nodes…" : phase === "acting" ? "Sending…" : `${action.label}: ${plural(usable.length, "job")}`}</button>`}
      </footer>
    </form>
  </div>`
}

function Target({target, answer, outcome, applies}) {
  const link = href(["jobs", target.name], {}, target.node_id)
  const text = outcome
    ? html`<${State} state=${outcome.text} kind=${outcome.kind} />`
    : !answer
      ? html`<span class="dim">asking…</span>`
      : answer.error
        ? html`<${State} state=${`left out: ${explain(answer.error, baseOf(target))}`} kind="bad" />`
        : html`<span class="dim">${answer.job.state}, ${answer.job.running} of ${answer.job.max_processes}${applies ? "" : ": left out, nothing to do"}</span>`
  return html`<li><a class="job" href=${link} target="_blank">${plainText(target.name)}</a> on <b>${plainText(target.node)}</b> <small>${target.origin}</small> ${text}</li>`
}

// Keys are sent to the nodes that are listed, and to no others.
function Keys({targets, done}) {
  const [problem, setProblem] = useState(null)
  const origins = [...new Set(targets.map((target) => baseOf(target).origin))]
  async function submit(event) {
    event.preventDefault()
    const field = event.target.elements["node-key"]
    const key = field.value.trim()
    field.value = ""
    const refused = []
    await forEach(origins, async (origin) => {
      try {
        await tryKey(key, new URL("./", origin))
      } catch {
        refused.push(origin)
      }
    })
    setProblem(refused.length ? `Not accepted by ${refused.join(", ")}` : null)
    await done(targets)
  }
  return html`<form class="keys" onSubmit=${submit} aria-label="Key of the nodes">
    <label for="node-key">${origins.length === 1 ? `${origins[0]} asks` : `${origins.length} nodes ask`} for a key</label>
    <p>It is sent to <strong>${origins.join(", ")}</strong> and to no other address, and forgotten when this page is left.${origins.some((origin) => origin.startsWith("http:")) ? " Connections over http are not encrypted." : ""}</p>
    <div><input id="node-key" name="node-key" type="password" autocomplete="off" required /><button>Use this key</button></div>
    ${problem && html`<p class="bad" role="alert">${problem}</p>`}
  </form>`
}
