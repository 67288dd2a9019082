// Lists that the server filters, sorts and cuts. They are asked for again when something happens, at most as often as `PACE`.
import {get} from "./api.js"
import {listen, paced} from "./events.js"
import {useEffect, useState} from "./lib.js"

const PACE = 200 // ms
const REFRESH = 5000 // ms: usage changes without events
const MOST = 500 // items that the server returns at once

// Returns {items, total, counts, at, error} and what else the server says; `items` is null until its first answer.
export function useSearch(params) {
  const [result, setResult] = useState({items: null, total: 0, counts: {}, at: null, error: null})
  const key = JSON.stringify(params)
  useEffect(() => {
    const abort = new AbortController()
    async function refresh() {
      if (document.hidden) return
      try {
        const answer = await search(params, abort.signal)
        setResult({...answer, at: Date.now(), error: null})
      } catch (error) {
        if (!abort.signal.aborted) setResult((last) => ({...last, error}))
      }
    }
    const request = paced(refresh, PACE)
    refresh()
    const stop = listen(request, request)
    const timer = setInterval(request, REFRESH)
    return () => {
      abort.abort()
      stop()
      request.cancel()
      clearInterval(timer)
    }
  }, [key])
  return result
}

async function search({limit, ...query}, signal) {
  const items = []
  let cursor = null
  for (;;) {
    const answer = await get("/search", {...query, limit: Math.min(MOST, limit - items.length), cursor}, {signal})
    items.push(...answer.items)
    cursor = answer.cursor
    if (cursor === null || items.length >= limit) return {...answer, items}
  }
}
