// Logs as they grow: resumes by offset, tells of gaps, and of lost and found connections.
import {jobPath} from "./api.js"
import {number} from "./format.js"
import {follow, HEARTBEAT} from "./stream.js"

function decodeBase64(text) {
  const binary = atob(text)
  const bytes = new Uint8Array(binary.length)
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index)
  return bytes
}

// The position of a log in an event id, which has those of all logs: `1.out@EPOCH:OFFSET,...`.
function placeIn(id, label) {
  const found = id.split(",").find((each) => each.startsWith(`${label}@`))
  return found ? found.slice(label.length + 1) : id
}

// The request for the logs of jobs: {path, query}. Those of several jobs have the name of the job in their labels.
export const request = (jobs, query) => (jobs.length === 1 ? {path: `${jobPath(jobs[0])}/logs`, query} : {path: "/logs", query: {job: jobs.join(","), ...query}})

// What a log is of: {job, slot, stream}; `jobs` as in the request.
export function sourceOf(label, jobs) {
  const [, job, slot, stream] = /^(?:(.*)\.)?(\d+)\.(out|err)$/.exec(label)
  return {job: job ?? jobs[0], slot, stream}
}

// `query` is what to show, `start` from where on: {tail}, {since} or {offset}. Each log goes to the buffer that `bufferOf(label)`
// returns, remarks about the connection to all `buffers`. Returns a function that closes the stream.
export function followLogs({jobs, query, start, buffers, bufferOf, onChange, onState}) {
  const {path, query: wanted} = request(jobs, query)
  let lost = false
  const remark = (text) => {
    for (const buffer of buffers) buffer.note(text)
    onChange()
  }
  return follow({
    path,
    query: (lastId) => ({
      ...wanted,
      follow: "true",
      feed: "eventsource",
      encoding: "base64",
      heartbeat: HEARTBEAT,
      ...(lastId === null ? start : {offset: lastId}),
    }),
    onOpen: () => {
      if (lost) remark("connection is back; the log goes on where it stopped")
      lost = false
      onChange()
    },
    onEvents: (events) => {
      for (const {name, data, id} of events) {
        if (name === "gap") {
          const gap = JSON.parse(data)
          const buffer = bufferOf(gap.log)
          buffer.breakLine(gap.log)
          buffer.note(`${number(gap.to - gap.from)} bytes of ${gap.log} are no longer kept`)
        } else if (/\.(out|err)$/.test(name)) {
          bufferOf(name).add(name, decodeBase64(data.replaceAll("\n", "")), placeIn(id, name))
        }
      }
      onChange()
    },
    onState: (state) => {
      if (state.state === "lost" && !lost) {
        lost = true
        remark("connection lost")
      }
      onState(state)
    },
  })
}
