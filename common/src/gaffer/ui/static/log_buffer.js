// The lines of a log in memory: bytes of several streams become lines with their place in the stream; the oldest are dropped.
import {plainText} from "./ansi.js"

const LIMIT = 200_000 // lines of all panes
const MAX_LINE = 16_384 // characters shown of one line

export class LogBuffer {
  lines = [] // {id, label, text, plain, epoch, offset} or {id, note, plain}
  dropped = 0 // lines that are no longer here
  version = 0
  #count = 0
  #unfinished = new Map() // by label: {bytes, offset, line}
  #decoder = new TextDecoder()

  constructor(panes = 1) {
    this.limit = Math.floor(LIMIT / panes)
  }

  // Adds bytes of a stream that end at `end` ("EPOCH:OFFSET" of its position).
  add(label, bytes, end) {
    const [epoch, last] = end.split(/:(?=\d+$)/)
    let offset = Number(last) - bytes.length
    const unfinished = this.#unfinished.get(label)
    if (unfinished) {
      this.#unfinished.delete(label)
      const joined = new Uint8Array(unfinished.bytes.length + bytes.length)
      joined.set(unfinished.bytes)
      joined.set(bytes, unfinished.bytes.length)
      bytes = joined
      offset = unfinished.offset
    }
    let start = 0
    for (let index = bytes.indexOf(10); index >= 0; index = bytes.indexOf(10, start)) {
      this.#push(label, bytes.subarray(start, index), epoch, offset + start, unfinished && start === 0 ? unfinished.line : null)
      start = index + 1
    }
    if (start < bytes.length) {
      const rest = bytes.slice(start)
      const line = this.#push(label, rest, epoch, offset + start, unfinished && start === 0 ? unfinished.line : null)
      if (rest.length < MAX_LINE) this.#unfinished.set(label, {bytes: rest, offset: offset + start, line})
    }
    this.#trim()
    this.version++
  }

  // Adds a remark in the place where it belongs, such as a gap.
  note(text) {
    this.lines.push({id: this.#count++, note: text, plain: text})
    this.version++
  }

  // Starts lines anew after bytes are missing.
  breakLine(label) {
    this.#unfinished.delete(label)
  }

  #push(label, bytes, epoch, offset, line) {
    let text = this.#decoder.decode(bytes)
    if (text.length > MAX_LINE) text = `${text.slice(0, MAX_LINE)} …`
    if (line) {
      line.text = text
      line.plain = plainText(text)
      return line
    }
    const added = {id: this.#count++, label, text, plain: plainText(text), epoch, offset}
    this.lines.push(added)
    return added
  }

  #trim() {
    const surplus = this.lines.length - this.limit
    if (surplus <= this.limit / 20) return // in steps: moving the array costs time
    this.lines.splice(0, surplus)
    this.dropped += surplus
  }
}
