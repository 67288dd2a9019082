// Lines of a log, of which only the visible ones are in the document. Scrolling up pauses, scrolling to the end follows again.
import {html, useEffect, useLayoutEffect, useRef, useState} from "./lib.js"
import {Line} from "./output.js"

const HEIGHT = 18 // px of a line, as in the stylesheet
const EXTRA = 20 // lines outside the window, on either side

export function LogView({lines, base, version, following, setFollowing, badge, match, marked, onLine}) {
  const box = useRef(null)
  const [top, setTop] = useState(0)
  const [size, setSize] = useState(600)
  const lastBase = useRef(base)

  useEffect(() => {
    const observer = new ResizeObserver(([{target}]) => setSize(target.clientHeight))
    observer.observe(box.current)
    return () => observer.disconnect()
  }, [])

  // Following keeps the end in view. Otherwise what is read stays where it is while lines before it are dropped.
  useLayoutEffect(() => {
    const element = box.current
    if (following) element.scrollTop = element.scrollHeight
    else if (base > lastBase.current) element.scrollTop -= (base - lastBase.current) * HEIGHT
    lastBase.current = base
    setTop(element.scrollTop)
  }, [version, following, base, lines.length, size])

  useLayoutEffect(() => {
    if (marked === null || marked < 0) return
    box.current.scrollTop = Math.max(0, marked * HEIGHT - size / 2)
  }, [marked])

  function onScroll() {
    const element = box.current
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < HEIGHT * 1.5
    const resized = element.clientHeight !== size // not scrolled by the user
    setTop(element.scrollTop)
    if (atEnd !== following && !resized) setFollowing(atEnd)
  }

  const first = Math.max(0, Math.floor(top / HEIGHT) - EXTRA)
  const last = Math.min(lines.length, Math.ceil((top + size) / HEIGHT) + EXTRA)
  return html`<div class="log" ref=${box} onScroll=${onScroll} tabindex="0" role="log" aria-label="Log" aria-live="off">
    <div class="log-space" style=${{height: `${lines.length * HEIGHT}px`}}>
      <div class="log-lines" style=${{transform: `translateY(${first * HEIGHT}px)`}}>
        ${lines.slice(first, last).map((line, index) => html`<${Row} key=${line.id} line=${line} badge=${badge} match=${match} marked=${first + index === marked} onLine=${onLine} text=${line.text} />`)}
      </div>
    </div>
  </div>`
}

function Row({line, badge, match, marked, onLine}) {
  if (line.note) return html`<div class="line note">— ${line.note} —</div>`
  const {text, color} = badge(line.label)
  return html`<div class=${`line${marked ? " marked" : ""}${line.label.endsWith(".err") ? " err" : ""}`}>
    <button class=${`label ink-${color}`} title="Link to this line" onClick=${() => onLine(line)}>${text}</button><span class="text"><${Line} text=${line.text} match=${match} /></span>
  </div>`
}
