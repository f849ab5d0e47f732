"""What an attempt may do differently without altering the answer: declared by the engine, checked before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from htxas.errors import Cause, EngineFailure, UserError

__all__ = ["Numeric", "check_numerics", "refuse_numerics"]


@dataclass(frozen=True, slots=True)
class Numeric:
    """One number, switch or word of :attr:`htxas.engines.base.Job.numerics`.

    Attributes
    ----------
    why
        One line for the user: what it does, and why the converged answer stays the same.
    least, most
        Range of a number; None for a word.
    choices
        Words allowed instead of a number.
    whole
        Whether the number is an integer.
    """

    why: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    whole: bool = False

    def allowed(self) -> str:
        """Return what may be said, for people."""
        if self.choices:
            return "one of " + " ".join(self.choices)
        return f"{'a whole number' if self.whole else 'a number'} within {self.least:g}..{self.most:g}"

    def accepts(self, value: Any) -> bool:
        """Return whether ``value`` may be said."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        assert self.least is not None
        assert self.most is not None
        return self.least <= value <= self.most


def check_numerics(engine: str, known: Mapping[str, Numeric], values: Mapping[str, Any]) -> None:
    """Refuse numerics that the engine does not know: all that would alter the answer is unknown to it.

    Raises
    ------
    UserError
        With the name and what is allowed.
    """
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise UserError(
                f"{name!r} is not something a retry with {engine} may change; it never changes the physics",
                hint=f"did you mean {near[0]!r}?" if near else "one of " + " ".join(known),
            )
        if not known[name].accepts(value):
            raise UserError(f"{name} = {value!r} of {engine}: {known[name].allowed()}")


def refuse_numerics(engine: str, known: Mapping[str, Numeric], values: Mapping[str, Any]) -> None:
    """Check numerics where a calculation is about to be written.

    Raises
    ------
    EngineFailure
        BAD_INPUT: the ladder of a stored calculation asks for what this engine does not do.
    """
    try:
        check_numerics(engine, known, values)
    except UserError as error:
        raise EngineFailure(Cause.BAD_INPUT, str(error), evidence={"numerics": dict(values)}) from None
