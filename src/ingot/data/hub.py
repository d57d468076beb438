"""The source `hub`: a dataset of the Hugging Face hub, streamed file by file, with others to stand in for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import Field, field_validator

from ingot.data.corpora import CORPORA, Corpus
from ingot.data.digests import Digests
from ingot.data.document import Part, Record
from ingot.data.formats.table import Row
from ingot.data.hub_files import HubPart, reader_of, required_datasets
from ingot.data.source import Source
from ingot.errors import UserError, nearest
from ingot.hub import Patience, Unreachable, download, patiently

UNKNOWN_SIZE = 2**29  # bytes that a file counts for of which only the web address is known
PATHS_AT_ONCE = 500  # asked about in one request
Say = Callable[[str], None]


class HubFiles(Source, name="hub-files"):
    """Files of a dataset of the hub at one commit: what a source of the kind `hub` is settled to."""

    apart: ClassVar[frozenset[str]] = Source.apart | {"files", "patience", "expands"}
    sampled: ClassVar[int] = 16  # each is a stream to open

    dataset: str
    """Owner and name of the dataset on the hub."""
    revision: str
    """The commit."""
    files: list[tuple[str, int]] = Field(min_length=1)
    """Path in the dataset, or web address, and size in bytes of each file, in order."""
    reader: str
    """How the files are read: parquet, lines (of JSON), json (one list), csv, text or arrow."""
    field: str
    """Field of a record that holds the text, or a conversation."""
    expands: float = 1.0
    """Bytes of content for a byte of the files, which may be packed."""
    patience: float = Field(default=600, ge=0)
    """Seconds that an outage of the hub is waited out."""

    @property
    def name(self) -> str:
        """The dataset and the commit."""
        return f"{self.dataset} at {self.revision[:7]}"

    def parts(self) -> list[HubPart]:
        """A part for each file."""
        how = (self.reader, Patience(total=self.patience), self.field, self.expands)
        return [HubPart(self.dataset, self.revision, file, size, *how) for file, size in self.files]

    def documents(self, part: Part) -> Iterator[Record]:
        """Every record of the file. Raises Unreachable where an outage outlasts the patience."""
        assert isinstance(part, HubPart)
        return part.records()

    def content(self, digests: Digests) -> Any:
        """The files by name: the commit says what they hold."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()


class Hub(Source, name="hub"):
    """A dataset of the Hugging Face hub, streamed: a corpus of `ingot recipes corpora`, or any other by its path."""

    apart: ClassVar[frozenset[str]] = Source.apart | {"fallback", "patience"}

    dataset: str
    """A corpus such as fineweb-edu (`ingot recipes corpora` lists them), or any dataset as owner/name."""
    configuration: str = ""
    """Configuration of the dataset, such as en of c4; empty: the corpus's, or the dataset's only one."""
    split: str = ""
    """Split of the dataset; empty: train."""
    field: str = ""
    """Field of a record that holds the text, or a conversation; empty: found by itself."""
    revision: str = ""
    """Branch, tag or commit; empty: the newest at the time of preparing. The token cache keeps the commit it found."""
    files: str = ""
    """Glob over the dataset's files, such as en/*00.json.gz, in place of what configuration and split say."""
    fallback: list[Source] = []
    """Sources that stand in when this one can't be reached: the first one that can be, with the same limits."""
    patience: float = Field(default=600, ge=0)
    """Seconds that an outage of the hub is waited out once it has answered; a hub that never does is given 30."""

    @field_validator("dataset")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if value not in CORPORA and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            near = nearest(value, CORPORA, "`ingot recipes corpora`")
            raise ValueError(f"there is no corpus {value!r} (a dataset is owner/name); {near}")
        return value

    @property
    def name(self) -> str:
        """The dataset as the recipe gives it, and the configuration if it names one."""
        return f"{self.dataset} ({self.configuration})" if self.configuration else self.dataset

    @property
    def corpus(self) -> Corpus:
        """What is read: the corpus of the table with what the recipe sets instead."""
        known = CORPORA.get(self.dataset) or Corpus(self.dataset, field="")
        configuration = self.configuration or known.configuration
        return dataclasses.replace(
            known,
            configuration=configuration,
            split=self.split or known.split,
            field=self.field or known.field,
            files=self.files or known.files.replace("{}", configuration),
            addresses="" if self.files else known.addresses.replace("{}", configuration),
        )

    def resolve(self, say: Say) -> Source:
        """The files at one commit; or of the fallbacks the first that can be had."""
        try:
            return self._settled(say)
        except Unreachable as error:
            if not self.fallback:
                raise
            say(f"{error.where}: {error.what}; a fallback is looked for")
            reason = error
        for source in self.fallback:
            try:
                settled = source.resolve(say)
                settled.parts()
            except UserError as error:
                say(str(error))
                continue
            say(f"{settled.name} stands in for {self.name}")
            return settled
        raise Unreachable(
            f"{reason.what}, and none of its fallbacks can be had", where=self.name, mend=reason.mend
        ) from reason

    def parts(self) -> Sequence[Part]:
        """The parts of what this source is settled to."""
        return self.resolve(lambda line: None).parts()

    def documents(self, part: Part) -> Iterator[Record]:
        """Every record of a part that `parts` gave."""
        assert isinstance(part, HubPart)
        return part.records()

    def content(self, digests: Digests) -> Any:
        """What is asked for, here and of the fallbacks: without a network nobody knows what it is answered with."""
        asked = self.corpus
        names = [asked.path, asked.configuration, asked.split, asked.field, asked.files, asked.addresses]
        return [names, [[source.identity(), source.content(digests)] for source in self.fallback]]

    def _settled(self, say: Say) -> HubFiles:
        asked, patience = self.corpus, Patience(total=self.patience)
        revision = _commit(asked.path, self.revision, patience, say)
        files = _listed(asked, revision, self.split, patience, say)
        if not files:
            what = f"it has no files {asked.files or asked.addresses!r}"
            raise UserError(what, where=self.name, mend="check files and configuration")
        part = HubPart(asked.path, revision, *files[0], reader_of(files[0][0]), patience)
        if ".json" in PurePosixPath(part.file).suffixes and _is_one_list(part):
            part = dataclasses.replace(part, reader="json")
        field = part.text_field(asked.field)
        if not self.field and not asked.field:
            say(f"{self.name}: the text is in the field {field!r}")
        expands = patiently(dataclasses.replace(part, field=field).measured, asked.path, patience, say)
        how = {"reader": part.reader, "field": field, "expands": expands, "patience": self.patience}
        return HubFiles(dataset=asked.path, revision=revision, files=files, **how)


def _commit(path: str, revision: str, patience: Patience, say: Say) -> str:
    """The commit that a branch or a tag stands at now."""
    from huggingface_hub import HfApi

    info = patiently(lambda: HfApi().dataset_info(path, revision=revision or None, timeout=60), path, patience, say)
    if not info.sha:
        raise Unreachable("the hub names no commit of it", where=path)
    return info.sha


def _listed(asked: Corpus, revision: str, split: str, patience: Patience, say: Say) -> list[tuple[str, int]]:
    """Path or web address, and size, of every file that is asked for."""
    if not (asked.files or asked.addresses):
        return _declared(asked, revision, patience, say)
    if split and split != "train":
        mend = "name its files by files=…"
        raise UserError(f"it is read by its files, and knows no split {split!r}", where=asked.path, mend=mend)
    found = [
        entry for entry in _tree(asked, revision, patience, say) if fnmatch(entry[0], asked.files or asked.addresses)
    ]
    if asked.files:
        return found
    listings = [download(asked.path, file, revision, say=say) for file, _ in found]
    lines = [line.strip() for listing in listings for line in listing.read_text(encoding="utf-8").splitlines()]
    return [(line, UNKNOWN_SIZE) for line in lines if line]


def _tree(asked: Corpus, revision: str, patience: Patience, say: Say) -> list[tuple[str, int]]:
    """Path and size of every file of the dataset below the folder that the glob names."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    folder = re.split(r"[*?[]", asked.files or asked.addresses)[0].rpartition("/")[0]

    def walk() -> list[Any]:
        return list(
            HfApi().list_repo_tree(asked.path, folder or None, recursive=True, revision=revision, repo_type="dataset")
        )

    tree = patiently(walk, asked.path, patience, say)
    return sorted((entry.path, entry.size) for entry in tree if isinstance(entry, RepoFile))


def _declared(asked: Corpus, revision: str, patience: Patience, say: Say) -> list[tuple[str, int]]:
    """Path and size of every file that the dataset's own page, or its folders, give for the configuration and split."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    datasets = required_datasets()

    def open_builder() -> Any:
        try:
            return datasets.load_dataset_builder(asked.path, asked.configuration or None, revision=revision)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            what = "it has a loader of its own in Python, which `datasets` does not run any more"
            raise Unreachable(what, where=asked.path, mend="name its text files by files=…") from None
        except (datasets.exceptions.DataFilesNotFoundError, datasets.data_files.EmptyDatasetError):
            raise Unreachable("it has no files that can be read", where=asked.path) from None
        except ValueError as error:
            if "onfig" not in str(error).split("\n")[0]:
                raise
            names = datasets.get_dataset_config_names(asked.path, revision=revision)
            what = f"it has no configuration {asked.configuration!r}" if asked.configuration else "which configuration?"
            raise UserError(what, where=asked.path, mend=nearest(asked.configuration, names)) from None

    splits: Mapping[str, Sequence[str]] = patiently(open_builder, asked.path, patience, say).config.data_files
    if asked.split not in splits:
        names = [str(name) for name in splits]
        raise UserError(f"it has no split {asked.split!r}", where=asked.path, mend=nearest(asked.split, names))
    prefix = f"hf://datasets/{asked.path}@{revision}/"
    paths = [str(file).removeprefix(prefix) for file in splits[asked.split]]
    describe = partial(HfApi().get_paths_info, asked.path, revision=revision, repo_type="dataset")
    sizes: dict[str, int] = {}
    for first in range(0, len(paths), PATHS_AT_ONCE):
        some = paths[first : first + PATHS_AT_ONCE]
        found = patiently(partial(describe, some), asked.path, patience, say)
        sizes.update((entry.path, entry.size) for entry in found if isinstance(entry, RepoFile))
    return [(path, sizes.get(path, UNKNOWN_SIZE)) for path in paths]


def _is_one_list(part: HubPart) -> bool:
    """Whether a .json file holds one list of records, and not a record a line."""
    first = next(dataclasses.replace(part, reader="text").rows(), None)
    return isinstance(first, Row) and first.fields["text"].lstrip().startswith("[")
