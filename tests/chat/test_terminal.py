"""The program that talks, as people meet it: through a pipe, and in a real terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from ingot.chat.context import Prompt
from ingot.chat.terminal import talk
from ingot.chat.typed import Piped, said
from ingot.cli import run
from ingot.generate.sampling import Sampling
from ingot.language_model import LanguageModel


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("Hello\n\n  \nBye", [("Hello", False), ("Bye", False)]),
        ("one\\\ntwo\\\nthree\nfour", [("one\ntwo\nthree", False), ("four", False)]),
        ("one\\", [("one", False)]),
        ('"""\none\n\n/two\n"""\nthree', [("one\n\n/two", False), ("three", False)]),
        ('"""\none', [("one", False)]),
        ("/reset\r\n/top_k 3\n/", [("reset", True), ("top_k 3", True), ("help", True)]),
        ("//etc is a path", [("/etc is a path", False)]),
    ],
)
def test_lines_are_messages_and_commands(tmp_path: Path, typed: str, understood: list):
    path = tmp_path / "typed"
    path.write_bytes(typed.encode())
    with path.open("rb") as file:
        assert list(said(Piped(file))) == understood


def command(runs: Path, name: str = "tiny") -> list[str]:
    return ["chat", name, "--runs", str(runs), "--max-new-tokens", "8", "--seed", "1"]


def test_through_a_pipe_it_writes_answers_and_nothing_else(runs: Path, llm: LanguageModel):
    typed = b"The fox?\n/temperature 0\n/reset\nThe dog?\n"
    done = subprocess.run([sys.executable, "-m", "ingot", *command(runs)], input=typed, capture_output=True)
    first = llm.chat([{"role": "user", "content": "The fox?"}], seed=1, max_new_tokens=8)
    second = llm.chat([{"role": "user", "content": "The dog?"}], temperature=0, max_new_tokens=8)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode() == f"{first}\ntemperature 0\na new conversation\n{second}\n"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (b"Hi\n\xff\xfe\n", "ingot: standard input, line 2: invalid UTF-8; give text in UTF-8\n"),
        (b"fox " * 300, "the model's context is 96; shorten it\n"),
        (b"/temprature 1\n", "did you mean '/temperature'? (a message may begin with //)\n"),
    ],
)
def test_through_a_pipe_a_mistake_ends_it_in_one_line(runs: Path, monkeypatch, capsys, typed: bytes, told: str):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
    assert run(command(runs)) == 2
    error = capsys.readouterr().err
    assert error.endswith(told) and error.count("\n") == 1


def test_a_model_that_was_never_tuned_says_so_and_talks(runs: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n")))
    assert run(command(runs, "plain")) == 0
    written = capsys.readouterr()
    assert written.out
    assert written.err.startswith("plain was not tuned on conversations: it will go on writing rather than answer; ")


class Talker:
    """Stands for a model: says a few long words, and is stopped in the middle of the last."""

    name, tuned, context = "talker", True, 96

    def prompt(self, messages, sampling):
        return Prompt([], 0)

    def answer(self, prompt, sampling):
        yield from ("Con", "stitution and leg", "islature, \x1b[2J", "gov")
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("screen", "shown"),
    [
        (True, "Constitution\nand\nlegislature,\n\N{REPLACEMENT CHARACTER}[2Jgov"),
        (False, "Constitution and legislature, \x1b[2Jgov"),
    ],
)
def test_an_answer_is_broken_between_words_where_it_is_read_and_shown_to_where_it_stops(
    monkeypatch, capsys, screen: bool, shown: str
):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n")))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: screen)
    monkeypatch.setenv("COLUMNS", "14")
    with pytest.raises(KeyboardInterrupt):
        talk(Talker(), Sampling())
    assert capsys.readouterr().out == shown


class Terminal:
    """A program in a pseudo-terminal of its own."""

    def __init__(self, arguments: list[str]):
        self.master, slave = pty.openpty()
        environment = os.environ | {"TERM": "dumb"}
        self.process = subprocess.Popen(
            arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is what it is to people
        )
        os.close(slave)
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def leave(self, seconds: float = 60) -> None:
        """Ctrl-D, again and again: one that comes before the line editor listens is lost."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.type("\x04")
            time.sleep(0.2)

    def wait_for(self, text: str, seconds: float = 90, key: str = "") -> str:
        """What was shown up to `text`, since the last wait; `key` is typed until then.

        More than once, for one that comes while the line editor takes the terminal over is lost.
        """
        end = time.monotonic() + seconds
        self.type(key)
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} was not shown, but {self.shown!r}"
            if select.select([self.master], [], [], 5.0)[0]:
                self.shown += os.read(self.master, 65536).decode(errors="replace").replace("\r\n", "\n")
            else:
                self.type(key)
        before, _, self.shown = self.shown.partition(text)
        return before


def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_leaves(runs: Path):
    terminal = Terminal([sys.executable, "-m", "ingot", *command(runs)])
    terminal.wait_for("Ctrl-D leaves.\n\n> ")
    terminal.type("/max 90\n")
    terminal.wait_for("max 90\n\n> ")
    terminal.type("The fox?\n")
    terminal.wait_for("The fox?\n")
    terminal.wait_for("> ", key="\x03")  # in the answer or, where that is over already, behind it
    terminal.type("half a line")
    terminal.wait_for("half a line")
    terminal.wait_for("> ", key="\x03")
    terminal.type("/temprature\n")
    terminal.wait_for(
        "! there is no command /temprature; did you mean '/temperature'? (a message may begin with //)\n\n> "
    )
    terminal.type("fox " * 200 + "\n")
    terminal.wait_for("the model's context is 96; shorten it\n\n> ")
    terminal.type('"""\nfirst\n')
    terminal.wait_for(". first\n. ")
    terminal.type('second\n"""\n')
    terminal.wait_for("\n> ")
    terminal.type("/show\n")
    terminal.wait_for("user: first\nsecond\nassistant: ")
    terminal.wait_for("\n\n> ")
    terminal.leave()
    assert terminal.process.wait(60) == 0
