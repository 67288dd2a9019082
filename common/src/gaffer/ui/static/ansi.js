// The colours of terminals in lines of text. Everything else that a program may send to a terminal is left out or made visible:
// the result is text in spans, never markup.
const BASIC = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"]
// Operating system commands, other strings, and control sequences; the last is any other escape.
const ESCAPE = /\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[PX^_][^\x1b]*(?:\x1b\\|$)|\[([0-?]*)[ -/]*([@-~])|[ -/]*[0-~]|$)/g
// Controls, and characters that change the direction of text and could make a line read as another.
const INVISIBLE = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]/g

const visible = (text) => text.replace(INVISIBLE, (found) => (found < " " ? String.fromCharCode(0x2400 + found.charCodeAt(0)) : "\ufffd"))

// What a terminal shows of a line that was overwritten with carriage returns.
const lastVersion = (text) => {
  const line = text.endsWith("\r") ? text.slice(0, -1) : text
  return line.slice(line.lastIndexOf("\r") + 1)
}

export function plainText(line) {
  if (!/[\x00-\x1f\x7f-\x9f\u200e-\u202e\u2066-\u2069]/.test(line)) return line
  return visible(lastVersion(line).replace(ESCAPE, ""))
}

// Splits a line into pieces [text, style]; the style is null or {classes, color, background}.
export function pieces(line) {
  if (!line.includes("\x1b")) return [[plainText(line), null]]
  const text = lastVersion(line)
  const found = []
  let style = {}
  let start = 0
  for (const match of text.matchAll(ESCAPE)) {
    if (match.index > start) found.push([visible(text.slice(start, match.index)), styled(style)])
    start = match.index + match[0].length
    if (match[2] === "m") style = change(style, match[1])
  }
  if (start < text.length) found.push([visible(text.slice(start)), styled(style)])
  return found
}

function change(style, parameters) {
  const codes = parameters.split(/[;:]/).map(Number)
  let next = {...style}
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index]
    if (code === 0) next = {}
    else if (code === 1) next.bold = true
    else if (code === 2) next.faint = true
    else if (code === 3) next.italic = true
    else if (code === 4) next.underline = true
    else if (code === 7) next.inverse = true
    else if (code === 22) next.bold = next.faint = false
    else if (code === 23) next.italic = false
    else if (code === 24) next.underline = false
    else if (code === 27) next.inverse = false
    else if (code === 38 || code === 48) {
      const [color, used] = extended(codes.slice(index + 1))
      next[code === 38 ? "color" : "background"] = color
      index += used
    } else if (code === 39) next.color = undefined
    else if (code === 49) next.background = undefined
    else if (code >= 30 && code <= 37) next.color = BASIC[code - 30]
    else if (code >= 40 && code <= 47) next.background = BASIC[code - 40]
    else if (code >= 90 && code <= 97) next.color = `bright-${BASIC[code - 90]}`
    else if (code >= 100 && code <= 107) next.background = `bright-${BASIC[code - 100]}`
  }
  return next
}

// The colour after 38 or 48, and how many numbers it took: `5;N` of the palette, or `2;R;G;B`.
function extended([kind, first = 0, second = 0, third = 0]) {
  const byte = (value) => Math.max(0, Math.min(255, value || 0))
  if (kind === 2) return [`rgb(${byte(first)}, ${byte(second)}, ${byte(third)})`, 4]
  if (kind !== 5) return [undefined, 0]
  const index = byte(first)
  if (index < 16) return [`${index > 7 ? "bright-" : ""}${BASIC[index % 8]}`, 2]
  if (index > 231) return [`rgb(${Array(3).fill(8 + 10 * (index - 232)).join(", ")})`, 2]
  const level = (value) => (value ? 55 + 40 * value : 0)
  const cube = index - 16
  return [`rgb(${level(Math.floor(cube / 36))}, ${level(Math.floor(cube / 6) % 6)}, ${level(cube % 6)})`, 2]
}

function styled({bold, faint, italic, underline, inverse, color, background}) {
  const [front, back] = inverse ? [background ?? "paper", color ?? "ink"] : [color, background]
  const named = (value) => value !== undefined && !value.startsWith("rgb")
  const classes = [bold && "bold", faint && "faint", italic && "italic", underline && "underline", named(front) && `ink-${front}`, named(back) && `on-${back}`].filter(Boolean)
  const style = {}
  if (front?.startsWith("rgb")) style.color = front
  if (back?.startsWith("rgb")) style.backgroundColor = back
  return classes.length || front || back ? {class: classes.join(" "), style} : null
}
