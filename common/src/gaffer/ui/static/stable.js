// Rows that do not move under the pointer: while the pointer or the focus is in the list, rows keep their places and take new values;
// new rows and another order wait until they are asked for, or the pointer has left.
import {useRef, useState} from "./lib.js"

export function useStableRows(items, identify = (item) => item.name) {
  const [held, setHeld] = useState(false)
  const order = useRef([])
  const [, redraw] = useState(0)
  const byKey = new Map((items ?? []).map((item) => [identify(item), item]))
  const wanted = [...byKey.keys()]
  const kept = order.current.filter((key) => byKey.has(key))
  if (!held || kept.length === 0) order.current = wanted
  const rows = order.current
    .filter((key) => byKey.has(key))
    .map((key) => byKey.get(key))
  const added = held ? wanted.filter((key) => !order.current.includes(key)) : []
  const moved = held && added.length === 0 && wanted.some((key, index) => identify(rows[index]) !== key)
  function apply() {
    order.current = wanted
    redraw((count) => count + 1)
  }
  const hold = {
    onPointerEnter: () => setHeld(true),
    onPointerLeave: () => setHeld(false),
    onFocusIn: () => setHeld(true),
    onFocusOut: (event) => event.currentTarget.contains(event.relatedTarget) || setHeld(false),
  }
  return {rows, added: added.length, moved, apply, hold}
}
