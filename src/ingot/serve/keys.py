"""Who may ask: API keys from a file, and what a server without them is open to."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Iterable
from pathlib import Path

from ingot.errors import UserError


class Keys:
    """API keys, held as digests. They are compared in a time that tells nothing of them."""

    def __init__(self, keys: Iterable[str]):
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @classmethod
    def read(cls, path: Path) -> Keys:
        """One key a line; empty lines and those that begin with # are none. Raises UserError where there is none."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise UserError(f"no keys can be read here ({reason})", where=str(path), mend="one key a line") from None
        keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            raise UserError("there is no key in this file", where=str(path), mend="write one a line")
        if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
            raise UserError("a key is printable ASCII without spaces", where=str(path), mend="one key a line")
        return cls(keys)

    def accept(self, header: str | None) -> bool:
        """Whether the value of an Authorization header bears one of the keys."""
        scheme, _, key = (header or "").partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = [hmac.compare_digest(given, known) for known in self._digests]  # all of them, whichever fits
        return scheme.lower() == "bearer" and any(found)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts_of(host: str) -> Collection[str]:
    """The names by which a page may call a server on loopback: any other points here by a forged name."""
    return {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
