// Which lookupds there are, and whether they agree. Lookupds do not know each other. Nodes know theirs and report how each connection
// is; and the page asks the other lookupds itself, without keys, where they allow its origin.
import {plainText} from "./ansi.js"
import {explain, get, home, NoAnswer} from "./api.js"
import {duration, number, plural} from "./format.js"
import {html, useEffect, useInterval, useRef, useState, useValue} from "./lib.js"
import {Age, Empty, Problem, State, Time} from "./parts.js"
import {href, route, setQuery} from "./route.js"
import {connection, lost} from "./stream.js"

const LIMIT = 4000 // ms for an answer: one that hangs must not hold up the others
const EVERY = 10_000 // ms
const SOON = 1500 // ms until a difference is looked at again, since the lists are not of the same moment
const MOST = 200 // differences that are listed

// The other lookupds as the nodes report them, for the page of the nodes.
export function LookupdStrip() {
  const [found, setFound] = useState(null)
  const refresh = () => get("/lookupds", {}, {limit: LIMIT}).then(setFound, () => {}) // the list says that lookupd is silent
  useEffect(() => void refresh(), [])
  useInterval(refresh, EVERY)
  const others = found?.lookupds.filter((each) => !each.own) ?? []
  if (others.length === 0) return null
  const lacking = others.filter((each) => each.connected < each.nodes)
  const text = lacking.length === 0
    ? html`<${State} state=${`${plural(others.length + 1, "lookupd")}, with all their nodes`} kind="good" />`
    : html`<${State} state=${lacking.map((each) => `${each.address} lacks ${number(each.nodes - each.connected)} of ${plural(each.nodes, "node")}`).join("; ")} kind="bad" />`
  return html`<a class="strip" href=${href(["lookupds"])}>${text}</a>`
}

const keyOf = (node) => node.id ?? `${node.name}@${node.origin}`

function asBase(address) {
  try {
    const base = new URL("./", address)
    return ["http:", "https:"].includes(base.protocol) ? base : null
  } catch {
    return null
  }
}

// The nodes as one lookupd knows them: {at, nodes, removed, stale, warming, seqs}; `seqs` are those of the answer before.
async function ask(base, before) {
  const answer = await get("/nodes", {}, {base, limit: LIMIT})
  return {
    at: Date.now(),
    epoch: answer.epoch,
    stale: answer.stale,
    warming: answer.warming,
    nodes: new Map(answer.nodes.map((node) => [keyOf(node), node])),
    removed: new Map((answer.tombstones ?? []).map((each) => [each.id, each.reason])),
    seqs: before?.nodes ?? new Map(),
  }
}

// How `there` differs from `here` about one node, as text; null if it does not.
function difference(key, here, there) {
  const mine = here.nodes.get(key)
  const its = there.nodes.get(key)
  if (!its) return there.removed.has(key) ? `removed there (${there.removed.get(key)})` : "missing there"
  if (!mine) return here.removed.has(key) ? `removed here (${here.removed.get(key)})` : "missing here"
  if (its.incarnation < mine.incarnation) return "knows an earlier start of the node"
  if (its.incarnation > mine.incarnation) return "knows a later start of the node"
  if (its.status !== mine.status) return `${its.status} there`
  if (its.draining !== mine.draining) return its.draining ? "draining there" : "in service there"
  // What was known here before the last answer must be known there by now, and the other way round.
  if (its.seq < (here.seqs.get(key)?.seq ?? 0)) return "is behind: lacks its latest changes"
  if (mine.seq < (there.seqs.get(key)?.seq ?? 0)) return "is ahead: this one lacks the latest changes"
  return null
}

function compare(here, peers) {
  const found = new Map()
  for (const [address, {answer}] of peers) {
    if (!answer || !here) continue
    for (const key of new Set([...here.nodes.keys(), ...answer.nodes.keys()])) {
      const text = difference(key, here, answer)
      if (text !== null) found.set(`${address} ${key}`, {address, key, text, node: here.nodes.get(key) ?? answer.nodes.get(key), here: here.nodes.get(key)})
    }
  }
  return found
}

// Returns {reported, here, peers, differences, error}. Peers are by address: {answer, error, asked}.
function useLookupds(given) {
  const [state, setState] = useState({reported: null, reportedAt: null, here: null, peers: new Map(), differences: [], error: null})
  const memory = useRef({here: null, peers: new Map(), suspects: new Map(), running: false, ended: false})
  async function refresh() {
    const known = memory.current
    if (known.running || known.ended) return
    known.running = true
    try {
      const [reported, here] = await Promise.all([get("/lookupds", {}, {limit: LIMIT}), ask(home, known.here)])
      known.here = here
      connection.value = {state: "open", since: null, error: null}
      const total = here.nodes.size
      const addresses = reported.lookupds.filter((each) => !each.own).map((each) => each.address)
      // One node alone can't make the page call an address: most nodes have to announce to it, or the user has asked for it.
      const trusted = (address) => given.includes(address) || reported.lookupds.some((each) => each.address === address && 2 * each.nodes > total)
      const wanted = [...new Set([...addresses, ...given])]
      known.peers = new Map(wanted.map((address) => [address, {answer: null, error: null, ...known.peers.get(address), asked: trusted(address)}]))
      const show = (differences) => known.ended || setState((last) => ({...last, reported, reportedAt: here.at, here, peers: new Map(known.peers), error: null, ...(differences && {differences})}))
      show(null)
      await Promise.all([...known.peers].filter(([, peer]) => peer.asked).map(async ([address, peer]) => {
        const base = asBase(address)
        try {
          if (base === null) throw new Error("no address for a browser")
          const answer = await ask(base, peer.answer)
          known.peers.set(address, {answer, error: null, asked: true})
        } catch (error) {
          known.peers.set(address, {...peer, error})
        }
        show(null)
      }))
      const fresh = new Map([...known.peers].filter(([, peer]) => peer.error === null))
      const found = compare(here, fresh)
      const confirmed = []
      let doubtful = false
      for (const [id, each] of found) {
        const earlier = known.suspects.get(id)
        const since = earlier?.text === each.text ? earlier.since : Date.now()
        each.since = since
        if (earlier?.text === each.text) confirmed.push(each)
        else doubtful = true
      }
      known.suspects = found
      show(confirmed)
      if (doubtful && !known.ended) known.timer = setTimeout(refresh, SOON)
    } catch (error) {
      if (known.ended) return
      setState((last) => ({...last, error}))
      if (error.status) connection.value = {state: "refused", since: null, error}
      else lost(error)
    } finally {
      known.running = false
    }
  }
  useEffect(() => {
    const known = memory.current
    refresh()
    return () => {
      known.ended = true
      clearTimeout(known.timer)
    }
  }, [given.join(" ")])
  useInterval(refresh, EVERY)
  return state
}

export function LookupdsPage() {
  const {query} = useValue(route)
  const given = query.getAll("lookupd").flatMap((each) => each.split(",")).filter(Boolean)
  return html`<${Lookupds} key=${given.join(",")} given=${given} />`
}

function Lookupds({given}) {
  const {reported, here, peers, differences, error} = useLookupds(given)
  const add = (address) => setQuery({lookupd: [...new Set([...given, address])].join(",")})
  function submit(event) {
    event.preventDefault()
    const base = asBase(event.target.elements.lookupd.value.trim())
    if (base) add(base.origin)
  }
  const byAddress = new Map(reported?.lookupds.map((each) => [each.address, each]))
  const own = reported?.lookupds.find((each) => each.own)
  const asked = [...peers.values()].filter((peer) => peer.answer && !peer.error).length
  return html`<section class="page" aria-label="Lookupds"><h1 class="hidden">Lookupds</h1>
    <form class="toolbar" onSubmit=${submit}><input name="lookupd" type="url" placeholder="http://HOST:5010" aria-label="Address of another lookupd" required /><button>Compare with this lookupd too</button>
      <span class="dim">Lookupds do not talk to each other: nodes announce to each of them.</span></form>
    ${error && html`<${Problem} error=${error} />${here && html`<p class="dim">What you see is from <${Age} at=${here.at} />.</p>`}`}
    ${here === null && !error && html`<${Empty}>Asking the lookupds…<//>`}
    ${here !== null && html`<table class="list lookupds"><caption class="hidden">Lookupds</caption><thead><tr><th>State</th><th>Lookupd</th><th>Reported by nodes</th><th class="num">Known nodes</th><th class="num">Suspect</th><th class="num">Answered</th></tr></thead>
      <tbody><${Row} address=${own?.address ?? home.origin} note="serves this page" word=${own} peer=${{answer: here, error: null, asked: true}} />
      ${[...peers].map(([address, peer]) => html`<${Row} key=${address} address=${address} word=${byAddress.get(address)} peer=${peer} add=${add} />`)}</tbody></table>
      ${peers.size === 0 && html`<p class="dim">${here.nodes.size === 0 ? "No node is known here." : reported.silent === here.nodes.size ? "The nodes do not report their lookupds: they run an earlier version." : "All nodes announce to this lookupd alone."}</p>`}
      ${reported.silent > 0 && reported.silent < here.nodes.size && html`<p class="dim">${plural(reported.silent, "node")} of ${number(here.nodes.size)} report no lookupds.</p>`}
      ${reported.left_off > 0 && html`<p class="dim">${plural(reported.left_off, "further address", "further addresses")} that few nodes announce to ${reported.left_off === 1 ? "is" : "are"} not listed.</p>`}
      <${Missing} lookupds=${reported.lookupds} />
      ${asked > 0 && html`<${Differences} differences=${differences} here=${here} peers=${peers} />`}`}
  </section>`
}

function Row({address, note, word, peer, add}) {
  const {answer, error, asked} = peer
  const [state, kind] = error instanceof NoAnswer ? ["hangs", "bad"] : error?.status ? ["refuses", "warn"] : error ? ["not reachable from here", "warn"] : !asked ? ["not asked", "idle"] : answer === null ? ["asking…", "idle"] : answer.warming ? ["warming", "busy"] : answer.stale ? ["stale", "warn"] : ["answers", "good"]
  const suspect = answer ? [...answer.nodes.values()].filter((node) => node.status === "suspect").length : 0
  const base = asBase(address)
  const lacking = word ? word.nodes - word.connected : 0
  const other = word?.epoch && answer && !error && word.epoch !== answer.epoch
  return html`<tr class=${kind === "bad" || lacking ? "bad" : ""}>
    <td><${State} state=${state} kind=${kind} /></td>
    <td class="c-address">${base && !note ? html`<a href=${new URL("ui/", base).href} target="_blank" rel="noopener noreferrer">${address} ↗</a>` : address}${note && html` <small>${note}</small>`}
      ${error && html`<br /><small class="warn-text">${error.status === 401 ? "It asks for a key, and this page sends it none. Its own dashboard does." : base ? explain(error, base) : error.message}</small>`}
      ${other && html`<br /><small class="warn-text">It is not the lookupd that the nodes mean by this address, or it has just started.</small>`}
      ${!asked && html`<br /><small>Few nodes announce to it. <button class="link" onClick=${() => add(address)}>Ask it from this page</button> It gets no key.</small>`}</td>
    <td>${!word ? html`<span class="dim">nothing</span>` : lacking ? html`<b class="bad">${number(lacking)} of ${plural(word.nodes, "node")} not connected</b>` : html`${plural(word.connected, "node")} connected`}</td>
    <td class="num" data-label="nodes known">${answer ? number(answer.nodes.size) : "–"}</td>
    <td class="num" data-label="suspect">${answer ? number(suspect) : "–"}</td>
    <td class="num age" data-label="answered">${answer ? html`<${Age} at=${answer.at} />` : "–"}</td>
  </tr>`
}

// Which nodes are not connected to which lookupd, as these nodes say.
function Missing({lookupds}) {
  const rows = lookupds.flatMap(({address, missing}) => missing.map((node) => ({address, ...node})))
  if (rows.length === 0) return null
  const hidden = lookupds.reduce((sum, each) => sum + each.nodes - each.connected - each.missing.length, 0)
  return html`<section class="block"><h2>Nodes that are not connected <small>as they report</small></h2>
    <table class="list"><thead><tr><th>Node</th><th>Lookupd</th><th>Since</th><th>Reason</th><th class="num">Last heard</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${`${row.address} ${row.id ?? row.name}`}><td>${row.id ? html`<a class="job" href=${href(["node"], {}, row.id)}>${plainText(row.name)}</a>` : plainText(row.name)}</td><td>${row.address}</td><td><${Time} at=${row.since} /></td><td class="c-reason-text">${plainText(row.error ?? "not connected yet")}</td><td class="num" data-label="heard">${duration(row.age_ms / 1000)} ago</td></tr>`)}</tbody></table>
    ${hidden > 0 && html`<p class="dim">${plural(hidden, "further node")}.</p>`}</section>`
}

function Differences({differences, here, peers}) {
  const compared = [...peers].filter(([, peer]) => peer.answer && !peer.error)
  if (differences.length === 0) return html`<p class="agreement"><${State} state=${`This lookupd and ${compared.map(([address]) => address).join(", ")} agree on ${plural(here.nodes.size, "node")}.`} kind="good" /></p>`
  return html`<section class="block"><h2>${plural(differences.length, "difference")} between the lookupds</h2>
    <table class="list"><thead><tr><th>Node</th><th>Here</th><th>Lookupd</th><th>Difference</th><th class="num">For</th></tr></thead>
    <tbody>${differences.slice(0, MOST).map((each) => html`<tr key=${`${each.address} ${each.key}`} class="bad"><td>${plainText(each.node.name)}</td><td>${each.here ? html`<${State} state=${each.here.status} />` : html`<span class="dim">–</span>`}</td><td>${each.address}</td><td>${each.text}</td><td class="num"><${Age} at=${each.since} suffix="" /></td></tr>`)}</tbody></table>
    ${differences.length > MOST && html`<p class="dim">${number(differences.length - MOST)} more.</p>`}</section>`
}
