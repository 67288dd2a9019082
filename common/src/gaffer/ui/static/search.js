// Lists of jobs, filtered, sorted and cut by the server, and kept up to date by its changes.
import {get} from "./api.js"
import {connection, listen, paced} from "./events.js"
import {parseSize} from "./format.js"
import {useEffect, useState} from "./lib.js"

const REFRESH = 5000 // ms: usage changes without events

// Returns {items, total, counts, at, error} for a query; `items` is null until the first answer.
export function useSearch(params) {
  const [result, setResult] = useState({items: null, total: 0, counts: {}, at: null, error: null})
  const key = JSON.stringify(params)
  useEffect(() => {
    let ended = false
    async function refresh() {
      if (document.hidden) return
      try {
        const answer = await load(params)
        if (!ended) setResult({...answer, at: Date.now(), error: null})
      } catch (error) {
        if (!ended) setResult((last) => ({...last, error}))
      }
    }
    const request = paced(refresh, 150)
    refresh()
    const stop = listen(request, request)
    const timer = setInterval(request, REFRESH)
    return () => {
      ended = true
      stop()
      request.cancel()
      clearInterval(timer)
    }
  }, [key])
  return result
}

export {connection}

const ORDER = ["failed", "backoff", "waiting", "starting", "stopping", "running", "stopped", "completed"]

async function load({q, state, sort = "state", limit}) {
  const {jobs} = await get("/jobs", {view: "stats"})
  const found = jobs
    .map((job) => ({
      ...job,
      uptime: Math.max(...job.instances.map((each) => each.uptime ?? 0), 0) || null,
      cpu: job.stats.cpu,
      memory: job.stats.stats.reduce((sum, each) => sum + (parseSize(each.mem_info1) ?? 0), 0) || null,
    }))
    .filter((job) => !q || `${job.name} ${job.reason ?? ""}`.toLowerCase().includes(q.toLowerCase()))
  const counts = {}
  for (const job of found) counts[job.state] = (counts[job.state] ?? 0) + 1
  const matching = state ? found.filter((job) => state.split(",").includes(job.state)) : found
  const sign = sort.startsWith("-") ? -1 : 1
  const by = sort.replace(/^-/, "")
  const value = (job) => (by === "state" ? ORDER.indexOf(job.state) : typeof job[by] === "string" && by !== "name" ? -1 : job[by] ?? -1)
  matching.sort((a, b) => {
    const [left, right] = [value(a), value(b)]
    return (left < right ? -sign : left > right ? sign : 0) || a.name.localeCompare(b.name)
  })
  return {items: matching.slice(0, limit), total: matching.length, counts}
}
