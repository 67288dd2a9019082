"""What `gaffer top` shows and how it responds to keys. Pure: no I/O, no clock."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from gaffer_client.cli.output import printable
from gaffer_client.cli.screen import fit, width

if TYPE_CHECKING:
    from gaffer_client.documents import ListedJob

KEPT_LINES: Final = 2000
_STATE_COLOURS = {"failed": "31", "backoff": "33", "starting": "33", "stopping": "33", "waiting": "36", "stopped": "2"}
_KEYS = "q quit  o order  r restart  s stop  l logs"
_LOG_KEYS = "q back"
_MESSAGE_UPDATES = 4


class Row(NamedTuple):
    """A job on a node. `cpu` is in percent of a processor, `memory` of that of the machine, `uptime` in seconds."""

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
            info["reason"] or "",
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
    "cpu": lambda row: (-(row.cpu or 0.0), row.job, row.node),
    "memory": lambda row: (-(row.memory or 0.0), row.job, row.node),
    "restarts": lambda row: (-row.restarts, row.job, row.node),
    "state": lambda row: (row.state, row.job, row.node),
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
        self._order = "cpu"
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
            body = [fit(line, columns) for line in list(self._lines)[-max(0, rows - 2) :]] if rows > 2 else []
            head = fit(printable(f"log of {self._followed.job} on {self._followed.node}"), columns)
            foot = self._message or _LOG_KEYS
        else:
            body = self._table(columns, max(0, rows - 2))
            head = fit(self._summary(), columns)
            foot = self._question() or self._message or f"{_KEYS}  (by {self._order})"
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

    def _question(self) -> str:
        if self._asked is None or self._asked.row is None:
            return ""
        return f"{self._asked.kind} {self._asked.row.job} on {self._asked.row.node}? y/n"

    def _summary(self) -> str:
        running = sum(row.running for row in self._rows)
        cpu = sum(row.cpu or 0.0 for row in self._rows)
        restarts = sum(row.restarts for row in self._rows)
        text = f"{self._title}: {len(self._rows)} jobs, {running} processes, cpu {cpu:.1f}%, {restarts} restarts"
        return printable(f"{text}, {len(self._failures)} unreachable" if self._failures else text)

    def _table(self, columns: int, height: int) -> list[str]:
        failures = [
            self._styled("31", fit(printable(f"! {node}: {why}"), columns)) for node, why in self._failures.items()
        ][: max(0, height - 1)]
        height -= len(failures)
        if height <= 0:
            return failures
        self._page = max(1, height - 1)
        keys = [row.key for row in self._rows]
        at = keys.index(self._selected) if self._selected in keys else 0
        self._selected = keys[at] if keys and self._live else None
        self._top = min(max(self._top, at - self._page + 1, 0), at, max(0, len(keys) - self._page))
        shown = self._rows[self._top : self._top + height - 1]
        chosen, widths = self._layout(columns)
        titles = [
            column.title.rjust(size) if column.right else fit(column.title, size)
            for column, size in zip(chosen, widths, strict=True)
        ]
        lines = [self._styled("4", fit("  " + "  ".join(titles), columns))]
        for row in shown:
            cells = []
            for column, size in zip(chosen, widths, strict=True):
                text = printable(column.text(row))
                cell = text.rjust(size) if column.right else fit(text, size)
                style = _STATE_COLOURS.get(row.state) if column.title == "STATE" and row.key != self._selected else None
                cells.append((cell, style))
            lines.append(self._line(cells, columns, selected=row.key == self._selected))
        return failures + lines

    def _line(self, cells: Sequence[tuple[str, str | None]], columns: int, *, selected: bool) -> str:
        plain = fit(("> " if selected else "  ") + "  ".join(cell for cell, _ in cells), columns)
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


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


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
