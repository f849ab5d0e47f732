"""What the engine objects of all codes of the user's own have in common."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from htxas.engines.base import Engine, Job, write_job
from htxas.engines.numerics import refuse_numerics
from htxas.errors import Cause, EngineFailure, UserError

__all__ = ["ExternalEngine"]


class ExternalEngine(Engine):
    """An engine whose command is a process of ours that starts the user's code: ``python -m htxas.engines.NAME``."""

    @abstractmethod
    def find_code(self, environment: Mapping[str, str]) -> object:
        """Return the user's code and whatever else it needs.

        Raises
        ------
        EngineFailure, UserError
            It is not there; the message says what is missing.
        """

    def command(self, directory: Path) -> list[str]:
        """Return the argument list that runs ``directory`` once."""
        return [sys.executable, "-m", f"htxas.engines.{self.name}", str(directory)]

    @property
    def starts_code(self) -> bool:
        """Our process runs the code, step by step or program by program."""
        return True

    def missing(self, environment: Mapping[str, str]) -> str | None:
        """Look for the user's code."""
        try:
            self.find_code(environment)
        except (EngineFailure, UserError) as error:
            return str(error)
        return None

    def server_command(self) -> None:
        """None of these codes has a persistent process."""
        return

    def versions(self) -> dict[str, str]:
        """Return nothing: the version of the user's own code is known once it has run."""
        return {}

    def write_job(self, job: Job, directory: Path, *, recipe: int) -> None:
        """Write ``calculation.json`` of a job that this htxas can compute.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or a recipe other than ``recipe``.
        """
        refuse_numerics(self.name, self.numerics, job.numerics)
        parameters = job.calculation.parameters
        wanted = parameters.get("ground", parameters)["recipe"]
        if wanted != recipe:
            raise EngineFailure(
                Cause.BAD_INPUT,
                f"the calculation is of recipe {wanted}, this htxas computes by recipe {recipe}",
                where=str(directory),
            )
        write_job(job, directory)
