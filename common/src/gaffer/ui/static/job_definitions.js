// The last definitions of a job: what each changed, and the way back.
import {actionNamed, quote} from "./actions.js"
import {get, jobPath, may} from "./api.js"
import {confirmAction} from "./confirm.js"
import {Environment} from "./environment.js"
import {html, useEffect, useState} from "./lib.js"
import {Empty, Problem} from "./parts.js"

// The settings that differ between two definitions: [name, before, after].
function differences(before, after) {
  return Object.keys({...before, ...after})
    .filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]))
    .map((name) => [name, before[name], after[name]])
}

export function DefinitionsTab({job}) {
  const [definitions, setDefinitions] = useState(null)
  const [error, setError] = useState(null)
  useEffect(() => {
    get(`${jobPath(job.name)}/definitions`).then((answer) => {
      setDefinitions(answer.definitions)
      setError(null)
    }, setError)
  }, [job.name, job.generation])
  if (error) return html`<${Problem} error=${error} />`
  if (definitions === null) return html`<${Empty}>Loading…<//>`
  return html`<ol class="definitions">${definitions.map(({generation, config}, index) => {
    const before = definitions[index + 1]
    const changes = before ? differences(before.config, config) : []
    return html`<li key=${generation}>
      <header><b>Generation ${generation}</b>${index === 0 ? html`<span class="tag">current</span>` : may("control") && html`<button onClick=${() => confirmAction(actionNamed("rollback"), [job], {to: generation})}>Roll back to this</button>`}</header>
      ${before && changes.length === 0 && html`<p class="dim">Same settings as generation ${before.generation}.</p>`}
      ${changes.length > 0 && html`<table class="changes"><tbody>${changes.map(([name, old, now]) => html`<tr key=${name}><th scope="row">${name}</th><td><del><${Setting} name=${name} value=${old} than=${now} /></del></td><td><ins><${Setting} name=${name} value=${now} than=${old} /></ins></td></tr>`)}</tbody></table>`}
      ${!before && html`<code>${[config.cmd, ...config.args.map(quote)].join(" ")}</code>`}
    </li>`
  })}</ol>`
}

// A setting that differs from that of the other definition, `than`.
function Setting({name, value, than}) {
  if (name !== "env") return html`${typeof value === "string" ? value : JSON.stringify(value)}`
  const variables = Object.entries(value ?? {}).filter(([variable, text]) => text === null || text !== than?.[variable])
  return variables.length > 0 && html`<${Environment} variables=${variables} />`
}
