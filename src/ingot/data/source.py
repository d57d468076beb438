"""Where text comes from: the kinds of source that a recipe can name, and which documents are kept back."""

from __future__ import annotations

import glob
from abc import abstractmethod
from collections.abc import Iterator
from fnmatch import fnmatch
from fractions import Fraction
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ingot.config import Choice, Config
from ingot.data.formats import FORMATS, Document, Dropped, Part, read
from ingot.errors import UserError


class Source(Choice):
    """A place that text comes from."""

    places: ClassVar[frozenset[str]] = frozenset()  # fields that say where the files lie, not how they are read

    @property
    @abstractmethod
    def name(self) -> str:
        """The source in a few words, for messages and reports."""

    @abstractmethod
    def parts(self) -> list[Part]:
        """The source as units of work, in an order that only the files' names decide. Raises UserError for none."""

    def documents(self, part: Part) -> Iterator[Document | Dropped]:
        """Every record of `part`: a document, or why it is none. Raises UserError for a file that can't be read."""
        return read(part)

    def identity(self) -> dict[str, Any]:
        """All that shapes the documents beside the content of the files: moving the files changes nothing."""
        return {key: value for key, value in self.to_dict().items() if key not in self.places}


class Files(Config):
    """How the files of a source are read."""

    field: str = ""
    """Field of a JSON record that holds the text; empty: text, content, message, body or output, found by itself."""
    separator: str = ""
    """What stands between documents in a .txt file, such as a blank line; empty: a file is one document."""


class Local(Source, Files, name="local"):
    """Text files on this machine: .txt and .jsonl."""

    places: ClassVar[frozenset[str]] = frozenset({"path"})

    path: str
    """A file, a folder (searched with all below it) or a glob such as `texts/**/*.txt`."""

    @property
    def name(self) -> str:
        """The path as the recipe gives it."""
        return self.path

    def parts(self) -> list[Part]:
        """The parts of the files, sorted by path."""
        return _parts(self._files(), self, self.path)

    def _files(self) -> list[Path]:
        path = Path(self.path).expanduser()
        if path.is_dir():
            below = (file for file in path.rglob("*") if not file.name.startswith("."))
            return [file for file in below if file.suffix in FORMATS and file.is_file()]
        if path.exists():
            return [path]
        return [file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file()]


class Package(Source, Files, name="package"):
    """Text files inside an installed Python package. The package is looked up, never imported."""

    places: ClassVar[frozenset[str]] = frozenset({"package", "files"})

    package: str
    """Name under which pip installs it."""
    files: str = "*.txt"
    """Glob over the package's files, from its top; `*` also crosses folders."""

    @property
    def name(self) -> str:
        """The package and what is read of it."""
        return f"package {self.package}: {self.files}"

    def parts(self) -> list[Part]:
        """The parts of the files that match, sorted by path."""
        try:
            distribution = metadata.distribution(self.package)
        except (metadata.PackageNotFoundError, ValueError):
            what = f"the package {self.package!r} is not installed"
            raise UserError(what, where="data.sources", mend=f"pip install {self.package}") from None
        names = [str(file) for file in distribution.files or () if ".dist-info" not in file.parts[0]]
        chosen = [name for name in names if fnmatch(name, self.files) and Path(name).suffix in FORMATS]
        return _parts([Path(str(distribution.locate_file(name))) for name in chosen], self, self.name)


def _parts(files: list[Path], how: Files, where: str) -> list[Part]:
    known = " or ".join(FORMATS)
    if not files:
        raise UserError(f"there is no {known} file here", where=where, mend="check data.sources")
    for file in files:
        if file.suffix not in FORMATS:
            raise UserError(f"files of the kind {file.suffix!r} are not read", where=str(file), mend=f"give {known}")
    found = [FORMATS[file.suffix].parts(file, how.field, how.separator) for file in sorted(files, key=Path.as_posix)]
    return [part for parts in found for part in parts]


class HeldOut(Config):
    """Which documents are kept back to measure on: evenly spaced ones, whole, named by their place alone."""

    share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the documents, to a thousandth."""

    @cached_property
    def exact(self) -> Fraction:
        """The share as the fraction that is meant: 0.05 is one in twenty."""
        return Fraction(self.share).limit_denominator(1000)

    def holds(self, part: int, document: int) -> bool:
        """Whether record `document` of part `part` of a source is held out. Files of one document each: every n-th."""
        numerator, denominator = self.exact.numerator, self.exact.denominator
        return (part + document) * numerator % denominator < numerator
