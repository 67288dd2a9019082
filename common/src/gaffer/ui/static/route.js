// The address: `#/jobs/shop.web/logs?stream=err`. Filters are in it, so that a view can be linked to.
import {signal} from "./lib.js"

const AT = "at" // `#/at/NODE/...`, on the page of a cluster: the page of one of its nodes, by id

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s)
  const parts = path.split("/").filter(Boolean).map(decode)
  const at = parts[0] === AT && parts.length > 1 ? parts[1] : null
  return {at, path: at === null ? parts : parts.slice(2), query: new URLSearchParams(query)}
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

// The address of a page of the node that is shown, or `at` another one; null for the daemon that serves the page.
export function href(path, query = {}, at = route.peek().at) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "")
  const text = new URLSearchParams(kept).toString()
  return "#/" + [...(at === null ? [] : [AT, at]), ...path].map(encodeURIComponent).join("/") + (text ? `?${text}` : "")
}

// Changes parameters of the current address, without an entry in the history of the browser.
export function setQuery(changes) {
  const {path, query} = route.peek()
  const next = {...Object.fromEntries(query), ...changes}
  history.replaceState(history.state, "", href(path, next))
  route.value = parse()
}
