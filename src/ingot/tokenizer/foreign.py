"""Tokenizers that others made: on this disk or on the hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ingot.errors import UserError
from ingot.hub import Unreachable, download, status
from ingot.tokenizer.byte_pairs import byte_level, describe
from ingot.tokenizer.tokenizer import END, Tokenizer

GPT2_REPOSITORY = "openai-community/gpt2"
GPT2_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # OpenAI's names, and those of the hub
GPT2_TOKENS = 50_257
GREETING, GREETING_IDS = "Hello world", [15496, 995]  # told apart from others of the same size
BESIDE = ("tokenizer_config.json", "chat_template.jinja")  # what may stand beside a tokenizer.json


def find(path: str, revision: str = "") -> Path:
    """The tokenizer.json that `path` names: a file, a folder that holds one, or owner/name on the hub.

    Raises UserError for a path that is neither, and where the hub can't be reached.
    """
    local = Path(path).expanduser()
    if local.exists():
        return local
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path):
        what = "there is no such file or folder"
        raise UserError(what, where=f"tokenizer.path: {path}", mend="name one, or owner/name of a model on the hub")
    file = download(path, "tokenizer.json", revision, kind="model")
    for name in BESIDE:
        try:
            download(path, name, file.parent.name, kind="model")  # of the same commit, by which its folder is named
        except Unreachable as error:
            if status(error) != 404:
                raise
    return file


def gpt2(folder: Path | None) -> Tokenizer:
    """GPT-2's tokenizer, from a folder or from the hub; the same to the byte. Raises UserError for any other."""
    if folder is None:
        where = download(GPT2_REPOSITORY, "tokenizer.json", kind="model")
        model = _json(where).get("model", {})
        vocabulary, merges = model.get("vocab", {}), model.get("merges", [])
    else:
        where, (vocabulary, merges) = folder, _from_folder(folder)
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), END)
    content = describe(vocabulary, pairs, byte_level(use_regex=True), {END: vocabulary.get(END, len(vocabulary))})
    found = Tokenizer(content, settings, where=str(where))
    if found.vocabulary != GPT2_TOKENS or found.encode(GREETING) != GREETING_IDS:
        what = f"this is not GPT-2's tokenizer: it has {found.vocabulary:,} tokens"
        raise UserError(what, where=str(where), mend="tokenizer.kind=file reads any tokenizer.json")
    return found


def _from_folder(folder: Path) -> tuple[dict[str, int], list[str]]:
    for names in GPT2_FILES:
        vocabulary, merges = (folder.expanduser() / name for name in names)
        if vocabulary.is_file() and merges.is_file():
            lines = merges.read_text(encoding="utf-8").split("\n")
            return _json(vocabulary), [line for line in lines if line and not line.startswith("#version")]
    wanted = " nor ".join(" and ".join(names) for names in GPT2_FILES)
    mend = "leave tokenizer.folder out to take them from the hub"
    raise UserError(f"this folder holds neither {wanted}", where=str(folder), mend=mend)


def _json(file: Path) -> dict:
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(file), mend="fetch the file anew") from None
    return found if isinstance(found, dict) else {}
