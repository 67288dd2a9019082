// Output of processes as text with the colours of terminals, and the matches of a search.
import {pieces} from "./ansi.js"
import {html, useLayoutEffect, useRef} from "./lib.js"

// A pattern that finds `text` in any case; null for an empty text.
export const patternOf = (text) => (text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu") : null)

// Splits pieces [text, style] at the matches of `pattern`, which may go over several of them: [text, style, match].
function matched(parts, pattern) {
  const whole = parts.map(([text]) => text).join("")
  const bounds = [...whole.matchAll(pattern)].flatMap((match) => [match.index, match.index + match[0].length])
  if (bounds.length === 0) return parts
  const found = []
  let at = 0
  let next = 0 // of the bounds; between an odd one and the one before is a match
  for (const [text, style] of parts) {
    const end = at + text.length
    while (at < end) {
      while (bounds[next] <= at) next++
      const stop = Math.min(end, bounds[next] ?? end)
      found.push([text.slice(text.length - (end - at), text.length - (end - stop)), style, next % 2 === 1])
      at = stop
    }
  }
  return found
}

export function Line({text, match = null}) {
  const parts = match === null ? pieces(text) : matched(pieces(text), match)
  return parts.map(([part, style, found]) => {
    const shown = found ? html`<mark>${part}</mark>` : part
    return style ? html`<span class=${style.class} style=${style.style}>${shown}</span>` : shown
  })
}

// The last output of a process, scrolled to its end.
export function Output({text}) {
  const element = useRef(null)
  useLayoutEffect(() => {
    element.current.scrollTop = element.current.scrollHeight
  }, [text])
  return html`<pre class="output" ref=${element}>${text.split("\n").map((line, index) => html`<div key=${index}><${Line} text=${line} />${"\n"}</div>`)}</pre>`
}
