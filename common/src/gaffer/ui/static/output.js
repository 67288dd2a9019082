// Output of processes as text with the colours of terminals.
import {pieces} from "./ansi.js"
import {html} from "./lib.js"

export const Line = ({text}) => pieces(text).map(([part, style]) => (style ? html`<span class=${style.class} style=${style.style}>${part}</span>` : part))

export function Output({text}) {
  return html`<pre class="output">${text.split("\n").map((line, index) => html`<div key=${index}><${Line} text=${line} />${"\n"}</div>`)}</pre>`
}
