// Cpu and memory of the processes of a job. uPlot is loaded when the charts are opened. The node keeps no history of usage: charts
// begin when the page is opened, and say so.
import {clock, parseSize} from "./format.js"
import {html, useEffect, useRef, useState} from "./lib.js"

const KEPT = 900 // measurements, half an hour

let library = null
function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    const style = document.createElement("link")
    style.rel = "stylesheet"
    style.href = new URL("vendor/uplot.css", import.meta.url)
    document.head.append(style)
    import("./vendor/uplot.js").then((module) => resolve(module.default), reject)
  })
  return library
}

const CHARTS = [
  ["CPU, percent of a processor", (stats) => (typeof stats.cpu === "number" ? stats.cpu : null), (value) => value.toFixed(value < 10 ? 1 : 0)],
  ["Resident memory, MiB", (stats) => (parseSize(stats.mem_info1) ?? NaN) / 2 ** 20, (value) => value.toFixed(value < 10 ? 1 : 0)],
]

export function Charts({job, stats}) {
  const [open, setOpen] = useState(false)
  const samples = useRef([])
  const begun = useRef(Date.now() / 1000)
  useEffect(() => {
    if (stats.at === null) return
    samples.current.push({at: stats.at / 1000, byPid: stats.byPid})
    if (samples.current.length > KEPT) samples.current.shift()
  }, [stats.at])
  return html`<section class="block"><h2><button class="disclosure" aria-expanded=${open} onClick=${() => setOpen(!open)}>Charts</button>
    ${open && html`<small>since ${clock(samples.current[0]?.at ?? begun.current)}, when this page was opened; every 2 s</small>`}</h2>
    ${open && html`<div class="charts">${CHARTS.map(([title, value, shown]) => html`<${Chart} key=${title} title=${title} value=${value} shown=${shown} samples=${samples.current} at=${stats.at} />`)}</div>`}
  </section>`
}

const COLORS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"]

function Chart({title, value, shown, samples, at}) {
  const box = useRef(null)
  const plot = useRef(null)
  const [error, setError] = useState(null)
  const pids = [...new Set(samples.flatMap((each) => [...each.byPid.keys()]))].slice(-6)
  const data = [samples.map((each) => each.at), ...pids.map((pid) => samples.map((each) => (each.byPid.has(pid) ? value(each.byPid.get(pid)) : null)))]
  const latest = pids.map((pid) => samples.at(-1)?.byPid.get(pid)).filter(Boolean).map(value)

  useEffect(() => {
    let ended = false
    loadLibrary().then((UPlot) => {
      if (ended) return
      plot.current?.destroy()
      plot.current = new UPlot(options(title, pids, box.current, shown), data, box.current)
    }, () => setError("The charts could not be loaded."))
    const observer = new ResizeObserver(([entry]) => plot.current?.setSize({width: entry.contentRect.width, height: 160}))
    observer.observe(box.current)
    return () => {
      ended = true
      observer.disconnect()
      plot.current?.destroy()
      plot.current = null
    }
  }, [pids.join()])
  useEffect(() => plot.current?.setData(data), [at])
  const label = `${title}: ${pids.map((pid, index) => `process ${pid} ${latest[index] === undefined ? "ended" : shown(latest[index] ?? 0)}`).join(", ")}`
  return html`<figure class="chart"><figcaption>${title}</figcaption><div ref=${box} role="img" aria-label=${label}></div>${error && html`<p class="bad">${error}</p>`}</figure>`
}

// The value under the cursor, or the last one.
const latest = (shown) => (plot, value, series, index) => {
  const found = index === null ? plot.data[series].at(-1) : value
  return found === null || found === undefined ? "–" : shown(found)
}

function options(title, pids, box, shown) {
  const css = getComputedStyle(box)
  const color = (name) => css.getPropertyValue(name).trim()
  const axis = {stroke: color("--dim"), grid: {stroke: color("--line"), width: 1}, ticks: {stroke: color("--line")}, font: `11px ${css.fontFamily}`}
  return {
    width: box.clientWidth,
    height: 160,
    cursor: {y: false},
    scales: {
      x: {range: (plot, low, high) => [Math.min(low, high - 60), high]},
      y: {range: (plot, low, high) => [0, Math.max(high * 1.1, 1)]},
    },
    axes: [{...axis, values: (plot, ticks) => ticks.map(clock), space: 90}, {...axis, size: 44}],
    series: [
      {label: "time", value: latest(clock)},
      ...pids.map((pid, index) => ({label: `pid ${pid}`, stroke: color(COLORS[index]), width: 1.5, points: {show: false}, spanGaps: false, value: latest(shown)})),
    ],
  }
}
