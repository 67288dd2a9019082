// The calls to the daemon that serves the page.
import {signal} from "./lib.js"

export const root = new URL("..", import.meta.url)
export const needsLogin = signal(null) // the error that asked for a key, or null
export const allowance = signal(null) // the scopes and sessions of the caller, null while unknown

const TOKEN = "gaffer-token"

export class ApiError extends Error {
  constructor(status, body) {
    super(body.message || `the server answered ${status}`)
    this.status = status
    this.code = body.error || "error"
    this.hint = body.hint || null
  }
}

export const token = () => sessionStorage.getItem(TOKEN)

export function url(path, query = {}) {
  const target = new URL(path.replace(/^\//, ""), root)
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") target.searchParams.set(name, value)
  }
  return target
}

// Sends a request and returns the response. Throws an ApiError for a refusal, TypeError if the server can't be reached.
export async function send(method, path, {query, body, text, headers, signal} = {}) {
  const content = body !== undefined ? "application/json" : text !== undefined ? "application/octet-stream" : null
  const response = await fetch(url(path, query), {
    method,
    signal,
    cache: "no-store",
    body: body !== undefined ? JSON.stringify(body) : text,
    headers: {
      ...(content === null ? {} : {"Content-Type": content}),
      ...(token() === null ? {} : {"X-Gaffer-Token": token()}),
      ...headers,
    },
  })
  if (response.ok) return response
  const problem = new ApiError(response.status, await response.json().catch(() => ({})))
  if (["auth_required", "token_required"].includes(problem.code)) needsLogin.value = problem
  throw problem
}

export const call = async (method, path, options) => (await send(method, path, options)).json()
export const get = (path, query, options = {}) => call("GET", path, {query, ...options})

export async function logIn(key) {
  const answer = await call("POST", "/auth/session", {body: {}, headers: {Authorization: `Bearer ${key}`}})
  sessionStorage.setItem(TOKEN, answer.token)
  allowance.value = answer
  needsLogin.value = null
}

export async function logOut() {
  await call("DELETE", "/auth/session")
  sessionStorage.removeItem(TOKEN)
  location.reload()
}

export async function loadAllowance() {
  allowance.value = await get("/auth/session")
}

export const may = (scope) => allowance.value === null || allowance.value.scopes.includes(scope)

export const jobPath = (name) => "/jobs/" + name.split(".").map(encodeURIComponent).join("/")

// What to write on the screen about an error.
export function explain(error) {
  if (!(error instanceof ApiError)) return "The server can't be reached."
  return error.hint ? `${error.message} — ${error.hint}` : error.message
}
