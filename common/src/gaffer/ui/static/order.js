// Which jobs come after which: each column has those that wait for the columns before it.
import {get} from "./api.js"
import {listen, paced} from "./events.js"
import {plural, predecessor} from "./format.js"
import {html, useEffect, useState} from "./lib.js"
import {Empty, JobLink, kindOfJob, Problem, State} from "./parts.js"

const PACE = 2000 // ms between two requests for all jobs at least

const before = (job) => job.config.after.map((each) => predecessor(each, job.name))

// The number of jobs that must come before each, in the longest chain.
function depths(jobs) {
  const byName = new Map(jobs.map((job) => [job.name, job]))
  const known = new Map()
  const depth = (name) => {
    if (known.has(name)) return known.get(name)
    known.set(name, 0) // ends circles, which the node refuses anyway
    const first = byName.has(name) ? before(byName.get(name)) : []
    known.set(name, first.length ? 1 + Math.max(...first.map(depth)) : 0)
    return known.get(name)
  }
  return new Map(jobs.map((job) => [job.name, depth(job.name)]))
}

export function OrderPage() {
  const [jobs, setJobs] = useState(null)
  const [error, setError] = useState(null)
  const [near, setNear] = useState(null)
  useEffect(() => {
    const refresh = () => get("/jobs", {view: "info"}).then((answer) => {
      setJobs(answer.jobs)
      setError(null)
    }, setError)
    const request = paced(refresh, PACE)
    refresh()
    const stop = listen(request, request)
    return () => {
      stop()
      request.cancel()
    }
  }, [])
  if (error && jobs === null) return html`<section class="page"><${Problem} error=${error} /></section>`
  if (jobs === null) return html`<section class="page"><${Empty}>Loading…<//></section>`
  const waited = new Set(jobs.flatMap(before))
  const involved = jobs.filter((job) => job.config.after.length || waited.has(job.name))
  const depth = depths(jobs)
  const columns = []
  for (const job of involved) (columns[depth.get(job.name)] ??= []).push(job)
  const pointed = jobs.find((job) => job.name === near)
  const related = (job) => !pointed || job === pointed || before(job).includes(near) || before(pointed).includes(job.name)
  return html`<section class="page" aria-label="Order of jobs">
    <h1 class="hidden">Order of jobs</h1>
    ${error && html`<${Problem} error=${error} />`}
    <p class="dim">A job starts after the jobs that its setting <code>after</code> lists, and stops before them.${involved.length > 0 && involved.length < jobs.length ? ` Not shown: ${plural(jobs.length - involved.length, "other job")}.` : ""}</p>
    ${involved.length === 0 && html`<${Empty}>No job has the setting <code>after</code>.<//>`}
    <div class="order">${columns.map((column, index) => html`<section key=${index}><h2>${index === 0 ? "First" : index === 1 ? "Then" : `Step ${index + 1}`}</h2>
      <ul>${column.map((job) => html`<li key=${job.name} class=${`${kindOfJob(job)}${related(job) ? "" : " far"}`} onPointerEnter=${() => setNear(job.name)} onPointerLeave=${() => setNear(null)}>
        <${JobLink} name=${job.name} /><${State} state=${job.state} kind=${kindOfJob(job)} />
        ${job.config.after.length > 0 && html`<small class="dim">after ${job.config.after.join(", ")}</small>`}</li>`)}</ul></section>`)}</div>
  </section>`
}
