// Numbers and times as people read them.
const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]]

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–"
  if (seconds < 1) return seconds <= 0 ? "0s" : "<1s"
  for (let index = 0; index < UNITS.length; index++) {
    const [size, unit] = UNITS[index]
    if (seconds < size) continue
    const whole = Math.floor(seconds / size)
    const next = UNITS[index + 1]
    const rest = next && whole < 10 ? Math.floor((seconds - whole * size) / next[0]) : 0
    return rest ? `${whole}${unit} ${rest}${next[1]}` : `${whole}${unit}`
  }
}

export function bytes(count) {
  if (count === null || count === undefined || count === "N/A") return "–"
  let value = count
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`
    value /= 1024
  }
}

export function percent(value) {
  return typeof value === "number" ? value.toFixed(value < 9.95 ? 1 : 0) : "–"
}

export const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"))

const pad = (value) => String(value).padStart(2, "0")

export function clock(seconds) {
  const time = new Date(seconds * 1000)
  return `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`
}

export function date(seconds) {
  const time = new Date(seconds * 1000)
  return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`
}

// The time of day for today, with the date for other days.
export function moment(seconds) {
  if (seconds === null || seconds === undefined) return "–"
  const day = date(seconds)
  return day === date(Date.now() / 1000) ? clock(seconds) : `${day} ${clock(seconds)}`
}

// The same in full, with the time zone of the browser.
export function fullTime(seconds) {
  const time = new Date(seconds * 1000)
  const offset = -time.getTimezoneOffset()
  const sign = offset < 0 ? "-" : "+"
  const zone = `${sign}${pad(Math.floor(Math.abs(offset) / 60))}:${pad(Math.abs(offset) % 60)}`
  return `${date(seconds)} ${clock(seconds)} ${zone} (${Intl.DateTimeFormat().resolvedOptions().timeZone})`
}

// Times as the server writes them: `2026-11-29 10:15:00 UTC` in sentences, and RFC 3339.
const UTC = /\b(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?)(?: UTC|Z)\b/g

// Splits a text of the server into strings and times, which are numbers (seconds).
export function splitTimes(text) {
  const found = []
  let start = 0
  for (const match of text.matchAll(UTC)) {
    const at = Date.parse(`${match[1]}T${match[2]}Z`)
    if (Number.isNaN(at)) continue
    found.push(text.slice(start, match.index), at / 1000)
    start = match.index + match[0].length
  }
  return [...found, text.slice(start)]
}

// A text of the server with its times in the time zone of the browser.
export const inLocalTime = (text) => splitTimes(text).map((part) => (typeof part === "number" ? moment(part) : part)).join("")

export const plural = (count, noun, many = `${noun}s`) => `${number(count)} ${count === 1 ? noun : many}`

// The job that an entry of the setting `after` of `name` means: `db:restart` is the one of the same session.
export function predecessor(entry, name) {
  const found = entry.split(":")[0].trim()
  return found.includes(".") ? found : `${name.split(".")[0]}.${found}`
}

export const endpoint = ({name, address, port}) => `${name} ${address}:${port}`

const SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 11: "SEGV", 13: "PIPE", 14: "ALRM", 15: "TERM"}
const EXPECTED = ["stopped", "restart", "update", "rollback", "max_lifetime", "idle"]

// How a process ended, from an exit.
export function ending(exit) {
  if (exit.exit_code !== null) return `exit ${exit.exit_code}`
  return exit.term_signal ? `SIG${SIGNALS[exit.term_signal] ?? ` ${exit.term_signal}`}` : "unknown"
}

// The reason, unless how the process ended says as much.
export const reasonOfEnd = (exit) => (["exited", "signaled", ending(exit)].includes(exit.reason) ? null : exit.reason)

export const endingWithReason = (exit) => [ending(exit), reasonOfEnd(exit)].filter(Boolean).join(", ")

// Whether it was no failure of the process.
export const wasExpected = (exit) => exit.exit_code === 0 || EXPECTED.includes(exit.reason)
