// A page of a plugin has the origin of its node: it asks the API as it stands.
const list = document.getElementById("jobs")

async function show() {
  const answer = await fetch("/jobs")
  const found = await answer.json()
  const lines = answer.ok ? found.jobs : [found.message]
  list.replaceChildren(...lines.map((text) => {
    const item = document.createElement("li")
    item.textContent = text
    return item
  }))
}

show()
