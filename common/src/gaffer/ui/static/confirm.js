// The confirmation of an action: it names the targets and the node, and shows the equivalent command.
import {explain, root, send} from "./api.js"
import {announce, closeDialog, openDialog} from "./dialog.js"
import {plural} from "./format.js"
import {html, useState} from "./lib.js"

const endpoint = () => root.href.replace(/\/$/, "")

export function confirmAction(action, targets, given = {}) {
  openDialog(() => html`<${Confirmation} action=${action} targets=${targets} given=${given} />`)
}

const nameOf = (target) => target.name ?? `process ${target.pid} of ${target.job}`

function Confirmation({action, targets, given}) {
  const fields = action.fields?.(targets[0], given) ?? []
  const [values, setValues] = useState(Object.fromEntries(fields.map((field) => [field.name, field.value])))
  const [problems, setProblems] = useState([])
  const [busy, setBusy] = useState(false)
  const command = `${action.command(targets, values)} --endpoint=${endpoint()}`

  async function submit(event) {
    event.preventDefault()
    setBusy(true)
    const failed = []
    for (const target of targets) {
      const {method = "POST", path, ...options} = action.request(target, values)
      try {
        await send(method, path, options)
      } catch (error) {
        failed.push({name: nameOf(target), text: explain(error)})
      }
    }
    setBusy(false)
    setProblems(failed)
    const done = targets.length - failed.length
    if (done) announce(`${action.label}: accepted for ${done === 1 && targets.length === 1 ? nameOf(targets[0]) : `${done} of ${targets.length}`}`)
    if (!failed.length) closeDialog()
  }

  const one = targets.length === 1
  return html`<form class="confirm" onSubmit=${submit}>
    <h2 id="dialog-title">${action.label} ${one ? nameOf(targets[0]) : plural(targets.length, "job")}</h2>
    <p class="where">on node <strong>${root.host}</strong></p>
    ${!one && html`<ul class="targets">${targets.map((each) => html`<li key=${each.name}>${each.name}</li>`)}</ul>`}
    ${fields.map((field) => html`<${Field} key=${field.name} field=${field} value=${values[field.name]}
      onChange=${(value) => setValues({...values, [field.name]: value})} />`)}
    <p>${action.effect(targets, values)}</p>
    <div class="command"><code>${command}</code><${Copy} text=${command} /></div>
    ${problems.length > 0 && html`<ul class="problems" role="alert">
      ${problems.map((each) => html`<li key=${each.name}>${!one && html`<strong>${each.name}: </strong>`}${each.text}</li>`)}
    </ul>`}
    <footer>
      <button type="button" onClick=${closeDialog}>Cancel</button>
      <button class=${action.danger ? "danger" : "primary"} disabled=${busy} autofocus=${fields.length === 0}>
        ${busy ? "Sending…" : action.label}
      </button>
    </footer>
  </form>`
}

function Field({field, value, onChange}) {
  const onInput = (event) => onChange(event.target.value)
  const {label, options, value: _, ...attributes} = field
  return html`<label class="field"><span>${label}</span>
    ${options
      ? html`<select value=${value} onChange=${onInput}>${options.map((each) => html`<option key=${each}>${each}</option>`)}</select>`
      : html`<input ...${attributes} required=${field.required ?? (field.type === "number" && field.value !== "")} value=${value} onInput=${onInput} autofocus />`}
  </label>`
}

function Copy({text}) {
  const [copied, setCopied] = useState(false)
  async function copy() {
    await navigator.clipboard.writeText(text)
    setCopied(true)
    setTimeout(() => setCopied(false), 1500)
  }
  return navigator.clipboard
    ? html`<button type="button" class="quiet" onClick=${copy}>${copied ? "Copied" : "Copy"}</button>`
    : null
}
