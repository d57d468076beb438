"""What a request can fail with, in the shape of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel


class Fault(BaseModel):
    """What went wrong: `type` is a family of errors, `param` the field of the request, `code` a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class FaultBody(BaseModel):
    """The body of every answer with a status of 400 and above."""

    error: Fault


class ApiError(Exception):
    """A request that is not answered, or not to its end. `code` is a word that a program can act on."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers: Mapping[str, str] = {"Retry-After": str(retry_after)} if retry_after else {}

    @property
    def json(self) -> str:
        """The body that tells it, in ASCII: what a request named may be text that UTF-8 can't hold."""
        fault = Fault(message=self.message, type=family(self.status), param=self.param, code=self.code)
        return json.dumps(FaultBody(error=fault).model_dump())


def family(status: int) -> str:
    """OpenAI's name for the kind of error that a status stands for."""
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
