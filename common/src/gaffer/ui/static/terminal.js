// The input and output of one process. Its input is a pipe, not a terminal: lines are edited here and sent whole.
import {allowance, ApiError, explain, get, isGuest, loadAllowance, root, setNodeName, token, whereabouts} from "./api.js"
import {Terminal} from "./vendor/xterm.js"
import {FitAddon} from "./vendor/xterm-fit.js"

const DELAYS = [250, 500, 1000, 2000]
const TAIL = 200 // lines shown at first

const byId = (id) => document.getElementById(id)
const pid = location.hash.slice(1)
const style = getComputedStyle(document.documentElement)
const color = (name) => style.getPropertyValue(name).trim()
const theme = () => ({background: color("--raised"), foreground: color("--ink"), cursor: color("--raised"), selectionBackground: color("--edge")})

const terminal = new Terminal({
  convertEol: true,
  disableStdin: true,
  scrollback: 10_000,
  fontSize: 13,
  fontFamily: style.getPropertyValue("--mono"),
  screenReaderMode: true,
  allowProposedApi: false,
  linkHandler: {activate: () => {}}, // addresses in the output open nothing
  theme: theme(),
})
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (terminal.options.theme = theme()))
const fit = new FitAddon()
terminal.loadAddon(fit)
terminal.open(byId("terminal"))
new ResizeObserver(() => fit.fit()).observe(byId("terminal"))

let socket = null
let attempt = 0
let ended = false
let loaded = false
const past = []
let place = 0

function show(state, text) {
  byId("connection").className = `connection ${state}`
  byId("state").textContent = text
  for (const field of document.querySelectorAll("#entry input, #entry button")) field.disabled = state !== "open"
}

const remark = (text) => terminal.write(`\r\n\x1b[2m— ${text} —\x1b[0m\r\n`)

function connect() {
  const target = new URL(`wstreams/${encodeURIComponent(pid)}`, root)
  target.protocol = target.protocol.replace("http", "ws")
  if (!loaded) target.searchParams.set("tail", TAIL)
  socket = new WebSocket(target)
  socket.binaryType = "arraybuffer"
  socket.onopen = () => {
    if (token() !== null) socket.send(`AUTH:${token()}`)
    if (attempt > 0) remark("connection is back; what came meanwhile is in the log")
    attempt = 0
    loaded = true
    show("open", "Live")
    byId("line").focus()
  }
  socket.onmessage = ({data}) => {
    const refusal = typeof data === "string" && data.startsWith('{"error":') ? parse(data) : null
    if (refusal?.errno) remark(`${refusal.message}${refusal.hint ? ` — ${refusal.hint}` : ""}`)
    else terminal.write(typeof data === "string" ? data : new Uint8Array(data))
  }
  socket.onclose = () => void lost()
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

async function lost() {
  if (ended) return
  try {
    await get(`/${pid}`)
  } catch (error) {
    if (error instanceof ApiError) {
      ended = true
      remark(error.status === 404 ? "the process has ended" : explain(error))
      return show("refused", error.status === 404 ? "The process has ended" : explain(error))
    }
  }
  if (attempt === 0) remark("connection lost")
  show("lost", "Connection lost, retrying")
  setTimeout(connect, DELAYS[Math.min(attempt++, DELAYS.length - 1)])
}

byId("entry").onsubmit = (event) => {
  event.preventDefault()
  const line = byId("line").value
  byId("line").value = ""
  terminal.write(`\x1b[1m> ${line.replaceAll("\x1b", "␛")}\x1b[0m\r\n`)
  if (line) past.push(line)
  place = past.length
  socket.send(`${line}\n`)
}

byId("line").onkeydown = (event) => {
  const step = {ArrowUp: -1, ArrowDown: 1}[event.key]
  if (step === undefined) return
  event.preventDefault()
  place = Math.max(0, Math.min(past.length, place + step))
  byId("line").value = past[place] ?? ""
}

async function begin() {
  try {
    await loadAllowance()
    const {scopes} = allowance.value
    const [process, health] = await Promise.all([get(`/processes/${pid}`), get("/health")])
    setNodeName(health.name ?? null)
    byId("where").textContent = byId("where").title = `process ${pid} of ${process.name} on node ${whereabouts()}`
    document.title = `${process.name} ${pid} · Terminal · Gaffer`
    if (isGuest()) return show("refused", "This tab has not logged in: open the terminal from the page of the job")
    if (!scopes.includes("control")) return show("refused", "Your key may not write to processes (scope control)")
    if (!process.redirect_input) return show("refused", "The input of this process is not redirected (redirect_input)")
    connect()
  } catch (error) {
    show("refused", explain(error))
  }
}

begin()
