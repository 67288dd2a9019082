// What can be done to jobs: each with its request, its consequences, and the command that does the same.
import {jobPath} from "./api.js"

const names = (jobs) => jobs.map((job) => job.name).join(" ")
// A word of a command line.
export const quote = (text) => (/^[\w.,:=+/@%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)
const running = (jobs) => jobs.reduce((sum, job) => sum + job.running, 0)
const processes = (count) => (count === 1 ? "1 process" : `${count} processes`)

const state = (digit) => (job) => ({path: `${jobPath(job.name)}/state`, text: digit})

const SIGNALS = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "STOP", "KILL"]

export const ACTIONS = [
  {
    id: "start",
    label: "Start",
    bulk: true,
    applies: (job) => !job.active && !job.disabled,
    effect: (jobs) => `Starts ${jobs.length === 1 ? "the job" : "these jobs"} as configured.`,
    request: state("1"),
    command: (jobs) => `gaffer ps:start ${names(jobs)}`,
  },
  {
    id: "restart",
    label: "Rolling restart",
    bulk: true,
    applies: (job) => job.active,
    effect: (jobs) => `Replaces ${processes(running(jobs))}, a few at a time: the next ones when the new ones are ready.`,
    request: (job) => ({path: `${jobPath(job.name)}/restart`, query: {rolling: "true"}, body: {}}),
    command: (jobs) => `gaffer restart ${names(jobs)} --rolling`,
  },
  {
    id: "restart-now",
    label: "Restart at once",
    bulk: true,
    danger: true,
    applies: (job) => job.active,
    effect: (jobs) => `Ends ${processes(running(jobs))} and starts new ones. Nothing runs in between.`,
    request: (job) => ({path: `${jobPath(job.name)}/restart`, body: {}}),
    command: (jobs) => `gaffer restart ${names(jobs)}`,
  },
  {
    id: "scale",
    label: "Scale",
    applies: () => true,
    fields: (job) => [{name: "count", label: "Processes", type: "number", min: 0, max: 10000, value: job.max_processes}],
    effect: (jobs, values) => {
      const changes = jobs.map((job) => Number(values.count) - job.max_processes)
      const more = changes.reduce((sum, change) => sum + Math.max(0, change), 0)
      const fewer = changes.reduce((sum, change) => sum + Math.max(0, -change), 0)
      if (!more && !fewer) return `${jobs.length === 1 ? "The job has" : "Each of these jobs has"} ${processes(Number(values.count))}: nothing changes.`
      return [more && `Starts ${processes(more)}.`, fewer && `Ends ${processes(fewer)}, those with the highest slots.`].filter(Boolean).join(" ")
    },
    request: (job, values) => ({path: `${jobPath(job.name)}/numprocesses`, body: {scale: `=${Number(values.count)}`}}),
    command: ([job], values) => {
      const [session, name] = job.name.split(".")
      return `gaffer scale ${session} ${name}=${Number(values.count)}`
    },
  },
  {
    id: "signal",
    label: "Send a signal",
    applies: (job) => job.running > 0,
    fields: () => [{name: "signal", label: "Signal", options: SIGNALS, value: "HUP"}],
    effect: (jobs, values) => `Sends SIG${values.signal} to ${processes(running(jobs))}.`,
    request: (job, values) => ({path: `${jobPath(job.name)}/signal`, body: {signal: values.signal}}),
    command: ([job], values) => `gaffer kill ${job.name} ${values.signal}`,
  },
  {
    id: "reload",
    label: "Reload",
    applies: (job) => job.active && job.running > 0,
    effect: ([job]) =>
      job.config?.reload_signal
        ? `Sends the reload signal to ${processes(job.running)}.`
        : `The job has no reload signal: ${processes(job.running)} will be replaced.`,
    request: (job) => ({path: `${jobPath(job.name)}/reload`, body: {}}),
    command: ([job]) => `gaffer reload ${job.name}`,
  },
  {
    id: "rollback",
    label: "Roll back",
    danger: true,
    applies: (job) => (job.generation ?? 1) > 1,
    fields: (job, values) => [
      {name: "to", label: "To generation", type: "number", min: 1, max: job.generation - 1, value: values.to ?? job.generation - 1},
    ],
    effect: ([job], values) =>
      `Returns to definition ${values.to}, as generation ${job.generation + 1}, and replaces processes a few at a time.`,
    request: (job, values) => ({path: `${jobPath(job.name)}/rollback`, query: {to: values.to}, body: {}}),
    command: ([job], values) => `gaffer rollback ${job.name} --to=${values.to}`,
  },
  {
    id: "disable",
    label: "Disable",
    danger: true,
    applies: (job) => !job.disabled,
    fields: () => [
      {name: "reason", label: "Reason", type: "text", required: true, value: ""},
      {name: "seconds", label: "Ends after (seconds, empty: until enabled)", type: "number", min: 1, value: ""},
    ],
    effect: (jobs) => `Stops ${processes(running(jobs))}; the job stays off over reloads and restarts until it is enabled.`,
    request: (job, values) => ({
      path: `${jobPath(job.name)}/disable`,
      body: {reason: values.reason, ...(values.seconds === "" ? {} : {for: Number(values.seconds)})},
    }),
    command: ([job], values) =>
      `gaffer disable ${job.name} --reason=${quote(values.reason)}` + (values.seconds === "" ? "" : ` --for=${values.seconds}`),
  },
  {
    id: "enable",
    label: "Enable",
    applies: (job) => Boolean(job.disabled),
    effect: () => "Lets the job run again, if it was started.",
    request: (job) => ({path: `${jobPath(job.name)}/enable`, body: {}}),
    command: ([job]) => `gaffer enable ${job.name}`,
  },
  {
    id: "stop",
    label: "Stop",
    bulk: true,
    danger: true,
    applies: (job) => job.active,
    effect: (jobs) => `Ends ${processes(running(jobs))}. A job that was stopped stays stopped.`,
    request: state("0"),
    command: (jobs) => `gaffer stop ${names(jobs)}`,
  },
]

export const actionNamed = (id) => ACTIONS.find((action) => action.id === id)

// The end of one process: the job replaces it.
export const STOP_PROCESS = {
  id: "stop-process",
  label: "Stop",
  danger: true,
  effect: ([process]) => `Ends process ${process.pid} of ${process.job}. The job starts another in its place.`,
  request: (process) => ({method: "DELETE", path: `/${process.pid}`}),
  command: ([process]) => `gaffer stop ${process.pid}`,
}

export const SIGNAL_PROCESS = {
  id: "signal-process",
  label: "Signal",
  fields: () => [{name: "signal", label: "Signal", options: SIGNALS, value: "HUP"}],
  effect: ([process], values) => `Sends SIG${values.signal} to process ${process.pid} of ${process.job}.`,
  request: (process, values) => ({path: `/${process.pid}/signal`, body: {signal: values.signal}}),
  command: ([process], values) => `gaffer kill ${process.pid} ${values.signal}`,
}
