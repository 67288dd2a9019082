// Lists that the server filters, sorts and cuts. A stream with the same filter brings what changes: known rows take it in place, and
// the list is asked for again when rows come, go or change their order.
import {get} from "./api.js"
import {paced} from "./events.js"
import {useEffect, useState} from "./lib.js"
import {connection, follow, HEARTBEAT, lost} from "./stream.js"

const PACE = 200 // ms between two searches at least
const REFRESH = 5000 // ms: usage and ages change without an event
const MOST = 500 // items that the server returns at once

// Returns {items, total, counts, at, error} and what else the server says; `items` is null until its first answer.
export function useSearch(params) {
  const [result, setResult] = useState({items: null, total: 0, counts: {}, at: null, error: null})
  const key = JSON.stringify(params)
  useEffect(() => {
    const abort = new AbortController()
    const {limit, sort, ...filter} = params
    let stop = null
    let latest = null

    function show(next) {
      latest = next
      setResult(next)
    }
    async function refresh() {
      if (document.hidden) return
      try {
        const answer = await search(params, abort.signal)
        if (abort.signal.aborted) return
        show({...answer, at: Date.now(), error: null})
        stop ??= follow({
          path: "/search/changes",
          query: (lastId) => ({...filter, after: lastId ?? `${answer.epoch}:${answer.seq}`, heartbeat: HEARTBEAT}),
          onEvents: (events) => events.forEach(apply),
          onState: (state) => (connection.value = state),
        })
      } catch (error) {
        if (abort.signal.aborted) return
        setResult((last) => ({...last, error}))
        if (stop === null && !error.status) lost(error)
      }
    }
    const request = paced(refresh, PACE)

    function apply({name, data}) {
      if (name === "reset") return request()
      const {changed, removed, ...rest} = JSON.parse(data)
      const news = new Map(changed.map((item) => [item.key, item]))
      const by = sort.replace(/^-/, "")
      const known = new Set(latest.items.map((item) => item.key))
      const misplaced = latest.items.some((item) => news.has(item.key) && news.get(item.key)[by] !== item[by])
      const items = latest.items.map((item) => news.get(item.key) ?? item)
      show({...latest, ...rest, items, at: Date.now(), error: null})
      if (misplaced || changed.some((item) => !known.has(item.key)) || removed.some((each) => known.has(each))) request()
    }

    refresh()
    const timer = setInterval(request, REFRESH)
    document.addEventListener("visibilitychange", request)
    return () => {
      abort.abort()
      stop?.()
      request.cancel()
      clearInterval(timer)
      document.removeEventListener("visibilitychange", request)
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
