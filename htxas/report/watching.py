"""The status page: campaigns, what fails, pilots, agents. Narrow terminals get the columns that matter most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from htxas.report.words import duration, plural

__all__ = ["JUMP", "page"]

JUMP = "▲"
"""Beside a cause that has become frequent within the last hour."""

_WIDE, _BAR, _MIDDLE, _NARROW = 130, 112, 92, 72
_LEAST_NAME = 12
_LEAST_ALLOCATED_S = 5.0  # the first heartbeat tells nothing
_STATES = ("done", "running", "ready", "failed", "quarantined")

Document = Mapping[str, Any]


def page(seen: Document, width: int, *, now: str | None = None) -> Group:
    """Return the page for a terminal of ``width`` columns.

    Parameters
    ----------
    seen
        What :func:`htxas.launch.watching.watch.look` returns.
    width
        Columns.
    now
        Time of day for the header of a live page.
    """
    parts: list[RenderableType] = []
    if now is not None:
        parts.append(Text(f"htxas status, {now}", style="bold"))
    if not seen["database"]["up"]:
        parts.append(_outage(seen["database"]))
    parts.append(_campaigns(seen["campaigns"], width))
    parts += _failures(seen["campaigns"])
    if any(row["cluster"] for row in seen["pilots"]):
        parts.append(_pilots(seen["pilots"], width))
    parts.append(_agents(seen))
    parts += _hints(seen)
    return Group(*parts)


def _outage(database: Document) -> Text:
    return Text(
        f"The database has not answered for {duration(database['silent_s'])}; below is what it said last. "
        "Workers go on and keep their results until it is back.",
        style="bold red",
    )


def _rate(per_min: float) -> str:
    if per_min <= 0:
        return "-"
    return f"{per_min:,.0f}" if per_min >= 10 else f"{per_min:.2g}"


def _table(*, title: str | None = None) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
    )


def _campaigns(campaigns: Iterable[Document], width: int) -> RenderableType:
    rows = list(campaigns)
    if not rows:
        return Text("no campaign was submitted: htxas campaign submit FILE")
    table = _table()
    table.add_column("campaign", overflow="fold", min_width=_LEAST_NAME)
    if width >= _BAR:
        table.add_column("", width=20 if width >= _WIDE else 10)
    for title in _titles(width):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_campaign_cells(row, width))
    return table


def _titles(width: int) -> tuple[str, ...]:
    if width >= _WIDE:
        return ("%", "done", "in hand", *_STATES[2:], "sites/min", "over 1 h", "left")
    if width >= _MIDDLE:
        return ("%", "done", "of", "in hand", "bad", "sites/min", "over 1 h", "left")
    if width >= _NARROW:
        return ("%", "done", "of", "in hand", "bad", "/min", "left")
    return ("%", "done", "bad", "/min", "left")


def _campaign_cells(row: Document, width: int) -> list[RenderableType]:
    counts, total, flow = row["counts"], row["total"], row["throughput"]
    bad = counts["failed"] + counts["quarantined"]
    over = counts["done"] + bad
    cells: dict[str, RenderableType] = {state: f"{counts[state]:,}" for state in _STATES[:3]}
    for title, count in (("failed", counts["failed"]), ("quarantined", counts["quarantined"]), ("bad", bad)):
        cells[title] = Text(f"{count:,}", style="red" if count else "")
    cells["%"] = f"{100 * over // total}" if total else "-"
    cells["in hand"] = cells.pop("running")  # leased; how many of them are computed now, the agents tell
    cells["of"] = f"{total:,}"
    cells["sites/min"] = cells["/min"] = _rate(flow["sites_per_min"])
    cells["over 1 h"] = _rate(flow["sites_per_min_hour"])
    cells["left"] = _left(row)
    bar = [ProgressBar(total=max(total, 1), completed=over)] if width >= _BAR else []
    return [_name(row), *bar, *(cells[title] for title in _titles(width))]


def _name(row: Document) -> Text:
    text = Text(str(row["campaign"]))
    if row["control"] != "active":
        text.append(f" ({row['control']})", style="yellow")
    if row["over_budget"]:
        text.append(" (budget spent)", style="yellow")
    return text


def _left(row: Document) -> str:
    if not row["counts"]["ready"] + row["counts"]["running"]:
        return "-"
    return "?" if row["left_s"] is None else duration(row["left_s"])


def _failures(campaigns: Iterable[Document]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for row in campaigns:
        if not row["failures"]:
            continue
        text = Text(f"{row['campaign']}: ")
        for i, failure in enumerate(row["failures"]):
            text.append(", " if i else "")
            text.append(f"{failure['count']:,} {failure['cause']}", style="red")
            if failure["last_hour"]:
                text.append(f" ({failure['last_hour']:,} in the last hour)")
            if failure["jump"]:
                text.append(f" {JUMP} {100 * failure['share_last_hour']:.0f} % of all", style="bold red")
        lines.append(text)
    if lines:
        lines.insert(0, Text("failures", style="bold"))
        lines.append(Text("why, with an example and what to do: htxas failures", style="dim"))
        lines.append(Text(""))
    return lines


def _pilots(rows: Sequence[Document], width: int) -> Table:
    table = _table(title="pilots")
    lost = any(row["states"]["lost_track"] for row in rows)
    sizes, agents = (("nodes", "cores"), ("agents",)) if width >= _NARROW else ((), ())
    titles = ("queued", "running", *sizes, "ended", *(("lost track",) if lost else ()), *agents, "used")
    table.add_column("cluster", overflow="fold", min_width=_LEAST_NAME)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        states = row["states"]
        cells = {
            "queued": f"{states['submitting'] + states['queued']:,}",
            "running": f"{states['running']:,}",
            "nodes": f"{row['nodes']:,}",
            "cores": f"{row['cores']:,}",
            "ended": f"{states['ended']:,}",
            "lost track": f"{states['lost_track']:,}",
            "agents": f"{row['agents']:,}",
            "used": _percent(row["utilisation"]),
        }
        table.add_row(row["cluster"] or "(no queue)", *(cells[title] for title in titles))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _agents(seen: Document) -> Text:
    agents, used = seen["agents"], seen["utilisation"]
    text = Text(
        f"{plural(agents['alive'], 'agent')}, {agents['busy']:,} of {plural(agents['places'], 'place')} busy"
    )
    if agents["silent"]:
        longest = duration(agents["longest_silence_s"])
        text.append(f", {agents['silent']:,} silent for up to {longest}", style="yellow")
    if agents["dead"]:
        text.append(f", {agents['dead']:,} dead", style="red")
    if agents["bundles"]:
        text.append(f", {plural(agents['bundles'], 'bundle')} out")
    if used["share"] is not None and used["allocated_s"] >= _LEAST_ALLOCATED_S:
        text.append(
            f"; engines ran {_percent(used['share'])} of the {duration(used['allocated_s'])} allocated"
        )
    return text


def _hints(seen: Document) -> list[RenderableType]:
    lines = []
    if seen["agents"]["dead"]:
        lines.append("the work of dead agents is freed by the next htxas run, or by: htxas reconcile")
    if seen["agents"]["silent"]:
        lines.append(
            "whether silent agents still work, their schedulers and machines know: htxas reconcile asks"
        )
    if (unfit := seen["unfit"]) is not None:
        lines.append(f"the last pilot in {unfit['partition']}, {unfit['pilot']}, ended {unfit['reason']}")
    for row in seen["campaigns"]:
        if not row["submission_finished"]:
            lines.append(f"the submission of {row['campaign']} is not finished: htxas campaign submit FILE")
        if row["control"] == "paused":
            lines.append(f"{row['campaign']} is paused: htxas campaign resume {row['campaign']}")
        if row["over_budget"]:
            lines.append(
                f"{row['campaign']} has spent {row['spent_node_h']:,.1f} of {row['budget_node_h']:,.1f} node-hours: "
                f"htxas campaign budget {row['campaign']} HOURS"
            )
    return [Text(line, style="dim") for line in lines]
