// The confirmation of an action: it names the targets and the node, and shows the equivalent command.
import {ANSWER, NoAnswer, act, explain, root, whereabouts} from "./api.js"
import {announce, closeDialog, openDialog} from "./dialog.js"
import {plural} from "./format.js"
import {html, useEffect, useRef, useState} from "./lib.js"
import {Age} from "./parts.js"
import {href} from "./route.js"

const endpoint = () => root.href.replace(/\/$/, "")

export function confirmAction(action, targets, given = {}) {
  openDialog(() => html`<${Confirmation} action=${action} targets=${targets} given=${given} />`)
}

// What to write about an action that failed on `base`.
export function whatFailed(error, base) {
  if (error instanceof NoAnswer) return `No answer after ${ANSWER / 1000} s. It may have been done.`
  if (error.constructor === Error) return error.message
  return error.status ? explain(error, base) : `${explain(error, base)} If the connection ended only now, it may have been done.`
}

// The way to see whether it was done.
function Look({target}) {
  const name = target.job ?? (target.max_processes === undefined ? null : target.name)
  return html`<a href=${name === null ? href(["node"]) : href(["jobs", name])} onClick=${closeDialog}>Look before you send it again</a>, or with <code>gaffer status --endpoint=${endpoint()}</code>.`
}

const nameOf = (target) => target.name ?? `process ${target.pid} of ${target.job}`

function Confirmation({action, targets, given}) {
  const fields = action.fields?.(targets[0], given) ?? []
  const [values, setValues] = useState(Object.fromEntries(fields.map((field) => [field.name, field.value])))
  const [problems, setProblems] = useState([])
  const [sentAt, setSentAt] = useState(null)
  const shown = useRef(true)
  useEffect(() => () => (shown.current = false), [])
  const busy = sentAt !== null
  const command = `${action.command(targets, values)} --endpoint=${endpoint()}`

  async function submit(event) {
    event.preventDefault()
    if (busy) return
    setSentAt(Date.now())
    setProblems([])
    const failed = []
    let silent = false
    for (const target of targets) {
      const {method = "POST", path, ...options} = action.request(target, values)
      try {
        if (silent) throw new Error("not sent: the node does not answer")
        await act(method, path, options)
      } catch (error) {
        silent ||= error instanceof NoAnswer
        failed.push({target, name: nameOf(target), unknown: error instanceof NoAnswer, text: whatFailed(error)})
      }
    }
    setSentAt(null)
    setProblems(failed)
    const done = targets.length - failed.length
    if (done) announce(`${action.label}: accepted for ${done === 1 && targets.length === 1 ? nameOf(targets[0]) : `${done} of ${targets.length}`}`)
    if (!shown.current) for (const each of failed) announce(`${action.label} ${each.name}: ${each.text}`, "bad")
    else if (!failed.length) closeDialog()
  }

  const one = targets.length === 1
  return html`<form class="confirm" onSubmit=${submit}>
    <h2 id="dialog-title">${action.title?.(targets) ?? `${action.label} ${one ? nameOf(targets[0]) : plural(targets.length, "job")}`}</h2>
    <p class="where">on node <strong>${whereabouts()}</strong></p>
    ${!one && html`<ul class="targets">${targets.map((each) => html`<li key=${each.name}>${each.name}</li>`)}</ul>`}
    ${fields.map((field) => html`<${Field} key=${field.name} field=${field} value=${values[field.name]}
      onChange=${(value) => setValues({...values, [field.name]: value})} />`)}
    <p>${action.effect(targets, values)}</p>
    <div class="command"><code>${command}</code><${Copy} text=${command} /></div>
    ${problems.length > 0 && html`<ul class="problems" role="alert">
      ${problems.map((each) => html`<li key=${each.name}>${!one && html`<strong>${each.name}: </strong>`}${each.text}${each.unknown && html` <${Look} target=${each.target} />`}</li>`)}
    </ul>`}
    ${busy && html`<p class="dim" role="status">Waiting for the answer for <${Age} at=${sentAt} suffix="" />, at most ${ANSWER / 1000} s.</p>`}
    <footer>
      <button type="button" onClick=${closeDialog}>${busy || problems.length ? "Close" : "Cancel"}</button>
      <button class=${action.danger ? "danger" : "primary"} disabled=${busy} autofocus=${fields.length === 0}>
        ${busy ? "Sending…" : problems.some((each) => each.unknown) ? "Send again" : action.label}
      </button>
    </footer>
  </form>`
}

export function Field({field, value, onChange}) {
  const onInput = (event) => onChange(event.target.value)
  const {label, options, value: _, ...attributes} = field
  return html`<label class="field"><span>${label}</span>
    ${options
      ? html`<select value=${value} onChange=${onInput}>${options.map((each) => html`<option key=${each}>${each}</option>`)}</select>`
      : html`<input ...${attributes} required=${field.required ?? (field.type === "number" && field.value !== "")} value=${value} onInput=${onInput} autofocus />`}
  </label>`
}

export function Copy({text}) {
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
