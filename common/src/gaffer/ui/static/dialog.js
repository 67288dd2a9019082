// Modal dialogs, and short messages about what was done.
import {html, signal, useEffect, useRef, useValue} from "./lib.js"

const shown = signal(null)
const messages = signal([])

export function openDialog(content) {
  shown.value = content
}

export function closeDialog() {
  shown.value = null
}

let count = 0
export function announce(text, kind = "info") {
  const id = ++count
  messages.value = [...messages.peek().slice(-3), {id, text, kind}]
  if (kind === "info") setTimeout(() => dismiss(id), 8000)
}

const dismiss = (id) => (messages.value = messages.peek().filter((each) => each.id !== id))

export function Dialog() {
  const content = useValue(shown)
  const element = useRef(null)
  useEffect(() => {
    if (content !== null && !element.current.open) element.current.showModal()
    if (content === null && element.current.open) element.current.close()
  }, [content])
  useEffect(() => {
    addEventListener("hashchange", closeDialog) // its targets belong to the page that was left
    return () => removeEventListener("hashchange", closeDialog)
  }, [])
  const onClick = (event) => event.target === element.current && closeDialog()
  return html`<dialog ref=${element} onClose=${closeDialog} onMouseDown=${onClick} aria-labelledby="dialog-title">
    ${content !== null && content()}
  </dialog>`
}

export function Messages() {
  const all = useValue(messages)
  return html`<div class="messages" role="status" aria-live="polite">
    ${all.map((each) => html`<div key=${each.id} class=${`message ${each.kind}`}>
      <span>${each.text}</span>
      <button class="quiet" aria-label="Dismiss" onClick=${() => dismiss(each.id)}>×</button>
    </div>`)}
  </div>`
}
