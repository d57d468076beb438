"""What of a job is finished, kept on the disk as it comes to be, so that the same job goes on after any end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ingot.errors import UserError
from ingot.files import disk_errors, make_folder
from ingot.generate.token import Generation, Token

HEAD = b'{"job": '  # of every journal


class Journal:
    """Beside the file to be written: a line that says what the job is, and a line for each text that is finished."""

    def __init__(self, path: Path, job: Mapping[str, Any], file: IO[bytes]):
        """Raises UserError where `file`, open at `path`, tells of another job."""
        self.path, self._file = path, file
        self.finished: dict[int, Generation] = {}
        """by the prompt's place"""
        data = file.read()
        if not data.startswith(HEAD[: len(data)]):
            mend = "move this file, or choose another output"
            raise UserError("this is not what a job left behind", where=str(path), mend=mend)
        whole = 0
        for number, line in enumerate(data.split(b"\n")[:-1]):  # what follows the last line break was cut short
            try:
                value = json.loads(line)
                if number:
                    self.finished[value["place"]] = _generation(value)
            except (ValueError, KeyError, TypeError):
                break  # what the machine lost is made again
            if not number:
                self._compare(value, job)
            whole += len(line) + 1
        file.seek(whole)
        file.truncate()
        if not whole:
            self._write(job)

    def add(self, place: int, one: Generation) -> None:
        """Keep a finished text: it is on the disk when this returns."""
        value: dict[str, Any] = {"place": place, "prompt": one.prompt, "text": one.text, "ids": list(one.ids)}
        value["reason"] = one.reason
        if any(token.logprob is not None for token in one.tokens):
            value["tokens"] = [[token.id, token.reason, token.logprob, token.alternatives] for token in one.tokens]
        self._write(value)
        self.finished[place] = one

    def _write(self, value: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self._file.write(json.dumps(value).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _compare(self, begun: Mapping[str, Any], job: Mapping[str, Any]) -> None:
        for key, value in job["job"].items():
            if (old := begun["job"].get(key)) != value:
                told = f"with other {key}" if key == "prompts" else f"with {key}={old}, not {value}"
                mend = "give what it was begun with, choose another output, or remove this file"
                raise UserError(f"the output was begun {told}", where=str(self.path), mend=mend)


@contextmanager
def journal_of(output: Path, job: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of the job that writes `output`, found or begun. Raises UserError where another process has it."""
    make_folder(output.parent)
    path, lock = output.with_name(f"{output.name}.journal"), output.with_name(f".{output.name}.lock")
    with disk_errors(path):
        try:
            with FileLock(lock, timeout=0), path.open("a+b") as file:
                file.seek(0)
                yield Journal(path, {"job": job}, file)
        except Timeout:
            mend = "wait for it, or choose another output"
            raise UserError("another process is writing this", where=str(output), mend=mend) from None
        lock.unlink(missing_ok=True)


def _generation(value: Mapping[str, Any]) -> Generation:
    tokens = tuple(
        Token(value["place"], token, reason, logprob, tuple(map(tuple, alternatives)))
        for token, reason, logprob, alternatives in value.get("tokens", ())
    )
    return Generation(value["prompt"], value["text"], tuple(value["ids"]), value["reason"], tokens)
