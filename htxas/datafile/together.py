"""Several files of a folder that appear under their names together, or not at all."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from htxas.errors import UserError

__all__ = ["FilesTogether"]


class FilesTogether(ABC):
    """Context manager over open files; they are drafts until all of them are closed.

    Parameters
    ----------
    directory
        Created if needed; files of an earlier export in it are replaced.

    Raises
    ------
    UserError
        If the files cannot be written.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._open: dict[str, Any] = {}

    @abstractmethod
    def _open_all(self) -> None:
        """Open every file at :meth:`_draft` and keep it in ``self._open``."""

    def _draft(self, name: str) -> Path:
        return self._directory / f".{name}.{os.getpid()}.part"

    def __enter__(self) -> Self:
        with self._telling():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._open_all()
        return self

    def close(self) -> None:
        """Finish the files. Leaving the ``with`` block does the same."""
        with self._telling():
            for file in self._open.values():
                file.close()
            for name in self._open:
                self._draft(name).replace(self._directory / name)
        self._open = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._discard()

    def _discard(self) -> None:
        for name, file in self._open.items():
            with contextlib.suppress(OSError):  # the first error is the one to tell
                file.close()
            self._draft(name).unlink(missing_ok=True)
        self._open = {}

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn an error of the disk into the user's one line, and leave no drafts."""
        try:
            yield
        except OSError as error:
            self._discard()
            raise UserError(
                f"cannot write: {error}",
                where=str(self._directory),
                hint="choose another --output or free space",
            ) from error
