// Cpu, memory and restarts of a job: what the node measured before the page was opened, then what the page sees. uPlot is loaded
// when the charts are opened.
import {explain, get, jobPath} from "./api.js"
import {clock} from "./format.js"
import {html, useEffect, useRef, useScheme, useState, useValue} from "./lib.js"
import {route, setQuery} from "./route.js"

const HEIGHT = 160 // px
const KEPT = 1800 // measurements of the page, an hour
const EMPTY = {bySlot: new Map(), restarts: null}
const PAUSE = 15 // seconds without a measurement, such as while the page was hidden: the node knows more then
const MOST_LINES = 6

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
const known = (values) => values.filter((value) => typeof value === "number")
const sum = (values) => (known(values).length ? known(values).reduce((total, value) => total + value, 0) : null)

// A line for each process, by its slot; of many processes their sum and the highest value.
const ofProcesses = (measure) => (samples) => {
  const slots = [...new Set(samples.flatMap(({bySlot}) => [...bySlot.keys()]))].sort((a, b) => a - b)
  const value = (sample, slot) => (sample.bySlot.has(slot) ? measure(sample.bySlot.get(slot)) : null)
  if (slots.length <= MOST_LINES) return slots.map((slot) => ({label: slot ? `#${slot}` : "once", values: samples.map((each) => value(each, slot))}))
  const all = samples.map((each) => slots.map((slot) => value(each, slot)))
  return [
    {label: "all processes", values: all.map(sum)},
    {label: "highest", values: all.map((values) => (known(values).length ? Math.max(...known(values)) : null))},
  ]
}

const CHARTS = [
  {title: "CPU, percent of a processor", shown: short, series: ofProcesses(({cpu}) => cpu)},
  {title: "Resident memory, MiB", shown: short, series: ofProcesses(({memory}) => (memory === null ? null : memory / 2 ** 20))},
  {title: "Restarts", shown: String, series: (samples) => [{label: "restarts", values: samples.map((each) => each.restarts)}]},
]

// What the node measured, as samples of this page, in the time of its clock.
function samplesOf({at, now, restarts, processes}) {
  const ahead = Date.now() / 1000 - now
  return at.map((time, index) => ({
    at: time + ahead,
    restarts: restarts[index],
    bySlot: new Map(processes.filter(({cpu}) => cpu[index] !== null).map(({slot, cpu, memory}) => [slot, {cpu: cpu[index], memory: memory[index]}])),
  }))
}

// An empty sample where none was taken for more than `most` seconds, so that no line leads over what is not known.
const withGaps = (samples, most) => samples.flatMap((each, index) => (index > 0 && each.at - samples[index - 1].at > most ? [{...EMPTY, at: each.at - 0.001}, each] : [each]))

// `usage` is {at, bySlot}: of each slot {cpu, memory}, measured at a time (ms).
export function Charts({job, usage}) {
  const open = useValue(route).query.get("charts") === "open"
  const [past, setPast] = useState({samples: [], interval: null, problem: null})
  const live = useRef([])
  const [begun] = useState(Date.now() / 1000)
  async function load() {
    try {
      const found = await get(`${jobPath(job.name)}/usage`)
      setPast({samples: samplesOf(found), interval: found.interval, problem: found.left_out > 0 ? `${found.left_out} processes of the node are not recorded: it has too many` : null})
    } catch (error) {
      setPast((last) => ({...last, problem: explain(error)}))
    }
  }
  useEffect(() => {
    if (open) load()
  }, [open])
  useEffect(() => {
    if (usage.at === null) return
    const at = usage.at / 1000
    const last = live.current.at(-1)?.at ?? at
    if (open && at - last > PAUSE && past.interval !== null) {
      live.current = []
      load()
    }
    live.current.push({at, bySlot: usage.bySlot, restarts: job.restarts})
    if (live.current.length > KEPT) live.current.shift()
  }, [usage.at])
  const first = live.current[0]?.at ?? begun
  const samples = withGaps([...past.samples.filter(({at}) => at < first), ...live.current], Math.max(PAUSE, 3 * past.interval))
  const since = clock(samples[0]?.at ?? begun)
  return html`<section class="block"><h2><button class="disclosure" aria-expanded=${open} onClick=${() => setQuery({charts: open ? null : "open"})}>Charts</button>
    ${open && html`<small>${past.samples.length ? `since ${since}, every ${past.interval} s; from ${clock(first)} on every 2 s` : `since ${since}, every 2 s`}</small>`}</h2>
    ${open && past.problem && html`<p class="dim">${past.problem}</p>`}
    ${open && html`<div class="charts">${CHARTS.map((chart) => html`<${Chart} key=${chart.title} title=${chart.title} shown=${chart.shown} series=${chart.series(samples)} times=${samples.map((each) => each.at)} />`)}</div>`}
  </section>`
}

const COLORS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"]

function Chart({title, shown, series, times}) {
  const box = useRef(null)
  const plot = useRef(null)
  const [error, setError] = useState(null)
  const scheme = useScheme()
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
  }, [labels.join(), scheme])
  useEffect(() => plot.current?.setData(data), [times[0], times.at(-1)])
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
