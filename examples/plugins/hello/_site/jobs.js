// Plugin pages have the origin of their node and can call its API directly. If the node requires a key, the page exchanges
// it for a cookie, which scripts cannot read, and a token, which is required for every request that changes something.
const list = document.getElementById("jobs")
const login = document.getElementById("login")
const key = document.getElementById("key")
const error = document.getElementById("error")

async function call(method, path, body, headers) {
  const token = sessionStorage.getItem("gaffer-token")
  const response = await fetch(path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: {
      ...(body === undefined ? {} : {"Content-Type": "application/json"}),
      ...(token === null ? {} : {"X-Gaffer-Token": token}),
      ...headers,
    },
  })
  const result = await response.json()
  login.hidden = !["auth_required", "token_required"].includes(result.error)
  error.textContent = response.ok ? "" : result.message
  return response.ok ? result : null
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
  const result = await call("GET", "/jobs")
  list.replaceChildren(...(result === null ? [] : result.jobs).map(itemFor))
}

login.onsubmit = async (event) => {
  event.preventDefault()
  const result = await call("POST", "/auth/session", {}, {"Authorization": `Bearer ${key.value}`})
  key.value = ""
  if (result !== null) {
    sessionStorage.setItem("gaffer-token", result.token)
    await show()
  }
}

show()
