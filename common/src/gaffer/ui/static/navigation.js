// Where the keyboard and the eye are after a change of page: at its heading and top; on the way back, where they were.
import {route} from "./route.js"

const KEPT = 50 // entries of the history of the browser
const PATIENCE = 3000 // ms that a page may take to show what had the focus

const STORED = "gaffer-places"

const places = new Map(JSON.parse(sessionStorage.getItem(STORED) ?? "[]")) // by entry: {y, focus}, the focus as a selector
let count = 0
let stop = () => {}

// What counts as one page: all views of a job do.
export const pageOf = ({at, path}) => JSON.stringify([at, path[0], path[0] === "jobs" ? path[1] : null])

function begin() {
  const entry = `${performance.timeOrigin}.${++count}`
  history.replaceState({entry}, "")
  return entry
}

function selectorOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`
  return element.matches("a[href]") ? `a[href="${CSS.escape(element.getAttribute("href"))}"]` : null
}

function leave(entry) {
  places.delete(entry)
  places.set(entry, {y: scrollY, focus: selectorOf(document.activeElement)})
  if (places.size > KEPT) places.delete(places.keys().next().value)
}

// Calls `attempt` when the page has changed until it returns true, the user does something, or it takes too long; then `ended`.
function meanwhile(attempt, ended) {
  const acts = ["pointerdown", "keydown", "wheel"]
  const watcher = new MutationObserver(() => attempt() && stop())
  const timer = setTimeout(() => {
    stop()
    ended()
  }, PATIENCE)
  stop()
  stop = () => {
    watcher.disconnect()
    clearTimeout(timer)
    for (const act of acts) removeEventListener(act, stop)
  }
  for (const act of acts) addEventListener(act, stop)
  watcher.observe(document.getElementById("app"), {childList: true, subtree: true})
  requestAnimationFrame(() => attempt() && stop())
}

const heading = (page) => {
  const shown = document.querySelector("main [data-page]")
  return shown?.dataset.page === page ? shown.querySelector("h1") : null
}

function focusHeading(page) {
  const found = heading(page)
  if (found === null) return false
  found.tabIndex = -1
  found.focus({preventScroll: true})
  return true
}

function arrive(last, place) {
  const page = pageOf(route.peek())
  if (place !== undefined) {
    const attempt = () => {
      if (heading(page) === null) return false
      scrollTo(0, place.y)
      const wanted = place.focus === null ? null : document.querySelector(place.focus)
      wanted?.focus({preventScroll: true})
      return Math.abs(scrollY - place.y) < 2 && (place.focus === null ? focusHeading(page) : wanted !== null)
    }
    return meanwhile(attempt, () => focusHeading(page))
  }
  if (page !== last) scrollTo(0, 0)
  meanwhile(() => (page === last && document.activeElement !== document.body) || focusHeading(page), () => {})
}

// Begins to follow the history of the browser.
export function followHistory() {
  history.scrollRestoration = "manual"
  let entry = history.state?.entry ?? begin()
  let last = pageOf(route.peek())
  if (places.has(entry)) arrive(last, places.get(entry)) // the page was loaded again
  addEventListener("pagehide", () => {
    leave(entry)
    sessionStorage.setItem(STORED, JSON.stringify([...places]))
  })
  addEventListener("popstate", ({state}) => {
    leave(entry) // the document still shows it
    entry = state?.entry ?? begin()
  })
  addEventListener("hashchange", () => {
    arrive(last, places.get(entry))
    last = pageOf(route.peek())
  })
}
