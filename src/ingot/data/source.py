"""Where text comes from: the kinds of source that a recipe can name, and which documents are kept back."""

from __future__ import annotations

import glob
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from fractions import Fraction
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ingot.config import Choice, Config
from ingot.data.digests import Digests
from ingot.data.document import Part, Record
from ingot.data.formats import FORMATS, FilePart, read
from ingot.errors import UserError


class Source(Choice):
    """A place that text comes from."""

    weight: float | None = Field(default=None, gt=0)
    """Share of this source in the training rows, against the other sources' weights; null: by its number of tokens."""
    max_documents: int | None = Field(default=None, ge=1)
    """Documents to take at most, from the front; null: all."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Bytes of text to take at most, from the front and to a whole document; null: all."""

    apart: ClassVar[frozenset[str]] = frozenset({"weight"})  # fields that change no document: where files lie, shares

    @property
    @abstractmethod
    def name(self) -> str:
        """The source in a few words, for messages and reports."""

    def resolve(self, say: Callable[[str], None]) -> Source:
        """This source with all that only the outside world can tell settled, such as a revision or a fallback.

        Asked once for a token cache, which remembers the answer. Raises UserError.
        """
        return self

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The source as units of work, in an order that only its content decides. Raises UserError for none."""

    @abstractmethod
    def documents(self, part: Part) -> Iterator[Record]:
        """Every record of `part`: a document, or why it is none. Raises UserError for what can't be read."""

    @abstractmethod
    def content(self, digests: Digests) -> Any:
        """What the documents are made of, as a JSON value for a fingerprint; found without a network."""

    def identity(self) -> dict[str, Any]:
        """All that shapes the documents beside the content: moving files changes nothing."""
        return {key: value for key, value in self.to_dict().items() if key not in self.apart}


class Files(Config):
    """How the files of a source are read."""

    field: str = ""
    """Field of a JSON record that holds the text; empty: text, content, message, body or output, found by itself."""
    separator: str = ""
    """What stands between documents in a .txt file, such as a blank line; empty: a file is one document."""


class FileSource(Source, Files):
    """A source whose parts lie in files on this machine."""

    @abstractmethod
    def parts(self) -> Sequence[FilePart]:
        """The parts of the files, sorted by path."""

    def documents(self, part: Part) -> Iterator[Record]:
        """Every record of `part`, by the format of its file."""
        assert isinstance(part, FilePart)
        return read(part)

    def content(self, digests: Digests) -> Any:
        """The digest of every part's file, and which of its bytes are read how: their place and time do not count."""
        parts = self.parts()
        found = digests.of(part.path for part in parts)
        return [[found[part.path], part.begin, part.end, part.field] for part in parts]


class Local(FileSource, name="local"):
    """Text files on this machine: .txt and .jsonl."""

    apart: ClassVar[frozenset[str]] = Source.apart | {"path"}

    path: str
    """A file, a folder (searched with all below it) or a glob such as `texts/**/*.txt`."""

    @property
    def name(self) -> str:
        """The path as the recipe gives it."""
        return self.path

    def parts(self) -> list[FilePart]:
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


class Package(FileSource, name="package"):
    """Text files inside an installed Python package. The package is looked up, never imported."""

    apart: ClassVar[frozenset[str]] = Source.apart | {"package", "files"}

    package: str
    """Name under which pip installs it."""
    files: str = "*.txt"
    """Glob over the package's files, from its top; `*` also crosses folders."""

    @property
    def name(self) -> str:
        """The package and what is read of it."""
        return f"package {self.package}: {self.files}"

    def parts(self) -> list[FilePart]:
        """The parts of the files that match, sorted by path."""
        try:
            distribution = metadata.distribution(self.package)
        except (metadata.PackageNotFoundError, ValueError):
            what = f"the package {self.package!r} is not installed"
            raise UserError(what, where="data.sources", mend=f"pip install {self.package}") from None
        names = [str(file) for file in distribution.files or () if ".dist-info" not in file.parts[0]]
        chosen = [name for name in names if fnmatch(name, self.files) and Path(name).suffix in FORMATS]
        return _parts([Path(str(distribution.locate_file(name))) for name in chosen], self, self.name)


def _parts(files: list[Path], how: Files, where: str) -> list[FilePart]:
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
