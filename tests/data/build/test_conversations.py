"""Conversations in a token cache: their ids are the chat template's, and the mask says what is learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ingot.data.build import build
from ingot.data.build.plan import Corpus
from ingot.data.document import Conversation, Message
from ingot.data.source import HeldOut, Local
from ingot.tokenizer.chat import ChatTemplate
from ingot.tokenizer.tokenizer import Tokenizer


def turns(number: int) -> list[dict[str, str]]:
    said = [("user", f"question {number} of them"), ("assistant", f"that is {number}"), ("user", "and <|end|> then?")]
    return [{"role": role, "content": content} for role, content in said + [("assistant", "it is over")] * (number % 2)]


def expected(tokenizer: Tokenizer, numbers: range) -> tuple[list[int], list[bool]]:
    ids, mask = [], []
    for number in numbers:
        kept = [Message(**turn) for turn in turns(number)[: 4 if number % 2 else 2]]
        encoded = ChatTemplate.of(tokenizer).encode(kept)
        assert encoded.ids[0] == tokenizer.end
        ids += encoded.ids.tolist()
        mask += encoded.mask.tolist()
    return ids, mask


def test_ids_and_mask_are_the_templates(small_units, tokenizer: Tokenizer, tmp_path: Path):
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns(n)}) for n in range(40)))
    cache = build(Corpus((Local(path=str(path)),), HeldOut(share=0)), tokenizer, tmp_path / "cache")
    view = cache.train
    ids, mask = expected(tokenizer, range(40))
    assert view.read(0, view.tokens).tolist() == ids
    assert view.mask(0, view.tokens).tolist() == mask and 0 < sum(mask) < len(mask)
    assert all(np.array_equal(view.mask(at, at + 30), mask[at : at + 30]) for at in range(0, view.tokens, 7))
    assert not view.mask(0, view.tokens)[view.starts].any()
    assert cache.report["messages_cut"] == 20
    assert len(list(cache.folder.glob("*.mask"))) > 1
    cache.verify()


def test_texts_beside_conversations_are_learned_whole(small_units, tokenizer: Tokenizer, texts: Path, tmp_path: Path):
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns(n)}) for n in range(9)))
    sources = (Local(path=str(texts)), Local(path=str(path)))
    view = build(Corpus(sources, HeldOut(share=0)), tokenizer, tmp_path / "cache").train
    mask = view.mask(0, view.tokens)
    assert mask[: view.of(0).tokens].all()
    assert mask[view.of(0).tokens :].tolist() == expected(tokenizer, range(9))[1]
    assert view.of(0).mask(0, 99) is None and view.of(1).mask(0, 99).tolist() == expected(tokenizer, range(9))[1][:99]


def test_both_kinds_in_one_file_keep_their_order(tokenizer: Tokenizer, tmp_path: Path, monkeypatch):
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns(n)}) for n in range(6)))
    records = Local.documents

    def mixed(self, part):
        from ingot.data.document import Document

        for number, record in enumerate(records(self, part)):
            assert isinstance(record, Conversation)
            yield Document(f"text {number}", record.offset) if number % 3 == 0 else record

    monkeypatch.setattr(Local, "documents", mixed)
    view = build(Corpus((Local(path=str(path)),), HeldOut(share=0)), tokenizer, tmp_path / "cache").train
    ends = [*view.starts[1:], view.tokens]
    for number, (begin, end) in enumerate(zip(view.starts, ends, strict=True)):
        if number % 3 == 0:
            assert tokenizer.decode(view.read(begin + 1, end)) == f"text {number}" and view.mask(begin, end).all()
        else:
            ids, mask = expected(tokenizer, range(number, number + 1))
            assert (view.read(begin, end).tolist(), view.mask(begin, end).tolist()) == (ids, mask)


def test_another_template_is_another_cache(tokenizer: Tokenizer, texts: Path, tmp_path: Path):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": turns(1)}))
    template = "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
    other = Tokenizer(tokenizer.content, tokenizer.settings | {"chat_template": template})

    def name(path: Path, tokenizer: Tokenizer) -> str:
        return build(Corpus((Local(path=str(path)),), HeldOut(share=0)), tokenizer, tmp_path / "cache").fingerprint

    assert name(path, tokenizer) != name(path, other)
    assert name(texts, tokenizer) == name(texts, other)
