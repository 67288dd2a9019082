// How the processes of a job ended.
import {get, jobPath} from "./api.js"
import {bytes, duration, ending, reasonOfEnd, wasExpected} from "./format.js"
import {html, useEffect, useState} from "./lib.js"
import {Output} from "./output.js"
import {Empty, Problem, Time} from "./parts.js"

export function ExitsTab({job}) {
  const [exits, setExits] = useState(null)
  const [error, setError] = useState(null)
  useEffect(() => {
    get(`${jobPath(job.name)}/exits`).then((answer) => {
      setExits(answer.exits)
      setError(null)
    }, setError)
  }, [job.name, job.last_exit?.at, job.restarts])
  if (error) return html`<${Problem} error=${error} />`
  if (exits === null) return html`<${Empty}>Loading…<//>`
  if (exits.length === 0) return html`<${Empty}>No process of this job has ended yet.<//>`
  return html`<ol class="exits">${exits.map((exit) => html`<li key=${`${exit.pid}.${exit.at}`}>
    <header><${Time} at=${exit.at} /><b class=${wasExpected(exit) ? "" : "bad"}>${ending(exit)}</b>${reasonOfEnd(exit) && html`<span>${reasonOfEnd(exit)}</span>`}
      ${exit.oom && html`<b class="bad">out of memory</b>`}
      <span class="dim">pid ${exit.pid ?? "–"}, slot ${exit.slot || "once"}, after ${duration(exit.uptime)}${exit.rusage?.max_rss ? `, at most ${bytes(exit.rusage.max_rss)}` : ""}</span></header>
    ${exit.output ? html`<${Output} text=${exit.output} />` : html`<p class="dim">No output.</p>`}
  </li>`)}</ol>`
}
