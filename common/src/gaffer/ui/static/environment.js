// Variables of jobs. Values are hidden until somebody asks for them: screens are shared.
import {html, useState} from "./lib.js"

export function Environment({variables}) {
  const [open, setOpen] = useState(false)
  const secret = variables.some(([, value]) => value === null)
  return html`<div class="env">
    ${variables.map(([name, value]) => html`<div key=${name}><code>${name}=${open && value !== null ? value : html`<span class="dim" aria-label="hidden">••••••</span>`}</code></div>`)}
    ${secret ? html`<small class="dim">Your key may not see the values (scope define).</small>` : html`<button class="link" onClick=${() => setOpen(!open)}>${open ? "Hide values" : "Show values"}</button>`}
  </div>`
}
