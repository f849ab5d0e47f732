"""``htxas queue``: pilots in the queues of clusters."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from htxas.cluster.check import Finding

__all__ = ["queue"]

_ELSEWHERE = {
    "submit": ("htxas.cli.queue_pilots:submit", "Keep pilots queued or running."),
    "status": ("htxas.cli.queue_pilots:status", "Show pilots and what the schedulers say about them."),
    "cancel": ("htxas.cli.queue_pilots:cancel", "Cancel pilots, in the queue, too."),
}
"""Verbs with modules of their own -> (module:attribute, one line of help)."""

_CLUSTER = click.option(
    "--cluster",
    "-C",
    "cluster",
    metavar="NAME",
    help="The cluster; may be left out if htxas.yaml has one only.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


class _Queue(click.Group):
    """A group of which some verbs are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["check", "preview", *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = _ELSEWHERE[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, self.commands[name].get_short_help_str(80)) for name in sorted(self.commands)]
        with formatter.section("Commands"):
            formatter.write_dl([*own, *((name, line) for name, (_, line) in _ELSEWHERE.items())])


@click.group(cls=_Queue)
def queue() -> None:
    """Pilots in the queues of clusters, which htxas.yaml describes.

    \b
    htxas queue check --cluster mine      does it work? says what is wrong
    htxas queue preview --cluster mine    the job script, as it would be submitted
    htxas queue submit --cluster mine     keep pilots queued or running
    """


@queue.command()
@_CLUSTER
@click.option("--partition", "-p", metavar="NAME", help="The partition; otherwise the first of the profile.")
@click.option("--campaign", "-c", metavar="NAME", help="Pilots for this campaign only.")
@click.option(
    "--pilots", "-n", default=1, type=click.IntRange(1), metavar="N", help="A job array of N pilots."
)
@_JSON
def preview(
    cluster: str | None, partition: str | None, campaign: str | None, pilots: int, as_json: bool
) -> None:
    """Print the job script of a pilot, and nothing else. Asks nobody, writes nothing.

    \b
    htxas queue preview --cluster mine
    htxas queue preview --cluster mine --partition long --pilots 20
    """
    from htxas.cluster.load import load_config
    from htxas.cluster.script import Job, render

    profile = load_config().cluster(cluster)
    job = Job(profile, profile.partition(partition), "preview", array=pilots, campaign=campaign)
    script = render(job)
    if not as_json:
        click.echo(script, nl=False)
        return
    document = {
        "cluster": profile.name,
        "scheduler": profile.scheduler.value,
        "partition": job.partition.name,
        "template": str(profile.template),
        "script": script,
    }
    click.echo(json.dumps(document, indent=1))


@queue.command()
@_CLUSTER
@_JSON
@click.pass_context
def check(context: click.Context, cluster: str | None, as_json: bool) -> None:
    """Try what a pilot needs: host, scheduler, script, python, database, scratch. Submits nothing.

    Exits with 1 if there is a problem. A note is something that cannot be told from here.

    \b
    htxas queue check --cluster mine
    """
    from htxas.cluster.check import Verdict
    from htxas.cluster.check import check as findings_of
    from htxas.cluster.load import load_config
    from htxas.cluster.queue import open_queue

    profile = load_config().cluster(cluster)
    findings = list(findings_of(open_queue(profile)))
    if as_json:
        document = [{"what": f.what, "verdict": f.verdict.value, "detail": f.detail} for f in findings]
        click.echo(json.dumps({"cluster": profile.name, "findings": document}, indent=1))
    else:
        _print(profile.name, findings)
    if any(f.verdict is Verdict.PROBLEM for f in findings):
        context.exit(1)


def _print(cluster: str, findings: list[Finding]) -> None:
    from rich.table import Table

    from htxas.report.terminal import console

    table = Table("what", "", "detail", title=cluster)
    for finding in findings:
        table.add_row(finding.what, finding.verdict.value, finding.detail)
    console().print(table)
