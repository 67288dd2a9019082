// The libraries that all modules share, and their connection: `useValue` renders again when a signal changes.
import {h, render, Fragment} from "./vendor/preact.js"
import {useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState} from "./vendor/preact-hooks.js"
import {batch, computed, effect, signal} from "./vendor/signals-core.js"
import htm from "./vendor/htm.js"

export const html = htm.bind(h)
export {Fragment, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState}
export {batch, computed, effect, signal}

export function useValue(source) {
  const [value, setValue] = useState(() => source.peek())
  useEffect(() => source.subscribe((next) => setValue(() => next)), [source])
  return value
}

// Calls `callback` every `milliseconds` while the page is visible, and at once when it becomes visible again.
export function useInterval(callback, milliseconds) {
  const current = useRef(callback)
  current.current = callback
  useEffect(() => {
    const tick = () => document.hidden || current.current()
    const timer = setInterval(tick, milliseconds)
    document.addEventListener("visibilitychange", tick)
    return () => {
      clearInterval(timer)
      document.removeEventListener("visibilitychange", tick)
    }
  }, [milliseconds])
}

const dark = matchMedia("(prefers-color-scheme: dark)")

// The colour scheme of the page: "dark" or "light".
export function useScheme() {
  const [scheme, setScheme] = useState(dark.matches ? "dark" : "light")
  useEffect(() => {
    const change = () => setScheme(dark.matches ? "dark" : "light")
    dark.addEventListener("change", change)
    return () => dark.removeEventListener("change", change)
  }, [])
  return scheme
}
