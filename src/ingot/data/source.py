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
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ingot.config.config import Choice, Config
from ingot.data.conversations import as_record
from ingot.data.digests import Digests
from ingot.data.document import Dropped, Part, Record
from ingot.data.formats import FilePart, Table, known, parts, read, readable
from ingot.errors import UserError


class Source(Choice):
    """A place that text comes from."""

    weight: float | None = Field(default=None, gt=0)
    """Its part of the training rows against the other sources' weights, in any unit; null for all: by tokens."""
    max_documents: int | None = Field(default=None, ge=1)
    """Documents to take at most, from the front; null: all."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Bytes of text to take at most, from the front and to a whole document; null: all."""
    target_tokens: int | None = Field(default=None, ge=1)
    """Tokens to take, from the front and to the end of the document that reaches the number; null: all."""

    apart: ClassVar[frozenset[str]] = frozenset({"weight"})  # fields that change no document: where files lie, shares
    sampled: ClassVar[int] = 4096  # parts that a sample is taken from at most: each is a file to open

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


class Texts(Config):
    """How the text in the files of a source is found."""

    field: str = ""
    """Field of a record that holds the text, or a conversation; empty: found by itself (text, content, message, body,
    output, else messages or conversations)."""
    separator: str = ""
    """What stands between documents in a .txt file, such as `\\n\\n`, a blank line; empty: a file is one document."""

    _typed = field_validator("separator")(classmethod(lambda cls, text: text.replace(r"\n", "\n").replace(r"\t", "\t")))


class FileSource(Source):
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
        return [[found[part.path], type(part).__name__, part.begin, part.end, part.field] for part in parts]


class Local(FileSource, Texts, name="local"):
    """Text files on this machine: .txt, .jsonl, .json, .csv and .parquet, each also packed as .gz or .zst."""

    apart: ClassVar[frozenset[str]] = Source.apart | {"path"}

    path: str
    """A file, a folder (searched with all below it) or a glob such as `texts/**/*.txt`."""

    @property
    def name(self) -> str:
        """The path as the recipe gives it."""
        return self.path

    def parts(self) -> list[FilePart]:
        """The parts of the files, sorted by path."""
        return _parts(_files_at(self.path), self.path, self.field, self.separator)


class Package(FileSource, Texts, name="package"):
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
        return _parts(_files_of(self.package, self.files), self.name, self.field, self.separator)


class Conversations(FileSource, name="conversations"):
    """Conversations to tune a model for chat: messages, or a request and its answer, in any format but plain text."""

    apart: ClassVar[frozenset[str]] = Source.apart | {"path", "package", "files"}

    path: str = ""
    """A file, a folder (searched with all below it) or a glob such as `talks/**/*.jsonl`; empty: see package."""
    package: str = ""
    """Installed Python package whose files are read instead, by the name under which pip installs it."""
    files: str = "*"
    """Glob over the package's files, from its top; `*` also crosses folders."""
    field: str = ""
    """Field that holds the messages, or those of request and answer joined by +; empty: found by itself."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.path) == bool(self.package):
            raise ValueError("conversations come from a path or from a package; name one of them")
        return self

    @property
    def name(self) -> str:
        """The path as the recipe gives it, or the package and what is read of it."""
        return self.path or f"package {self.package}: {self.files}"

    def parts(self) -> list[FilePart]:
        """The parts of the files, sorted by path, each with the field or fields that make its conversations."""
        files = _files_at(self.path) if self.path else _files_of(self.package, self.files)
        return _parts(files, self.name, self.field, conversations=True)

    def documents(self, part: Part) -> Iterator[Record]:
        """Every record of `part` as a conversation, or as dropped."""
        assert isinstance(part, Table)
        for row in part.rows():
            yield row if isinstance(row, Dropped) else as_record(row.fields, row.offset, part.field)


def _files_at(place: str) -> list[Path]:
    """The readable files of a folder and all below it; a file; or those of a glob. Raises UserError for nothing."""
    path = Path(place).expanduser()
    if path.is_dir():
        below = (file for file in path.rglob("*") if readable(file) and file.is_file())
        return [file for file in below if not _is_hidden(file.relative_to(path))]
    if path.exists():
        return [path]
    if found := glob.glob(str(path), recursive=True):
        return [file for file in map(Path, found) if file.is_file()]
    here = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise UserError(f"there is no such file or folder{here}", where=place, mend=f"give {known()}")


def _files_of(package: str, pattern: str) -> list[Path]:
    """The readable files of an installed package that match. Raises UserError where it is not installed."""
    try:
        distribution = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):
        what = f"the package {package!r} is not installed"
        raise UserError(what, where="data.sources", mend=f"pip install {package}") from None
    names = [str(file) for file in distribution.files or () if ".dist-info" not in file.parts[0]]
    chosen = [name for name in names if fnmatch(name, pattern) and readable(name)]
    return [Path(str(distribution.locate_file(name))) for name in chosen]


def _is_hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def _parts(
    files: Sequence[Path], where: str, field: str, separator: str = "", conversations: bool = False
) -> list[FilePart]:
    if not files:
        raise UserError("there is no file here that can be read", where=where, mend=f"give {known()}")
    ordered = sorted(files, key=Path.as_posix)
    return [part for file in ordered for part in parts(file, field, separator, conversations=conversations)]


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
