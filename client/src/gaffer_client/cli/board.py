"""What `gaffer top` shows and how it responds to keys. Pure: no I/O, no clock."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from gaffer_client.cli.output import printable
from gaffer_client.cli.screen import fit, width
from gaffer_client.naming import urgency
from gaffer_client.progress import details_of

if TYPE_CHECKING:
    from gaffer_client.documents import ListedJob

KEPT_LINES: Final = 2000
_STATE_COLOURS = {"failed": "31", "backoff": "33", "starting": "33", "stopping": "33", "waiting": "36", "stopped": "2"}
_TROUBLE = {"failed": "failed", "backoff": "in backoff"}
_KEYS = ("q quit", "r restart", "s stop", "l logs", "o order")
_LOG_KEYS = "q back"
_MESSAGE_UPDATES = 4
_LEAST_TABLE = 5  # lines of the table without which nothing more is said of the selected job


class Row(NamedTuple):
    """A job on a node. `cpu` is in percent of a processor, `memory` of that of the machine, `uptime` in seconds.

    `rank` is its place in a list that begins with those that need attention.
    """

    node: str
    job: str
    state: str
    running: int
    wanted: int
    restarts: int
    cpu: float | None
    memory: float | None
    uptime: float | None
    details: str
    rank: float = 0.0

    @classmethod
    def of(cls, node: str, info: "ListedJob") -> "Row":
        """Return the row of a job that a node listed with its resource usage."""
        stats = info.get("stats")
        uptimes = [each["uptime"] for each in info["instances"] if each["pid"] is not None and "uptime" in each]
        return cls(
            node,
            info["name"],
            info["state"],
            info["running"],
            info["max_processes"],
            info.get("restarts", 0),
            _number(stats and stats["cpu"]),
            _number(stats and stats["mem"]),
            min(uptimes, default=None),
            "; ".join(details_of(info)),
            urgency(info["state"], info["reason"]),
        )

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the row."""
        return self.node, self.job


class Act(NamedTuple):
    """What a key asks for: `quit`, `follow` the logs of a job or `unfollow`, or to `restart` or `stop` a job."""

    kind: Literal["quit", "follow", "unfollow", "restart", "stop"]
    row: Row | None = None


class _Column(NamedTuple):
    """A column of the table; those with the highest `rank` are left out first on a narrow terminal."""

    title: str
    text: Callable[[Row], str]
    rank: int
    right: bool = False


_COLUMNS = (
    _Column("NODE", lambda row: row.node, 3),
    _Column("JOB", lambda row: row.job, 0),
    _Column("STATE", lambda row: row.state, 1),
    _Column("RUN", lambda row: f"{row.running}/{row.wanted}", 2, right=True),
    _Column("CPU%", lambda row: _percent(row.cpu), 4, right=True),
    _Column("MEM%", lambda row: _percent(row.memory), 5, right=True),
    _Column("RESTARTS", lambda row: str(row.restarts), 6, right=True),
    _Column("UP", lambda row: _span(row.uptime), 7, right=True),
    _Column("DETAILS", lambda row: row.details, 8),
)
_NAMES = ("NODE", "JOB", "DETAILS")  # columns that may be long

_ORDERS: dict[str, Callable[[Row], tuple[object, ...]]] = {
    "state": lambda row: (row.rank, -(row.cpu or 0.0), row.job, row.node),
    "cpu": lambda row: (-(row.cpu or 0.0), row.job, row.node),
    "memory": lambda row: (-(row.memory or 0.0), row.job, row.node),
    "restarts": lambda row: (-row.restarts, row.job, row.node),
    "name": lambda row: (row.job, row.node),
}


class Board:
    """The jobs of nodes, one of which is selected, or the log of a job. `title` describes the nodes.

    `several`: of several nodes, whose names are shown. Without `colour` nothing but characters is drawn. A board that
    is not `live` shows no selection.
    """

    def __init__(self, title: str, *, several: bool, colour: bool, live: bool = True) -> None:
        self._live = live
        self._title = title
        self._columns = [column for column in _COLUMNS if several or column.title != "NODE"]
        self._colour = colour
        self._rows: list[Row] = []
        self._failures: dict[str, str] = {}
        self._order = next(iter(_ORDERS))
        self._selected: tuple[str, str] | None = None
        self._top = 0
        self._page = 1
        self._asked: Act | None = None
        self._message = ""
        self._message_left = 0
        self._followed: Row | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def update(self, rows: Sequence[Row], failures: dict[str, str]) -> None:
        """Show these jobs, and the errors of nodes by name."""
        self._rows = sorted(rows, key=_ORDERS[self._order])
        self._failures = failures
        self._message_left -= 1
        if self._message_left <= 0:
            self._message = ""

    def add_lines(self, lines: Sequence[str]) -> None:
        """Show these lines at the end of the log."""
        self._lines.extend(lines)

    def say(self, message: str) -> None:
        """Show a message until the next key, or some updates later."""
        self._message, self._message_left = message, _MESSAGE_UPDATES

    def press(self, key: str) -> Act | None:
        """Respond to a key; return what is to be done."""
        self._message = ""
        if self._followed is not None:
            if key in ("q", "escape", "l"):
                self._followed = None
                self._lines.clear()
                return Act("unfollow")
            return None
        if self._asked is not None:
            asked, self._asked = self._asked, None
            return asked if key in ("y", "Y") else None
        row = self._row
        match key:
            case "q" | "escape":
                return Act("quit")
            case "o":
                names = list(_ORDERS)
                self._order = names[(names.index(self._order) + 1) % len(names)]
                self._rows.sort(key=_ORDERS[self._order])
            case "up" | "k":
                self._move(-1)
            case "down" | "j":
                self._move(1)
            case "page up":
                self._move(-self._page)
            case "page down":
                self._move(self._page)
            case "home":
                self._move(-len(self._rows))
            case "end":
                self._move(len(self._rows))
            case "r" | "s" if row is not None:
                self._asked = Act("restart" if key == "r" else "stop", row)
            case "l" | "enter" if row is not None:
                self._followed = row
                return Act("follow", row)
        return None

    def render(self, columns: int, rows: int) -> list[str]:
        """Return the lines of a screen of this size."""
        if self._followed is not None:
            body = self._log(columns, rows - 2)
            head = fit(printable(f"log of {self._followed.job} on {self._followed.node}"), columns)
            foot = self._message or _LOG_KEYS
        else:
            body = self._table(columns, max(0, rows - 2))
            head = fit(self._summary(columns), columns)
            foot = self._question(columns) or self._message or joined([*_KEYS, f"(by {self._order})"], "  ", columns)
        body += [" " * columns] * (rows - 2 - len(body))
        lines = [self._styled("1", head), *body, self._styled("7", fit(printable(foot), columns))]
        return lines[-rows:] if rows < 3 else lines

    @property
    def _row(self) -> Row | None:
        return next((row for row in self._rows if row.key == self._selected), None)

    def _move(self, by: int) -> None:
        keys = [row.key for row in self._rows]
        if keys:
            at = keys.index(self._selected) if self._selected in keys else 0
            self._selected = keys[min(max(at + by, 0), len(keys) - 1)]

    def _question(self, columns: int) -> str:
        """Return the question that is to be answered; on a narrow screen rather without the node than without y/n."""
        if self._asked is None or self._asked.row is None:
            return ""
        kind, row = self._asked.kind, self._asked.row
        forms = [printable(f"{kind}{words}? y/n") for words in (f" {row.job} on {row.node}", f" {row.job}", "")]
        return next((form for form in forms if width(form) <= columns), forms[-1])

    def _summary(self, columns: int) -> str:
        running = sum(row.running for row in self._rows)
        cpu = sum(row.cpu or 0.0 for row in self._rows)
        restarts = sum(row.restarts for row in self._rows)
        troubles = [(sum(row.state == state for row in self._rows), text) for state, text in _TROUBLE.items()]
        parts = [
            f"{self._title}: {_count(len(self._rows), 'job')}",
            *([f"{len(self._failures)} unreachable"] if self._failures else []),
            *(f"{number} {text}" for number, text in troubles if number),
            _count(running, "process"),
            f"cpu {cpu:.1f}%",
            _count(restarts, "restart"),
        ]
        return joined(list(map(printable, parts)), ", ", columns)

    def _log(self, columns: int, height: int) -> list[str]:
        """Return the end of the log; long lines continue on the next one."""
        shown: deque[str] = deque()
        for line in reversed(self._lines):
            if len(shown) >= height:
                break
            shown.extendleft(reversed([fit(piece, columns) for piece in divided(line, columns)]))
        return list(shown)[len(shown) - min(len(shown), max(0, height)) :]

    def _table(self, columns: int, height: int) -> list[str]:
        failures = [
            self._styled("31", fit(printable(f"! {node}: {why}"), columns)) for node, why in self._failures.items()
        ][: max(0, height - 1)]
        height -= len(failures)
        if height <= 0:
            return failures
        chosen, widths = self._layout(columns)
        about = self._about(chosen, columns) if height > _LEAST_TABLE else None
        height -= about is not None
        self._page = max(1, height - 1)
        keys = [row.key for row in self._rows]
        at = keys.index(self._selected) if self._selected in keys else 0
        self._selected = keys[at] if keys and self._live else None
        self._top = min(max(self._top, at - self._page + 1, 0), at, max(0, len(keys) - self._page))
        shown = self._rows[self._top : self._top + height - 1]
        titles = [
            column.title.rjust(size) if column.right else fit(column.title, size)
            for column, size in zip(chosen, widths, strict=True)
        ]
        lines = [self._styled("4", fit("  " + "  ".join(titles), columns))]
        states = any(column.title == "STATE" for column in chosen)
        for row in shown:
            cells = []
            for column, size in zip(chosen, widths, strict=True):
                text = printable(column.text(row))
                cell = text.rjust(size) if column.right else fit(text, size)
                shows_state = column.title == ("STATE" if states else "JOB") and row.key != self._selected
                cells.append((cell, _STATE_COLOURS.get(row.state) if shows_state else None))
            mark = "!" if not states and row.state in _TROUBLE else " "
            lines.append(self._line(cells, columns, mark, selected=row.key == self._selected))
        if about is not None:
            lines += [" " * columns] * (height - len(lines)) + [fit(about, columns)]
        return failures + lines

    def _about(self, chosen: Sequence[_Column], columns: int) -> str | None:
        """Return what the columns that are shown leave out of the selected row, or None if that is nothing."""
        row = self._row
        if row is None or not self._live:
            return None
        room = columns - 2 - sum(2 + self._width(column) for column in chosen if column.title != "DETAILS")
        if len(chosen) == len(self._columns) and width(printable(row.details)) <= room:
            return None
        several = self._columns[0].title == "NODE"
        state = f"{row.state} {row.running}/{row.wanted}" + (f": {row.details}" if row.details else "")
        forms = [f"{row.job} on {row.node} {state}" if several else f"{row.job} {state}"]
        forms.append(f"{row.node} {state}" if several else state)
        if row.details and {"NODE", "STATE"} & {column.title for column in self._columns} <= {
            column.title for column in chosen
        }:
            forms.append(row.details)
        return next((form for form in map(printable, forms) if width(form) <= columns), printable(forms[-1]))

    def _line(self, cells: Sequence[tuple[str, str | None]], columns: int, mark: str, *, selected: bool) -> str:
        plain = fit((">" if selected else " ") + mark + "  ".join(cell for cell, _ in cells), columns)
        if selected or not self._colour:
            return self._styled("7", plain) if selected else plain
        # Styles take no columns: they are put around the part of the line that is the cell.
        at, styled = 2, plain
        for cell, style in cells:
            if style is not None and plain[at : at + len(cell)] == cell:
                styled = plain[:at] + self._styled(style, cell) + plain[at + len(cell) :]
            at += len(cell) + 2
        return styled

    def _layout(self, columns: int) -> tuple[list[_Column], list[int]]:
        """Return the columns that fit, and their widths; the last one gets what is left."""
        chosen = list(self._columns)
        while True:
            widths = [self._width(column) for column in chosen]
            if sum(widths) + 2 * len(widths) <= columns or len(chosen) == 1:
                return chosen, widths
            last = chosen[-1]
            others = sum(widths[:-1]) + 2 * len(widths)
            if last.title == "DETAILS" and columns - others >= width(last.title):
                return chosen, [*widths[:-1], columns - others]
            chosen.remove(max(chosen, key=lambda column: column.rank))

    def _width(self, column: _Column) -> int:
        return max([width(column.title), *(width(printable(column.text(row))) for row in self._rows)])

    def _styled(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour else text


def joined(parts: Sequence[str], separator: str, columns: int) -> str:
    """Return the first parts, as many as fit on a line of so many columns, but at least one."""
    text = parts[0]
    for part in parts[1:]:
        if width(text) + width(separator) + width(part) > columns:
            break
        text += separator + part
    return text


def divided(line: str, columns: int) -> Iterator[str]:
    """Yield a line in pieces of at most so many columns."""
    start = taken = 0
    for index, char in enumerate(line):
        needed = width(char)
        if taken + needed > columns and index > start:
            yield line[start:index]
            start, taken = index, 0
        taken += needed
    yield line[start:]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _span(seconds: float | None) -> str:
    """Return a time span in few characters: `12s`, `5m`, `3h`, `2d`."""
    if seconds is None:
        return "-"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds / 86400:.0f}d"
