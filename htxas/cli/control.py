"""``htxas campaign pause | resume | cancel | priority | budget``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from htxas.launch.control import Changed
    from htxas.launch.pilots.surplus import Released
    from htxas.store.store import Store

__all__ = ["budget", "cancel", "pause", "priority", "resume"]

_NAME = click.argument("name")
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def _do(command: Callable[[Store, Any], Changed]) -> Changed:
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.store.store import Store

    with Store.open() as store, launchpad_of(store) as launchpad:
        return command(store, launchpad)


def _tell(changed: Changed, as_json: bool, lines: list[str], **more: Any) -> None:
    if as_json:
        click.echo(json.dumps({**changed.to_dict(), **more}, default=str))
        return
    for line in lines:
        click.echo(line)


@click.command()
@_NAME
@_JSON
def pause(name: str, as_json: bool) -> None:
    """Let nothing new of campaign NAME start. What runs may end; what agents hold besides goes back.

    \b
    htxas campaign pause qm9
    htxas campaign resume qm9
    """
    from htxas.launch import control

    changed = _do(lambda store, _: control.pause(store, name))
    hand = f"; {changed.in_hand:,} calculations are in agents' hands" if changed.in_hand else ""
    _tell(changed, as_json, [f"{name} is paused{hand}; go on: htxas campaign resume {name}"])


@click.command()
@_NAME
@_JSON
def resume(name: str, as_json: bool) -> None:
    """Let a paused or cancelled campaign NAME go on.

    \b
    htxas campaign resume qm9
    """
    from htxas.launch import control

    changed = _do(lambda store, launchpad: control.resume(store, launchpad, name))
    _tell(changed, as_json, [f"{name} is active; {changed.ready:,} calculations wait", *_capped(changed)])


@click.command()
@_NAME
@click.option(
    "--wait",
    "patience_s",
    default=30.0,
    show_default=True,
    metavar="S",
    type=click.FloatRange(0.0),
    help="How long to wait for agents to stop their engines.",
)
@_JSON
@click.pass_context
def cancel(context: click.Context, name: str, patience_s: float, as_json: bool) -> None:
    """Stop campaign NAME: engines, Fireworks, its pilots in the queues. Results stay, and resume takes it up again.

    Calculations that another campaign wants as well go on. May be repeated until nothing is left.

    \b
    htxas campaign cancel qm9
    """
    from htxas.cli.reconcile import known_clusters
    from htxas.launch import control
    from htxas.launch.pad.launchpad import launchpad_of
    from htxas.launch.pilots.surplus import release_pilots
    from htxas.store.store import Store

    clusters = {c: (known.profile, known.queue) for c, known in known_clusters(None).items()}
    with Store.open() as store, launchpad_of(store) as launchpad:
        changed = control.cancel(store, launchpad, name)
        released = release_pilots(store, clusters, changed.pilots)
        left = control.wait_until_stopped(store, launchpad, name, patience_s)
        changed.in_hand = left
    _tell(
        changed,
        as_json,
        _cancelled(changed, released),
        pilots_gone=released.gone,
        pilots_left=released.left,
    )
    if released.left or left:
        context.exit(1)


def _cancelled(changed: Changed, released: Released) -> list[str]:
    from htxas.cli._text import plural

    name = changed.campaign
    lines = [
        f"{name} is cancelled: {plural(changed.fireworks, 'Firework')} defused, "
        f"{changed.ready:,} calculations stay where they are; take it up again: htxas campaign resume {name}"
    ]
    lines += [
        f"{cluster}: {plural(len(ids), 'pilot')} cancelled" for cluster, ids in released.gone.items() if ids
    ]
    lines += [f"pilot {pilot} is left: {why}" for pilot, why in released.left.items()]
    if changed.in_hand:
        lines.append(
            f"{changed.in_hand:,} calculations are still in agents' hands: "
            "they stop as soon as they hear of it; htxas reconcile frees those of dead ones"
        )
    return lines


@click.command()
@_NAME
@click.argument("number", type=click.IntRange(-1_000_000, 1_000_000), metavar="N")
@_JSON
def priority(name: str, number: int, as_json: bool) -> None:
    """Let campaign NAME go before those of a lower priority N; 0 for most. Negative ones after "--".

    \b
    htxas campaign priority qm9 5
    htxas campaign priority later -- -1
    """
    from htxas.launch import control

    changed = _do(lambda store, launchpad: control.set_priority(store, launchpad, name, number))
    _tell(changed, as_json, [f"{name} has priority {changed.control.priority}"])


@click.command()
@_NAME
@click.argument("hours", required=False, metavar="[X]")
@click.option("--node-hours", "option", metavar="X", help="The same, by name.")
@_JSON
def budget(name: str, hours: str | None, option: str | None, as_json: bool) -> None:
    """Cap what campaign NAME may use at X node hours; "none" takes the cap away.

    At the cap nothing new starts, and no pilots are submitted for it. A node hour is an hour of a whole node of an
    allocation; several campaigns in one pilot share it by what their engines used.

    \b
    htxas campaign budget qm9 --node-hours 5000
    htxas campaign budget qm9 none
    """
    from htxas.launch import control

    if (hours is None) == (option is None):
        raise click.UsageError("give the node hours once, or none")
    cap_h = _hours(hours if hours is not None else str(option))
    changed = _do(lambda store, _: control.set_budget(store, name, cap_h))
    cap = changed.control.budget_node_h
    said = f"{name} has no cap; {changed.spent_node_h:,.1f} node hours used so far"
    _tell(changed, as_json, _capped(changed) if cap is not None else [said])


def _hours(text: str) -> float:
    if text.lower() == "none":
        return math.inf
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 <= hours < math.inf:
        raise click.BadParameter(
            f"{text!r} is not a number of node hours, nor none", param_hint="--node-hours"
        )
    return hours


def _capped(changed: Changed) -> list[str]:
    cap = changed.control.budget_node_h
    if cap is None:
        return []
    line = f"{changed.campaign}: {changed.spent_node_h:,.1f} of {cap:,.1f} node hours used"
    if changed.spent_node_h >= cap:
        line += f"; nothing starts: htxas campaign budget {changed.campaign} --node-hours X raises it"
    return [line]
