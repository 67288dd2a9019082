// Logging in with a key: it is exchanged for a cookie and the token of this tab, and not kept.
import {explain, logIn, needsLogin} from "./api.js"
import {html, useState, useValue} from "./lib.js"

export function Login({onDone}) {
  const needed = useValue(needsLogin)
  const [problem, setProblem] = useState(null)
  if (needed === null) return null
  async function submit(event) {
    event.preventDefault()
    const field = event.target.elements.key
    const key = field.value.trim()
    field.value = ""
    try {
      await logIn(key)
      setProblem(null)
      onDone()
    } catch (error) {
      setProblem(explain(error))
    }
  }
  return html`<form class="login" onSubmit=${submit} aria-label="Log in">
    <label for="key">This node asks for a key</label>
    <input id="key" name="key" type="password" autocomplete="current-password" required autofocus />
    <button class="primary">Log in</button>
    <p class=${problem ? "bad" : "dim"} role="status">${problem ?? needed.message}</p>
  </form>`
}
