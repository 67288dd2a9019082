// The events of the node: one stream for the page, shared by all who listen; it is open while somebody does.
import {connection, follow, HEARTBEAT} from "./stream.js"

const listeners = new Set()
const returns = new Set()
let close = null
let wasLost = false

// Calls `listener(event)` for each event, and `onReturn()` when events may have been missed. Returns a function that ends it.
export function listen(listener, onReturn = () => {}) {
  listeners.add(listener)
  returns.add(onReturn)
  close ??= follow({
    path: "/watch",
    query: () => ({feed: "eventsource", heartbeat: HEARTBEAT}),
    onEvents: (events) => {
      for (const {name, data} of events) {
        if (!name.startsWith("proc.")) for (const each of listeners) each(JSON.parse(data))
      }
    },
    onOpen: () => {
      if (wasLost) for (const each of returns) each()
      wasLost = false
    },
    onState: (state) => {
      if (state.state === "lost" || state.state === "hidden") wasLost = true
      connection.value = state
    },
  })
  return () => {
    listeners.delete(listener)
    returns.delete(onReturn)
    if (listeners.size === 0) {
      close()
      close = null
    }
  }
}

// Returns a function that runs `task` soon, at most every `milliseconds`, and never twice at once.
export function paced(task, milliseconds) {
  let timer = null
  let running = false
  let again = false
  async function run() {
    timer = null
    running = true
    again = false
    await task()
    running = false
    if (again) request()
  }
  function request() {
    if (running) again = true
    else timer ??= setTimeout(run, milliseconds)
  }
  request.cancel = () => clearTimeout(timer)
  return request
}
