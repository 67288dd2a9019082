// The address: `#/jobs/shop.web/logs?stream=err`. Filters are in it, so that a view can be linked to.
import {signal} from "./lib.js"

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s)
  return {path: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query)}
}

function decode(part) {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

export const route = signal(parse())
addEventListener("hashchange", () => (route.value = parse()))

export function href(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "")
  const text = new URLSearchParams(kept).toString()
  return "#/" + path.map(encodeURIComponent).join("/") + (text ? `?${text}` : "")
}

export function go(path, query) {
  location.hash = href(path, query)
}

// Changes parameters of the current address, without an entry in the history of the browser.
export function setQuery(changes) {
  const {path, query} = route.peek()
  const next = {...Object.fromEntries(query), ...changes}
  history.replaceState(null, "", href(path, next))
  route.value = parse()
}
