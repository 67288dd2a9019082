// Saving a file that the daemon sends. Its own pages link to it; a page of a cluster, whose keys are no cookies, fetches it and writes
// it to the disk as it arrives where the browser can do that, else when all of it is there.
import {explain, home, root, send, url} from "./api.js"
import {announce} from "./dialog.js"
import {bytes} from "./format.js"
import {html, useEffect, useRef, useState} from "./lib.js"

const SHOW = 500 // ms between two progress reports
const SILENCE = 30_000 // ms without a byte

// `command` does the same and is shown when this fails.
export function Download({path, query, name, command}) {
  const [received, setReceived] = useState(null) // bytes while a download runs
  const abort = useRef(null)
  useEffect(() => () => abort.current?.abort(), [])
  if (root.origin === home.origin) return html`<a class="button" href=${url(path, query)} download=${name}>Download</a>`

  async function save() {
    let file = null
    try {
      file = (await window.showSaveFilePicker?.({suggestedName: name})) ?? null
    } catch (error) {
      if (error.name === "AbortError") return
    }
    const stopper = (abort.current = new AbortController())
    let reason = null
    let heard = null
    const alive = () => {
      clearTimeout(heard)
      heard = setTimeout(() => { reason = `nothing came for ${SILENCE / 1000} s`; stopper.abort() }, SILENCE)
    }
    setReceived(0)
    try {
      alive()
      const response = await send("GET", path, {query, signal: stopper.signal})
      let count = 0
      let shown = 0
      const counting = new TransformStream({
        transform(chunk, controller) {
          alive()
          count += chunk.byteLength
          if (Date.now() - shown > SHOW) setReceived(count)
          if (Date.now() - shown > SHOW) shown = Date.now()
          controller.enqueue(chunk)
        },
      })
      const body = response.body.pipeThrough(counting)
      if (file !== null) await body.pipeTo(await file.createWritable())
      else offer(await new Response(body).blob(), name)
      announce(`Saved ${name}: ${bytes(count)}`)
    } catch (error) {
      if (!stopper.signal.aborted || reason !== null) announce(`${name} was not saved: ${reason ?? explain(error)} The same: ${command}`, "bad")
    } finally {
      clearTimeout(heard)
      setReceived(null)
    }
  }
  if (received === null) return html`<button onClick=${save}>Download</button>`
  return html`<button onClick=${() => abort.current.abort()}>Downloading, ${bytes(received)}: cancel</button>`
}

function offer(blob, name) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000) // the browser reads it meanwhile
}
