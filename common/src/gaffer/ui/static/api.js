// The calls to the daemon that serves the page or, from the page of a cluster, to one of its nodes.
import {signal} from "./lib.js"

export const home = new URL("..", import.meta.url) // of the daemon that serves the page
export let root = home // of the daemon that is called
export const needsLogin = signal(null) // the error that asked for a key, or null
export const allowance = signal(null) // the scopes and sessions of the caller, null while unknown

export const ANSWER = 15_000 // ms that a daemon has to answer; streams have their own limit

let nodeName = null // of the node that is called, once known

// Where one is and acts: the address alone may be that of a tunnel, and the same for many nodes.
export const whereabouts = () => (nodeName === null ? root.host : `${nodeName} at ${root.host}`)
export const setNodeName = (name) => (nodeName = name)

const TOKEN = "gaffer-token"
const keys = new Map() // of nodes, by origin: in memory only, and sent only to the node for which each was entered

// Calls a node at its announced origin from now on; null for the daemon that serves the page. Throws TypeError for a bad origin.
export function callAt(origin) {
  const next = origin === null ? home : new URL("./", origin)
  if (!["http:", "https:"].includes(next.protocol)) throw new TypeError(`no address of a node: ${origin}`)
  root = next
  nodeName = null
  allowance.value = null
  needsLogin.value = null
}

export class ApiError extends Error {
  constructor(status, body) {
    super(body.message || `the server answered ${status}`)
    this.status = status
    this.code = body.error || "error"
    this.hint = body.hint || null
  }
}

// The daemon accepted the call, or not: nobody knows.
export class NoAnswer extends Error {
  constructor(milliseconds) {
    super(`no answer after ${milliseconds / 1000} s`)
  }
}

export const token = () => sessionStorage.getItem(TOKEN)

export function url(path, query = {}, base = root) {
  const target = new URL(path.replace(/^\//, ""), base)
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") target.searchParams.set(name, value)
  }
  return target
}

// Sends a request and returns the response. Throws an ApiError for a refusal, TypeError if the server can't be reached.
export async function send(method, path, {query, body, text, headers, signal, base = root} = {}) {
  const content = body !== undefined ? "application/json" : text !== undefined ? "application/octet-stream" : null
  const away = base !== home
  const response = await fetch(url(path, query, base), {
    method,
    credentials: away ? "omit" : "same-origin",
    signal,
    cache: "no-store",
    body: body !== undefined ? JSON.stringify(body) : text,
    headers: {
      ...(content === null ? {} : {"Content-Type": content}),
      ...(away || token() === null ? {} : {"X-Gaffer-Token": token()}),
      ...(away && keys.has(base.origin) ? {Authorization: `Bearer ${keys.get(base.origin)}`} : {}),
      ...headers,
    },
  })
  if (response.ok) return response
  const problem = new ApiError(response.status, await response.json().catch(() => ({})))
  if (["auth_required", "token_required"].includes(problem.code) && base === root) needsLogin.value = problem
  throw problem
}

// Runs `task(signal)`, which is aborted with `outer`. Throws NoAnswer when it has taken `milliseconds`.
async function within(milliseconds, outer, task) {
  const abort = new AbortController()
  const stop = () => abort.abort(outer.reason)
  const timer = setTimeout(() => abort.abort(new NoAnswer(milliseconds)), milliseconds)
  outer?.addEventListener("abort", stop)
  if (outer?.aborted) stop()
  try {
    return await task(abort.signal)
  } finally {
    clearTimeout(timer)
    outer?.removeEventListener("abort", stop)
  }
}

const call = (method, path, {signal, limit = ANSWER, ...options} = {}) =>
  within(limit, signal, async (signal) => (await send(method, path, {...options, signal})).json())

// Changes something. Throws NoAnswer if it is not known whether that was done.
export const act = (method, path, options) => within(ANSWER, null, (signal) => send(method, path, {...options, signal}))

export const get = (path, query, options = {}) => call("GET", path, {query, ...options})

export async function logIn(key) {
  if (root !== home) return logInAway(key)
  const answer = await call("POST", "/auth/session", {body: {}, headers: {Authorization: `Bearer ${key}`}})
  sessionStorage.setItem(TOKEN, answer.token)
  allowance.value = answer
  needsLogin.value = null
}

async function logInAway(key) {
  allowance.value = await tryKey(key, root)
  needsLogin.value = null
}

// Keeps the key of a node at `base` if that accepts it, and returns what it allows. Throws ApiError.
export async function tryKey(key, base) {
  keys.set(base.origin, key)
  try {
    return await get("/auth/session", {}, {base})
  } catch (error) {
    keys.delete(base.origin)
    throw error
  }
}

export async function logOut() {
  await call("DELETE", "/auth/session")
  sessionStorage.removeItem(TOKEN)
  location.reload()
}

export async function loadAllowance() {
  allowance.value = await get("/auth/session")
}

// Whether another tab logged in: with the cookie but without the token, this one only reads.
export const isGuest = () => Boolean(allowance.value?.cookie) && root === home && token() === null

export function askForKey() {
  needsLogin.value = {message: "This tab may only read: another tab has logged in. With the key it may do what the key allows."}
}

export const may = (scope) => allowance.value === null || allowance.value.scopes.includes(scope)

export const jobPath = (name) => "/jobs/" + name.split(".").map(encodeURIComponent).join("/")

// What to write on the screen about an error of a call to `base`.
export function explain(error, base = root) {
  if (error instanceof NoAnswer) return `${base.host}: ${error.message}.`
  if (!(error instanceof ApiError)) {
    if (base.origin === home.origin) return "The server can't be reached."
    if (home.protocol === "https:" && base.protocol === "http:") return `Browsers let a page of https not call ${base.origin}.`
    return `${base.origin} can't be reached from this page. Is it down, or does it lack --allowed-origin=${home.origin}?`
  }
  // The hint of a missing key is about headers, and the page asks for the key anyway.
  return error.hint && error.status !== 401 ? `${error.message} — ${error.hint}` : error.message
}
