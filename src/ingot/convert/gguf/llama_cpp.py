"""llama.cpp's own reading of a GGUF file, in a process of its own: it ends the whole process over what it dislikes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingot.convert.libraries import library
from ingot.errors import UserError

SECONDS = 600.0  # for loading and for all answers together


@dataclass(frozen=True)
class Reading:
    """What llama.cpp makes of a file."""

    tokens: list[list[int]]
    """the ids of each text"""
    written: list[int]
    """what it writes behind the prompt, always the likeliest token"""
    likeliest: list[dict[int, float]]
    """for each token behind the prompt, the natural logarithms of the likeliest ones' probabilities in its place"""
    chat: str | None
    """a conversation by the file's chat template; none: it was not asked"""


def read_with_llama_cpp(
    path: Path,
    texts: Sequence[str],
    ids: Sequence[int],
    read: int,
    likeliest: int,
    messages: Sequence[Mapping[str, str]] = (),
) -> Reading:
    """Ask llama.cpp for the ids of `texts`, for what it writes behind the first `read` of `ids`, and how it rates them.

    Raises UserError where llama.cpp does not read the file, with its reason.
    """
    library("xllamacpp", "comparing with llama.cpp")
    job = {"path": str(path), "texts": texts, "ids": ids, "read": read, "likeliest": likeliest}
    command = [sys.executable, "-m", __name__]
    asked = json.dumps(job | {"messages": list(messages)})
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError("llama.cpp takes too long", where=str(path), mend="export a smaller model") from None
    answer = done.stdout.rpartition("\x1e")[2]
    if done.returncode or not answer:
        reasons = [line for line in done.stderr.splitlines() if "error" in line.lower() or "assert" in line.lower()]
        reason = reasons[0][:200] if reasons else f"it ended with status {done.returncode}"
        raise UserError(f"llama.cpp does not read this file: {reason}", where=str(path), mend="tell us about it")
    found = json.loads(answer)
    rated = [{int(key): value for key, value in one.items()} for one in found["likeliest"]]
    return Reading(found["tokens"], found["written"], rated, found["chat"])


def _serve(job: dict[str, Any]) -> dict[str, Any]:
    """The answers of a server within this process, on a loopback port of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job["path"]
    params.n_ctx = len(job["ids"]) + 8
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # more wait for each other in loops
    params.port = 0
    params.n_gpu_layers = 0
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    address = server.listening_address

    def post(path: str, **values: Any) -> Any:
        request = urllib.request.Request(
            f"{address}/{path}", json.dumps(values).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)

    tokens = [post("tokenize", content=text, add_special=False, parse_special=False)["tokens"] for text in job["texts"]]
    path, length = job["ids"], job["read"]
    settings = {"temperature": -1.0, "ignore_eos": False, "return_tokens": True}
    written = post("completion", prompt=path[:length], n_predict=len(path) - length, **settings)["tokens"]
    likeliest = []
    for at in range(length, len(path)):  # one by one: an answer as a whole leaves out tokens that end within a letter
        one = post("completion", prompt=path[:at], n_predict=1, n_probs=job["likeliest"], cache_prompt=True, **settings)
        told = one.get("completion_probabilities") or [{"top_logprobs": []}]
        likeliest.append({other["id"]: other["logprob"] for other in told[0]["top_logprobs"]})
    chat = post("apply-template", messages=job["messages"])["prompt"] if job["messages"] else None
    return {"tokens": tokens, "written": written, "likeliest": likeliest, "chat": chat}


if __name__ == "__main__":
    found = json.dumps(_serve(json.load(sys.stdin)))
    sys.stdout.write(f"\x1e{found}")
    sys.stdout.flush()
