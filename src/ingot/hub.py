"""The Hugging Face hub, reached with patience: what passes is waited out, what does not is told in one line.

A login is huggingface_hub's own (`hf auth login`); ingot never sees the token.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from ingot.errors import UserError

T = TypeVar("T")

# Packages whose errors tell of a connection, not of an answer; huggingface_hub has changed them before.
TRANSPORTS = {"aiohttp", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"}
PASSING = {408, 425, 429}  # beside all from 500 on


class Unreachable(UserError):
    """What was asked of the hub can't be had: it is away, it refuses, or there is no such thing."""


@dataclass(frozen=True)
class Patience:
    """How long an outage is waited out, in seconds: waits double up to `longest`, or are as long as the hub asks."""

    total: float = 600.0  # without getting on
    silent: float = 30.0  # while the hub never answered at all: then it is likely this machine that is offline
    first: float = 1.0
    longest: float = 60.0


class Outage:
    """The waits between tries of one task; `over` is to be called whenever the task got on."""

    def __init__(self, where: str, patience: Patience, say: Callable[[str], None] = lambda line: None):
        self._where, self._patience, self._say = where, patience, say
        self._began: float | None = None
        self._wait = patience.first
        self._answered = False

    def over(self) -> None:
        """The task got on: patience is whole again."""
        self._began, self._wait, self._answered = None, self._patience.first, True

    def wait(self, error: Exception) -> None:
        """Wait before the next try. Raises Unreachable for an error that does not pass, and when patience is out."""
        what, mend = told(error)
        if not passing(error):
            raise Unreachable(what, where=self._where, mend=mend) from error
        self._answered |= status(error) is not None
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        wait = asked_wait(error) or self._wait * random.uniform(0.75, 1.25)  # many processes come back at many times
        patience = self._patience.total if self._answered else min(self._patience.total, self._patience.silent)
        if now - self._began + wait > patience:
            raise Unreachable(what, where=self._where, mend="run the same command again later: it goes on") from error
        self._say(f"{self._where}: {what}; trying again in {wait:.0f} s")
        time.sleep(wait)
        self._wait = min(2 * self._wait, self._patience.longest)


def patiently(
    action: Callable[[], T],
    where: str,
    patience: Patience | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> T:
    """What `action` returns, tried again while its error is one that passes. Raises Unreachable where it does not."""
    outage = Outage(where, patience or Patience(), say)
    while True:
        try:
            return action()
        except Exception as error:
            if not of_hub(error):
                raise
            outage.wait(error)


def download(
    repository: str,
    file: str,
    revision: str = "",
    kind: Literal["dataset", "model"] = "dataset",
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The local copy of one file of a repository of the hub; fetched once for each revision. Raises Unreachable."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    def fetch() -> Path:
        try:
            return Path(hf_hub_download(repository, file, repo_type=kind, revision=revision or None))
        except HFValidationError:
            what = f"{repository!r} is no name of a repository on the hub"
            raise UserError(what, mend="it is of the form owner/name") from None

    return patiently(fetch, f"{repository}: {file}", say=say)


def of_hub(error: BaseException) -> bool:
    """Whether an answer of the hub's, or the want of one, lies behind an error."""
    return _root(error) is not None


def passing(error: BaseException) -> bool:
    """Whether trying again may help: no connection, too many requests, or a fault of the server's."""
    if code := status(error):
        return code in PASSING or code >= 500
    root = _root(error)
    return root is not None and not _switched_off(root)


def status(error: BaseException) -> int | None:
    """The HTTP status that lies behind an error; None: there was no answer."""
    root = _root(error)
    return None if root is None else _code(root)


def asked_wait(error: BaseException) -> float:
    """Seconds that the server asks to wait, by `Retry-After` or the hub's `RateLimit`; 0: it does not say."""
    headers = getattr(getattr(_root(error), "response", None), "headers", None) or {}
    after = headers.get("retry-after", "").strip()
    if after.isdigit():
        return float(after)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
    limit = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
    return float(limit[1]) if limit else 0.0


def told(error: BaseException) -> tuple[str, str]:
    """What went wrong and what mends it, in words of ours: an address with a signature in it is nobody's business."""
    code, root = status(error), _root(error)
    if code in (401, 403):
        return "the hub does not let you in", "accept the terms on its page if it has any, and `hf auth login`"
    if code == 404:
        return "there is no such thing on the hub, or it is private", "check the name, or `hf auth login`"
    if code == 429:
        return "the hub has had too many requests (HTTP 429)", "`hf auth login` raises the limit"
    if code:
        return f"the hub answers HTTP {code}", ""
    if root is not None and _switched_off(root):
        return "the hub is switched off by HF_HUB_OFFLINE", "unset it"
    return "the hub can't be reached", ""


def _root(error: BaseException | None) -> BaseException | None:
    """The answer, or the want of one, that lies behind an error, also where `from None` hides it; None: neither."""
    found: BaseException | None = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if _code(error) or _package(error) in TRANSPORTS or _switched_off(error):
            return error
        if isinstance(error, (ConnectionError, TimeoutError)):
            found = found or error  # a client's own words for it; what it rests on says more
        # Behind a client's own words only their cause counts: the context may be an answer to an earlier question.
        error = error.__cause__ or (None if found else error.__context__)
    return found


def _code(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    if code is None and _package(error) == "aiohttp":
        code = getattr(error, "status", None)
    return code if isinstance(code, int) and code >= 400 else None


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _switched_off(error: BaseException) -> bool:
    return type(error).__name__ == "OfflineModeIsEnabled"
