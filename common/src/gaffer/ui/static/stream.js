// Server-sent events over fetch: unlike EventSource it sees refusals, takes any event name, and is closed while the page is
// hidden. It reconnects with a growing delay and resumes after the last id.
import {ApiError, send} from "./api.js"
import {signal} from "./lib.js"

export const NO_STREAM = {state: "none", since: null, error: null}

// The state of the stream that keeps the page up to date.
export const connection = signal(NO_STREAM)

// Says so when there is no stream yet that would.
export function lost(error) {
  const {state, since} = connection.peek()
  connection.value = {state: "lost", since: state === "lost" ? since : Date.now(), error}
}

const SILENCE = 15_000 // ms without a byte, heartbeats included: the connection is lost
export const HEARTBEAT = 5 // seconds
const SLICE = 8 // events handled without a pause, so that a burst does not freeze the page
const DELAYS = [250, 500, 1000, 2000, 3000]

const breathe = () => new Promise((resolve) => setTimeout(resolve))

// Splits the text of a stream into events {name, data, id}.
class EventParser {
  #rest = ""
  #data = []
  #name = "message"
  id = null

  push(text) {
    const events = []
    const lines = (this.#rest + text).split("\n")
    this.#rest = lines.pop()
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw
      if (line === "") {
        if (this.#data.length) events.push({name: this.#name, data: this.#data.join("\n"), id: this.id})
        this.#data = []
        this.#name = "message"
        continue
      }
      const colon = line.indexOf(":")
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
      if (field === "data") this.#data.push(value)
      else if (field === "event") this.#name = value
      else if (field === "id") this.id = value
    }
    return events
  }
}

// Follows `path` with the query that `query(lastId)` returns. `onState` gets {state, since, error}; the states are "connecting",
// "open", "lost", "hidden" and "refused" (for good: the request is wrong). Returns a function that closes it.
export function follow({path, query, onEvents, onOpen = () => {}, onState = () => {}}) {
  let closed = false
  let stopper = null
  let waking = null
  let attempt = 0
  let lastId = null
  let since = null

  const report = (state, error = null) => {
    if (closed) return
    if (state !== "lost") since = null
    else since ??= Date.now()
    onState({state, since, error})
  }

  async function connect() {
    const abort = (stopper = new AbortController())
    const expectBytes = () => {
      const at = Date.now()
      return setTimeout(() => {
        since ??= at // nothing came after that
        abort.abort()
      }, SILENCE)
    }
    let heard = expectBytes()
    try {
      const response = await send("GET", path, {
        query: query(lastId),
        signal: abort.signal,
        headers: {Accept: "text/event-stream"},
      })
      attempt = 0
      report("open")
      onOpen(response)
      const reader = response.body.getReader()
      const decoder = new TextDecoder()
      const parser = new EventParser()
      for (;;) {
        const {done, value} = await reader.read()
        clearTimeout(heard)
        if (done || closed) break
        heard = expectBytes()
        const events = parser.push(decoder.decode(value, {stream: true}))
        for (let start = 0; start < events.length && !closed; start += SLICE) {
          if (start) await breathe()
          const slice = events.slice(start, start + SLICE)
          lastId = slice.at(-1).id ?? lastId
          onEvents(slice)
        }
      }
    } finally {
      clearTimeout(heard)
      abort.abort()
    }
  }

  async function run() {
    while (!closed) {
      if (document.hidden) {
        report("hidden")
        await new Promise((resolve) => (waking = resolve))
        continue
      }
      report(attempt === 0 ? "connecting" : "lost")
      try {
        await connect()
        report("lost")
      } catch (error) {
        if (error instanceof ApiError && error.status < 500 && error.status !== 429) return report("refused", error)
        if (!document.hidden) report("lost", error)
      }
      if (closed || document.hidden) continue
      const delay = DELAYS[Math.min(attempt++, DELAYS.length - 1)]
      await new Promise((resolve) => {
        waking = resolve
        setTimeout(resolve, delay)
      })
    }
  }

  const onVisibility = () => (document.hidden ? stopper?.abort() : waking?.())
  document.addEventListener("visibilitychange", onVisibility)
  run()
  return () => {
    closed = true
    document.removeEventListener("visibilitychange", onVisibility)
    stopper?.abort()
    waking?.()
  }
}
