// The logs of a job as they grow: resumes by offset, tells of gaps, and of lost and found connections.
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

// `start` is {tail}, {since} or {offset}. Returns a function that closes the stream.
export function followLogs({job, streams, slots, start, buffer, onChange, onState}) {
  let lost = false
  return follow({
    path: `${jobPath(job)}/logs`,
    query: (lastId) => ({
      stream: streams.join(","),
      slot: slots?.join(","),
      follow: "true",
      feed: "eventsource",
      encoding: "base64",
      heartbeat: HEARTBEAT,
      ...(lastId === null ? start : {offset: lastId}),
    }),
    onOpen: () => {
      if (lost) buffer.note("connection is back; the log goes on where it stopped")
      lost = false
      onChange()
    },
    onEvents: (events) => {
      for (const {name, data, id} of events) {
        if (name === "gap") {
          const gap = JSON.parse(data)
          buffer.breakLine(gap.log)
          buffer.note(`${number(gap.to - gap.from)} bytes of ${gap.log} are no longer kept`, gap.log)
        } else if (/^\d+\.(out|err)$/.test(name)) {
          buffer.add(name, decodeBase64(data.replaceAll("\n", "")), placeIn(id, name))
        }
      }
      onChange()
    },
    onState: (state) => {
      if (state.state === "lost" && !lost) {
        lost = true
        buffer.note("connection lost")
        onChange()
      }
      onState(state)
    },
  })
}
