// Cpu and memory of the processes of a job. uPlot is loaded when the charts are opened. The node keeps no history of usage: charts
// begin when the page is opened, and say so.
import {clock, parseSize} from "./format.js"
import {html, useEffect, useRef, useState} from "./lib.js"

const HEIGHT = 160 // px
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

const short = (value) => value.toFixed(value < 10 ? 1 : 0)
const pidsOf = (samples) => [...new Set(samples.flatMap((each) => [...each.byPid.keys()]))].slice(-6)

// Of each process: the number that `value` takes from its stats.
const ofProcesses = (value) => (samples) =>
  pidsOf(samples).map((pid) => ({label: `pid ${pid}`, values: samples.map((each) => (each.byPid.has(pid) ? value(each.byPid.get(pid)) : null))}))

const CHARTS = [
  {title: "CPU, percent of a processor", shown: short, series: ofProcesses((stats) => (typeof stats.cpu === "number" ? stats.cpu : null))},
  {title: "Resident memory, MiB", shown: short, series: ofProcesses((stats) => (parseSize(stats.mem_info1) ?? NaN) / 2 ** 20)},
  {title: "Restarts", shown: String, series: (samples) => [{label: "restarts", values: samples.map((each) => each.restarts)}]},
]

export function Charts({job, stats}) {
  const [open, setOpen] = useState(false)
  const samples = useRef([])
  const [begun] = useState(Date.now() / 1000)
  useEffect(() => {
    if (stats.at === null) return
    samples.current.push({at: stats.at / 1000, byPid: stats.byPid, restarts: job.restarts})
    if (samples.current.length > KEPT) samples.current.shift()
  }, [stats.at])
  return html`<section class="block"><h2><button class="disclosure" aria-expanded=${open} onClick=${() => setOpen(!open)}>Charts</button>
    ${open && html`<small>since ${clock(samples.current[0]?.at ?? begun)}, when this page was opened; every 2 s</small>`}</h2>
    ${open && html`<div class="charts">${CHARTS.map((chart) => html`<${Chart} key=${chart.title} title=${chart.title} shown=${chart.shown} series=${chart.series(samples.current)} times=${samples.current.map((each) => each.at)} />`)}</div>`}
  </section>`
}

const COLORS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"]

function Chart({title, shown, series, times}) {
  const box = useRef(null)
  const plot = useRef(null)
  const [error, setError] = useState(null)
  const labels = series.map((each) => each.label)
  const data = [times, ...series.map((each) => each.values)]
  useEffect(() => {
    let ended = false
    loadLibrary().then((UPlot) => {
      if (ended) return
      plot.current = new UPlot(options(labels, box.current, shown), data, box.current)
    }, () => setError("The charts could not be loaded."))
    const observer = new ResizeObserver(([entry]) => plot.current?.setSize({width: entry.contentRect.width, height: HEIGHT}))
    observer.observe(box.current)
    return () => {
      ended = true
      observer.disconnect()
      plot.current?.destroy()
      plot.current = null
    }
  }, [labels.join()])
  useEffect(() => plot.current?.setData(data), [times.at(-1)])
  const last = series.map(({label, values}) => `${label} ${typeof values.at(-1) === "number" ? shown(values.at(-1)) : "ended"}`)
  return html`<figure class="chart"><figcaption>${title}</figcaption><div ref=${box} role="img" aria-label=${`${title}: ${last.join(", ")}`}></div>${error && html`<p class="bad">${error}</p>`}</figure>`
}

// The value under the cursor, or the last one.
const latest = (shown) => (plot, value, series, index) => {
  const found = index === null ? plot.data[series].at(-1) : value
  return found === null || found === undefined ? "–" : shown(found)
}

function options(labels, box, shown) {
  const css = getComputedStyle(box)
  const color = (name) => css.getPropertyValue(name).trim()
  const axis = {stroke: color("--dim"), grid: {stroke: color("--line"), width: 1}, ticks: {stroke: color("--line")}, font: `11px ${css.fontFamily}`}
  return {
    width: box.clientWidth,
    height: HEIGHT,
    cursor: {y: false},
    scales: {
      x: {range: ({data: [times]}) => [Math.min(times[0], times.at(-1) - 60), times.at(-1)]}, // a minute at least
      y: {range: (plot, low, high) => [0, Math.max(high * 1.1, 1)]},
    },
    axes: [{...axis, values: (plot, ticks) => ticks.map(clock), space: 90}, {...axis, size: 44}],
    series: [
      {label: "time", value: latest(clock)},
      ...labels.map((label, index) => ({label, stroke: color(COLORS[index]), width: 1.5, points: {show: false}, spanGaps: false, value: latest(shown)})),
    ],
  }
}
