// One view of a log: pausing, searching, filtering and links to lines.
import {announce} from "./dialog.js"
import {number, plural} from "./format.js"
import {html, useEffect, useMemo, useRef, useState, useValue} from "./lib.js"
import {sourceOf} from "./log_stream.js"
import {LogView} from "./log_view.js"
import {patternOf} from "./output.js"
import {Connection, Problem} from "./parts.js"
import {href} from "./route.js"

// `version` grows with the buffer. `badge` says what a label is of: {text, color}.
export function LogPane({jobs, buffer, version, state, title, badge, filter, search, target, follows}) {
  const [following, setFollowing] = useState(follows)
  const [unread, setUnread] = useState(0)
  const [position, setPosition] = useState(null)
  const {state: phase, error} = useValue(state)
  const {lines: all, dropped} = buffer
  const wanted = useMemo(() => patternOf(filter), [filter])
  const match = useMemo(() => patternOf(search), [search])
  const lines = useMemo(() => (wanted ? all.filter((line) => line.note || line.plain.search(wanted) >= 0) : all), [wanted, version])
  const hits = useMemo(() => {
    const found = []
    if (match) for (let index = 0; index < lines.length; index++) if (lines[index].plain.search(match) >= 0) found.push(index)
    return found
  }, [match, lines, version])
  const marked = useMemo(() => (position !== null ? position : target ? all.findIndex((line) => line.offset !== undefined && `${line.label}@${line.epoch}:${line.offset}` === target) : null), [position, target, version])

  useEffect(() => setPosition(null), [match, wanted])
  const seen = useRef(follows ? 0 : Infinity) // what is there at first is not new
  useEffect(() => {
    if (following) seen.current = dropped + all.length
    setUnread(dropped + all.length - seen.current)
  }, [version, following])

  function step(direction) {
    if (hits.length === 0) return
    const from = position ?? (direction > 0 ? -1 : lines.length)
    const next = direction > 0 ? hits.find((index) => index > from) ?? hits[0] : hits.findLast((index) => index < from) ?? hits.at(-1)
    setFollowing(false)
    setPosition(next)
  }

  async function link(line) {
    const {job, slot, stream} = sourceOf(line.label, jobs)
    const target = new URL(location.href)
    target.hash = href(["jobs", job, "logs"], {line: `${slot}.${stream}@${line.epoch}:${line.offset}`})
    await navigator.clipboard?.writeText(target.href)
    announce("Copied a link to this line")
  }

  return html`<section class="pane" aria-label=${title ?? "Log"}>
    <div class="log-status">
      ${title && html`<b class="pane-title">${title}</b>`}
      <${Connection} source=${state} />
      <span class="dim">${phase === "open" && all.length === 0 ? "No output yet" : plural(lines.length, "line")}${wanted ? ` of ${number(all.length)}` : ""}</span>
      ${dropped > 0 && html`<span class="warn-text">${number(dropped)} older lines dropped here (at most ${number(buffer.limit)} are kept)</span>`}
      ${match && html`<span>${plural(hits.length, "hit")}<button class="quiet" aria-label="Previous hit" onClick=${() => step(-1)}>↑</button><button class="quiet" aria-label="Next hit" onClick=${() => step(1)}>↓</button></span>`}
      <span class="grow"></span>
      <button class="follow" aria-pressed=${following} onClick=${() => setFollowing(!following)}>${following ? "Following" : unread > 0 ? `Paused · ${number(unread)} new` : "Paused"}</button>
    </div>
    ${error && html`<${Problem} error=${error} />`}
    <${LogView} lines=${lines} base=${wanted ? 0 : dropped} version=${version} following=${following} setFollowing=${setFollowing} badge=${badge} match=${match} marked=${marked} onLine=${link} />
  </section>`
}
