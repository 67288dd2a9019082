// What lists have in common: headings to sort by, filters by state, and arrows.
import {number} from "./format.js"
import {html} from "./lib.js"
import {kindOf} from "./parts.js"
import {setQuery} from "./route.js"

const PAGE = 200 // rows at first, and with each "more"
const MOST = 1000 // rows: more would make the page slow, and nobody reads them

// How many rows the address asks for.
export const limitOf = (query) => Math.min(MOST, Math.max(0, Math.floor(Number(query.get("limit")))) || PAGE)

// The way to further rows of a list, if it has some.
export function More({result, limit}) {
  const rest = result.items === null ? 0 : result.total - result.items.length
  if (rest <= 0) return null
  return html`<p class="more">${limit >= MOST ? `${number(rest)} more: narrow the search to see them.` : html`<button onClick=${() => setQuery({limit: limit + PAGE})}>Show ${number(Math.min(PAGE, rest))} more of ${number(result.total)}</button>`}</p>`
}

export function Heading({column, sort}) {
  const active = sort.replace(/^-/, "") === column.key
  const descends = sort.startsWith("-")
  const first = column.descending ? `-${column.key}` : column.key
  const next = active ? (descends ? column.key : `-${column.key}`) : first
  return html`<th class=${`${column.numeric ? "num " : ""}c-${column.key}`} scope="col" aria-sort=${active ? (descends ? "descending" : "ascending") : null}>
    ${column.unsorted ? column.label : html`<button class="sort" onClick=${() => setQuery({sort: next})}>${column.label}${active ? (descends ? " ↓" : " ↑") : ""}</button>`}
  </th>`
}

export function StateFilter({states: order, counts, chosen}) {
  const states = new Set(chosen ? chosen.split(",") : [])
  function toggle(state) {
    const next = new Set(states)
    if (!next.delete(state)) next.add(state)
    setQuery({state: [...next].join(","), limit: null})
  }
  return html`<div class="chips" role="group" aria-label="Filter by state">
    ${order.filter((state) => counts[state] || states.has(state)).map((state) => html`<button key=${state} class=${`chip ${kindOf(state)}`} aria-pressed=${states.has(state)} onClick=${() => toggle(state)}>
      <i aria-hidden="true"></i>${state === "none" ? "no process" : state} <b>${number(counts[state] ?? 0)}</b></button>`)}
  </div>`
}

// Arrows move between rows, Enter opens the job, space selects it.
export function moveWithArrows(event) {
  const row = event.target.closest("tbody tr")
  if (row === null) return
  const next = {ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling}[event.key]
  if (!next) return
  event.preventDefault()
  next.querySelector("a")?.focus()
}
