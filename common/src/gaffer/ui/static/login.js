// Logging in with a key: it is exchanged for a cookie and the token of this tab, and not kept.
import {explain, home, logIn, needsLogin, root} from "./api.js"
import {html, useState, useValue} from "./lib.js"

const isOpen = () => root.protocol === "http:" && !/^(localhost|127\..*|\[::1\])$/.test(root.hostname)

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
    <label for="key">${root.host} asks for a key</label>
    ${root !== home && html`<p>The key is sent to <strong>${root.origin}</strong>, the address that this node announces, and to no other. It is forgotten when this page is left.</p>`}
    ${isOpen() && html`<p class="warn-text">The connection is not encrypted.</p>`}
    <input id="key" name="key" type="password" autocomplete="current-password" required autofocus />
    <button class="primary">Log in</button>
    <p class=${problem ? "bad" : "dim"} role="status">${problem ?? needed.message}</p>
  </form>`
}
