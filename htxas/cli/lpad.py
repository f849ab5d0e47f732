"""``htxas lpad``: FireWorks' own command on our LaunchPad."""

from __future__ import annotations

import click

__all__ = ["lpad"]


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "help_option_names": [],
        "allow_interspersed_args": False,
    }
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def lpad(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Call FireWorks' lpad with ARGUMENTS on the LaunchPad of htxas.

    \b
    htxas lpad get_fws -s RUNNING -d less
    htxas lpad get_wflows -d count
    htxas lpad webgui
    """
    from htxas.launch.pad.lpad import lpad as call
    from htxas.launch.pad.lpad import lpad_help

    if not arguments or {"-h", "--help"} & set(arguments):
        context.exit(lpad_help(arguments or ("--help",)))
    from htxas.store.store import Store

    with Store.open() as store:
        status = call(store, arguments)
    context.exit(status)
