"""A picture of a terminal: the cells of its screen as HTML, drawn by Chromium."""

import html
import re
from pathlib import Path

from playwright.sync_api import sync_playwright

_STYLE = re.compile(r"\x1b\[([\d;]*)m")
_COLOURS = {
    "31": "#ff7b72",
    "32": "#7ee787",
    "33": "#e3b341",
    "34": "#79c0ff",
    "35": "#d2a8ff",
    "36": "#56d4dd",
}
_INK, _PAPER = "#d8dee6", "#0d1117"
_PAGE = f"""<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: {_PAPER}; color: {_INK}; width: max-content; }}
h1 {{ margin: 0; padding: 9px 18px; font: 14px "DejaVu Sans Mono"; color: #9aa4b2; background: #161b22; }}
pre {{ margin: 0; padding: 12px 18px 16px; font: 16px/1.35 "DejaVu Sans Mono"; }}
pre span {{ display: inline-block; vertical-align: top; }}
</style>"""


def draw(styled: str, columns: int, title: str, target: Path) -> None:
    """Draw a screen with the sequences for colours, such as `Tmux.styled`, below a title; write a PNG file."""
    body = "\n".join(_line(line, columns) for line in styled.rstrip("\n").split("\n"))
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        try:
            page = browser.new_page()
            page.set_content(f"{_PAGE}<h1>{html.escape(title)}</h1><pre>{body}</pre>")
            page.locator("body").screenshot(path=target)
        finally:
            browser.close()


def _line(line: str, columns: int) -> str:
    """Return a line as HTML: a span for each piece of one style. Each line begins without one."""
    style: set[str] = set()
    spans, taken = [], 0
    for index, piece in enumerate(_STYLE.split(line)):
        if index % 2:
            for code in (piece or "0").split(";"):
                if code in ("0", "39", "49"):
                    style = {each for each in style if code != "0" and each not in _COLOURS}
                else:
                    style.add(code)
        elif piece:
            spans.append(f'<span style="{_css(style)}">{html.escape(piece)}</span>')
            taken += len(piece)
    # tmux leaves out the end of a line that is empty in the last style
    spans.append(f'<span style="{_css(style)}">{" " * (columns - taken)}</span>')
    return "".join(spans)


def _css(style: set[str]) -> str:
    ink = next((_COLOURS[code] for code in style if code in _COLOURS), _INK)
    paper = "transparent"
    if "7" in style:
        ink, paper = _PAPER, ink
    rules = [f"color: {ink}", f"background: {paper}"]
    if "1" in style:
        rules.append("font-weight: bold")
    if "2" in style:
        rules.append("opacity: 0.6")
    if "4" in style:
        rules.append("box-shadow: inset 0 -1px #6e7681")
    return "; ".join(rules)
