"""The ``htxas`` command: one lazy root. ``htxas --help`` imports none of its commands."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

import click

from htxas import __version__
from htxas.errors import HtxasError, InternalError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("htxas.cli.demo:demo", "Molecules to a trained model in one go, in a folder of its own."),
    "db": ("htxas.cli.db:db", "Start, stop and look at the private MongoDB."),
    "campaign": ("htxas.cli.campaign:campaign", "Plan and submit a campaign file."),
    "run": ("htxas.cli.run:run", "Run submitted calculations with local workers."),
    "queue": ("htxas.cli.queue:queue", "Pilots on clusters: check, preview, submit, status, cancel."),
    "bundle": ("htxas.cli.bundle:bundle", "Work in a folder, for nodes that cannot reach the database."),
    "collect": ("htxas.cli.collect:collect", "Bring in the results of bundles."),
    "status": ("htxas.cli.status:status", "Show how far campaigns are."),
    "failures": ("htxas.cli.failures:failures", "List what failed, by cause."),
    "retry": ("htxas.cli.retry:retry", "Make failed calculations ready again."),
    "reconcile": (
        "htxas.cli.reconcile:reconcile",
        "Find out what is dead, bring in its results, free the rest.",
    ),
    "estimates": ("htxas.cli.estimates:estimates", "Show how good the expected times are."),
    "disk": ("htxas.cli.disk:disk", "Show what is used on disk; pack what is finished."),
    "metrics": ("htxas.cli.metrics:metrics", "Tell Prometheus how things stand."),
    "site": ("htxas.cli.site:site", "Show or plot the spectrum of one site."),
    "molecule": ("htxas.cli.molecule:molecule", "Show or plot a molecule: its sites, their sum, its DOS."),
    "compare": ("htxas.cli.compare:compare", "Compare the same sites by several engines."),
    "ingest": ("htxas.cli.ingest:ingest", "Adopt run folders that exist."),
    "query": ("htxas.cli.query:query", "Find calculations by composition, SMILES, state, energy."),
    "export": ("htxas.cli.export:export", "Write a campaign's results to HDF5 or Parquet."),
    "dataset": ("htxas.cli.dataset:dataset", "Freeze spectra and what is to be learned of them."),
    "train": ("htxas.cli.train:train", "Train models on spectra, beside simple baselines."),
    "study": (
        "htxas.cli.study:study",
        "Answer one question with many models: table, plots, numbers in words.",
    ),
    "tune": ("htxas.cli.tune:tune", "Search a better net for a dataset, judged by its validation side."),
    "predict": ("htxas.cli.predict:predict", "Predict properties from spectra with a trained model."),
    "model": ("htxas.cli.model:model", "List, show, compare and export trained models."),
    "accuracy": ("htxas.cli.accuracy:accuracy", "Compare an engine's presets with experiment."),
    "lpad": ("htxas.cli.lpad:lpad", "Call FireWorks' own lpad on the launchpad of htxas."),
}
"""Command name -> (module:attribute, one line of help), in the order shown."""


# A full or read-only disk, missing rights: the message of the system says what to mend.
_USERS_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class _LazyGroup(click.Group):
    """A group whose commands are imported when called; their help lines come from a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise InternalError(f"{module}:{attribute} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="htxas")
def cli() -> None:
    """Core-hole spectra by the hundred thousand.

    \b
    htxas demo                        everything once, on a laptop
    htxas db up                       start the private database
    htxas campaign plan FILE          what would be computed, and how long it takes
    htxas campaign submit FILE        put it into the database
    htxas run -j 2                    compute
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success, 1 user error, 2 bug in htxas, 130 interrupted.

    Click's own usage errors count as user errors, so scripts see one meaning per number.
    """
    sys.exit(_run(args))


def _run(args: Sequence[str] | None) -> int:
    try:
        result = cli.main(args=None if args is None else list(args), standalone_mode=False)
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return 1
    except InternalError as error:
        return _bug(error)
    except HtxasError as error:
        click.echo(f"htxas: {_one_line(error)}", err=True)
        return 1
    except OSError as error:
        if error.errno not in _USERS_ERRNO:
            return _bug(error)
        click.echo(f"htxas: {error.strerror}" + (f": {error.filename}" if error.filename else ""), err=True)
        return 1
    except Exception as error:  # noqa: BLE001  the one place where anything unexpected becomes exit status 2
        return _bug(error)
    # Outside standalone mode click returns the status of ctx.exit(), or what the command returned.
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _interrupted() -> int:
    click.echo("htxas: interrupted", err=True)
    return 130


def _bug(error: Exception) -> int:
    traceback.print_exception(error)
    click.echo(f"htxas: this is a bug in htxas {__version__}; please report the lines above", err=True)
    return 2


def _one_line(error: HtxasError) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
