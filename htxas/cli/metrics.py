"""``htxas metrics``: the state of everything for Prometheus."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

__all__ = ["metrics"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write FILE (atomically) for the node exporter's textfile collector; its name must end in .prom.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Answer http://HOST:PORT/metrics until Ctrl-C. 127.0.0.1:9464 unless others are to see it.",
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(1.0),
    metavar="SECONDS",
    help="With --output: again and again.",
)
def metrics(output: Path | None, listen: str | None, every_s: float | None) -> None:
    """Print progress, rates, failures, pilots, utilisation and disk use in Prometheus' text format.

    \b
    htxas metrics
    htxas metrics --output /var/lib/node_exporter/htxas.prom --every 30
    htxas metrics --listen 127.0.0.1:9464
    """
    from htxas.errors import UserError
    from htxas.launch.watching.metrics import registry, serve, text, write
    from htxas.launch.watching.watch import Watcher

    if output is not None and listen is not None:
        raise UserError("either --output or --listen")
    if every_s is not None and output is None:
        raise UserError("--every goes with --output FILE")
    if output is not None and output.suffix != ".prom":
        raise UserError("the node exporter reads files whose names end in .prom", where=str(output))
    with Watcher(None) as watcher:
        source = registry(watcher)
        if listen is not None:
            host, port = _address(listen)
            stop, _ = serve(source, host, port)
            click.echo(f"http://{listen}/metrics until Ctrl-C", err=True)
            if host not in _LOOPBACK:
                click.echo(
                    "there is no password: everybody who reaches this port sees campaign names", err=True
                )
            try:
                while True:
                    time.sleep(1)
            finally:
                stop()
        if output is None:
            click.echo(text(source).decode(), nl=False)
            return
        while True:
            write(source, output)
            if every_s is None:
                return
            time.sleep(every_s)


def _address(listen: str) -> tuple[str, int]:
    from htxas.errors import UserError

    match = re.fullmatch(r"\[?([^\[\]]+?)\]?:([0-9]{1,5})", listen)
    if match is None or int(match[2]) > 65535:
        raise UserError("an address is HOST:PORT", where=listen, hint="127.0.0.1:9464")
    return match[1], int(match[2])
