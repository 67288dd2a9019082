// A page of a plugin has the origin of its node: it asks the API as it stands. Where the node wants a key, the page
// exchanges it for a cookie, which scripts cannot read, and for a token, which goes with everything but reading.
const list = document.getElementById("jobs")
const login = document.getElementById("login")
const key = document.getElementById("key")
const error = document.getElementById("error")

async function call(method, path, body, headers) {
  const token = sessionStorage.getItem("gaffer-token")
  const answer = await fetch(path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: {
      ...(body === undefined ? {} : {"Content-Type": "application/json"}),
      ...(token === null ? {} : {"X-Gaffer-Token": token}),
      ...headers,
    },
  })
  const found = await answer.json()
  login.hidden = !["auth_required", "token_required"].includes(found.error)
  error.textContent = answer.ok ? "" : found.message
  return answer.ok ? found : null
}

function itemFor(job) {
  const item = document.createElement("li")
  const button = document.createElement("button")
  item.textContent = job
  button.textContent = "Add a process"
  button.onclick = () => call("POST", `/jobs/${job.replace(".", "/")}/numprocesses`, {scale: 1})
  item.append(" ", button)
  return item
}

async function show() {
  const found = await call("GET", "/jobs")
  list.replaceChildren(...(found === null ? [] : found.jobs).map(itemFor))
}

login.onsubmit = async (event) => {
  event.preventDefault()
  const found = await call("POST", "/auth/session", {}, {"Authorization": `Bearer ${key.value}`})
  key.value = ""
  if (found !== null) {
    sessionStorage.setItem("gaffer-token", found.token)
    await show()
  }
}

show()
