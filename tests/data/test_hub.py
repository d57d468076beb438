"""The source `hub`, through the real `datasets` and `huggingface_hub` clients, against a hub on loopback."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import COMMIT, Fault, Server, hub_server

from ingot.data.corpora import CORPORA
from ingot.data.digests import Digests
from ingot.data.hub import Hub
from ingot.data.hub_files import reader_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(server: Server) -> Server:
    """The server without the faults and the log of the test before."""
    server.faults.clear()
    server.log.clear()
    return server


@pytest.fixture(scope="module")
def ask(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What the client process answers to a task."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment = kept | {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"USE_TORCH": "0"}  # datasets would import it only to give its own classes another base
    environment |= {"HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(__file__).with_name("hub_client.py"))
    with (home / "stderr").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )

        def answer(do: str = "read", **values: Any) -> dict[str, Any]:
            assert process.stdin and process.stdout
            if do == "read":
                values = {"folder": tempfile.mkdtemp(dir=home)} | values
            process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, (home / "stderr").read_text()
            assert "hf_secret" not in line
            return dict(json.loads(line))

        yield answer
        process.stdin.close()
        assert process.wait(timeout=20) == 0
        assert "hf_secret" not in (home / "stderr").read_text()


def lines(texts: list[str], **more: Any) -> bytes:
    return "".join(json.dumps({"text": text, **more}) + "\n" for text in texts).encode()


def parquet(rows: list[dict[str, Any]], group: int = 100) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=group)
    return buffer.getvalue()


def texts(name: str, count: int) -> list[str]:
    return [f"{name} {number} — é" for number in range(count)]


def card(**configurations: dict[str, str]) -> bytes:
    """A dataset's page that names, for each configuration, the glob of each split."""
    head = yaml.dump(
        {
            "configs": [
                {
                    "config_name": name,
                    "data_files": [{"split": split, "path": path} for split, path in splits.items()],
                }
                for name, splits in configurations.items()
            ]
        }
    )
    return f"---\n{head}---\n# A dataset\n".encode()


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("jsonl", lambda texts: lines(texts)),
        ("json.gz", lambda texts: gzip.compress(lines(texts))),
        ("jsonl.zst", lambda texts: zstd.compress(lines(texts))),
        ("parquet", lambda texts: parquet([{"id": 1, "text": text} for text in texts])),
        ("json", lambda texts: json.dumps([{"text": text} for text in texts], indent=1).encode()),
        ("csv", lambda texts: ("text,n\r\n" + "".join(f'"{text}",1\r\n' for text in texts)).encode()),
        ("txt", lambda texts: "\n\n".join(texts).encode()),
    ],
)
def test_reads_every_file_in_order_and_says_what_it_found(hub, ask, suffix, pack):
    files = [pack(texts(name, 300)) for name in "ab"]
    name = f"someone/{suffix.replace('.', '-')}"
    hub.repositories[f"datasets/{name}"] = {f"data/train-{number}.{suffix}": file for number, file in enumerate(files)}
    answer = ask(dataset=name)
    assert answer["records"] == texts("a", 300) + texts("b", 300)
    assert answer["settled"]["revision"] == COMMIT
    assert answer["said"] == [f"{name}: the text is in the field 'text'"]
    assert answer["sizes"] == [len(file) for file in files]
    assert answer["name"] == f"{name} at {COMMIT[:7]}"


def test_configuration_split_field_and_files_are_the_recipes(hub, ask):
    hub.repositories["datasets/someone/many"] = {
        "README.md": card(de={"train": "de/*"}, fr={"train": "fr/t*", "validation": "fr/v*"}),
        "de/0.jsonl": lines(["ein"], body="eins"),
        "fr/t.jsonl": lines(["un"], body="une"),
        "fr/v.jsonl": lines(["deux"], body="deuxième"),
    }
    ask_of = {"dataset": "someone/many", "configuration": "fr"}
    assert ask(**ask_of)["records"] == ["un"]
    assert ask(**ask_of, field="body")["records"] == ["une"]
    assert ask(dataset="someone/many", files="*/[0v].jsonl")["records"] == ["ein", "deux"]
    assert (
        "it has no configuration 'frr'; did you mean 'fr'?" in ask(dataset="someone/many", configuration="frr")["error"]
    )
    assert "which configuration?; known: de, fr" in ask(dataset="someone/many")["error"]
    assert "it has no split 'test'; " in ask(**ask_of, split="test")["error"]


def test_conversations_are_recognised(hub, ask):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    hub.repositories["datasets/someone/chats"] = {"train.parquet": parquet([{"messages": messages}] * 3)}
    answer = ask(dataset="someone/chats")
    assert answer["records"] == [messages] * 3
    assert answer["said"] == ["someone/chats: the text is in the field 'messages'"]


def test_records_of_many_shapes_and_damaged_ones_are_each_accounted_for(hub, ask):
    good, other = lines(["one"], meta={"a": 1}), lines(["two"], meta=["b", 2])
    bad = b'{"text": "cut\n' + b'{"text": "\xff"}\n' + b'{"body": 3}\n' + b"\n"
    hub.repositories["datasets/someone/mixed"] = {"train.jsonl": good + bad + other + b'{"text": "last"}'}
    found = ask(dataset="someone/mixed")["records"]
    assert [record if isinstance(record, str) else record["dropped"] for record in found] == [
        "one", "not JSON", "invalid UTF-8", "no text in the field 'text'", "two", "last"
    ]  # fmt: skip
    assert found[1]["place"] == f"someone/mixed@{COMMIT[:7]}/train.jsonl, byte {len(good)}"


def test_what_is_settled_is_asked_once(hub, ask, tmp_path):
    hub.repositories["datasets/someone/once"] = {"train.jsonl": lines(["one"])}
    assert ask(dataset="someone/once", folder=str(tmp_path))["said"]
    hub.log.clear()
    again = ask(dataset="someone/once", folder=str(tmp_path), max_documents=1)
    assert (again["records"], again["said"], again["settled"]["max_documents"]) == (["one"], [], 1)
    assert not [line for line in hub.log if "/revision/main" in line or "README" in line]


def test_the_fingerprint_is_of_what_is_asked_and_needs_no_network(tmp_path):
    """Without a network, on the machine that reads a finished cache, and before anything is settled."""

    def name(**values: Any) -> str:
        source = Hub.model_validate(values)
        return json.dumps([source.identity(), source.content(Digests(tmp_path / "digests.json"))])

    plain = name(dataset="c4")
    assert name(dataset="c4", patience=1, weight=3) == plain
    other = {"dataset": "tinystories"}
    fallback = [{"kind": "hub", **other}]
    names = {plain, name(**other), name(dataset="c4", configuration="de"), name(dataset="c4", fallback=fallback)}
    names |= {name(dataset="c4", revision="v1"), name(dataset="c4", files="en/*0.json.gz")}
    assert len(names) == 6


def test_a_misspelt_corpus_is_one_line():
    with pytest.raises(ValueError, match=r"no corpus 'finweb' \(a dataset is owner/name\); did you mean 'fineweb'"):
        Hub(dataset="finweb")
    assert Hub(dataset="someone/finweb").corpus.path == "someone/finweb"


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_of_the_table_says_whose_it_is_and_is_a_source(name):
    corpus = CORPORA[name]
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", corpus.path)
    assert corpus.size and corpus.licence and corpus.note
    asked = Hub(dataset=name).corpus
    assert "{}" not in asked.files + asked.addresses
    if asked.files:
        assert reader_of(asked.files.replace("*", "x"))
    assert bool("{}" in corpus.files + corpus.addresses) <= bool(corpus.configuration)


# --- what goes wrong on the way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_goes_on_at_the_record_where_the_stream_broke(hub, ask, suffix):
    """The connection breaks off in the middle of a file for longer than the libraries themselves try."""
    words = [f"{number} {os.urandom(4000).hex()}" for number in range(1200)]  # 10 MB, more than is read ahead
    pack = {
        "jsonl": lambda: lines(words),
        "jsonl.gz": lambda: gzip.compress(lines(words), 0),
        "parquet": lambda: parquet([{"text": word} for word in words]),
    }
    name = f"someone/long-{suffix}"
    hub.repositories[f"datasets/{name}"] = {f"train.{suffix}": pack[suffix]()}
    hub.faults.append(Fault(f"GET /datasets/{name}", after=1000, passes=2, times=14))
    answer = ask(dataset=name)
    assert answer["records"] == words
    assert hub.faults[0].times == 0
    assert "the hub can't be reached; trying again in 1 s" in answer["logged"][0]


def test_a_rate_limit_is_waited_out_as_the_hub_asks(hub, ask):
    hub.repositories["datasets/someone/limited"] = {"train.jsonl": lines(["one", "two"])}
    hub.faults.append(Fault("GET /api/datasets/someone/limited", status=429, headers={"Retry-After": "77"}, times=2))
    hub.faults.append(Fault("GET /datasets/someone/limited", status=429, headers={"Retry-After": "33"}, times=2))
    answer = ask(dataset="someone/limited")
    assert answer["records"] == ["one", "two"]
    assert sum(77 <= wait < 80 for wait in answer["waits"]) == 2
    assert sum(33 <= wait < 36 for wait in answer["waits"]) == 2
    assert "HTTP 429" in answer["said"][0]


def test_an_outage_before_the_start_brings_the_first_fallback_that_can_be_had(hub, ask, tmp_path):
    hub.repositories["datasets/someone/first"] = {"train.jsonl": lines(["first"])}
    hub.repositories["datasets/someone/third"] = {"train.jsonl": lines(["third"])}
    hub.faults.append(Fault("datasets/someone/first", status=503))
    fallback = [{"kind": "hub", "dataset": "someone/second"}, {"kind": "hub", "dataset": "someone/third"}]
    answer = ask(dataset="someone/first", fallback=fallback, patience=100, max_documents=7, weight=2)
    assert answer["records"] == ["third"]
    assert answer["settled"]["max_documents"] == 7 and answer["settled"]["weight"] == 2
    assert [line for line in answer["said"] if "trying again" not in line] == [
        "someone/first: the hub answers HTTP 503; a fallback is looked for",
        "someone/second: there is no such thing on the hub, or it is private; check the name, or `hf auth login`",
        "someone/third: the text is in the field 'text'",
        f"someone/third at {COMMIT[:7]} stands in for someone/first",
    ]
    assert 50 < sum(answer["waits"]) < 200

    hub.faults.append(Fault("datasets/someone/third"))  # no answer at all
    (tmp_path / "own.txt").write_text("at hand")
    local = {"kind": "local", "path": str(tmp_path / "own.txt")}
    settled = ask(dataset="someone/first", fallback=[*fallback, local], patience=100)["settled"]
    assert settled["kind"] == "local"
    error = ask(dataset="someone/first", fallback=fallback, patience=100)["error"]
    assert error.startswith("someone/first: the hub answers HTTP 503, and none of its fallbacks can be had")
    assert error.endswith("text of your own needs no hub: 'data.sources=[{kind: local, path: FOLDER}]'")


def test_an_outage_in_the_middle_that_outlasts_the_patience_is_one_line_and_no_loss(hub, ask):
    hub.repositories["datasets/someone/gone"] = {"a.jsonl": lines(["one", "two"]), "b.jsonl": lines(["three"])}
    hub.faults.append(Fault("resolve/" + COMMIT + "/b.jsonl", status=502))
    answer = ask(dataset="someone/gone", files="*.jsonl", patience=200)
    assert answer["records"] == ["one", "two"]
    assert answer["error"] == (
        f"someone/gone@{COMMIT[:7]}/b.jsonl: the hub answers HTTP 502; run the same command again later: it goes on"
    )
    hub.faults.clear()
    assert ask(dataset="someone/gone", files="*.jsonl")["records"] == ["one", "two", "three"]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_a_file_that_is_gone_from_the_commit_is_one_line(hub, ask, suffix, tmp_path):
    packs = {"jsonl": lines(["one"]), "jsonl.gz": gzip.compress(lines(["one"])), "parquet": parquet([{"text": "one"}])}
    name = f"someone/gone-{suffix}"
    hub.repositories[f"datasets/{name}"] = {f"train-{number}.{suffix}": packs[suffix] for number in (1, 2)}
    assert ask(dataset=name, folder=str(tmp_path))["records"] == ["one", "one"]
    del hub.repositories[f"datasets/{name}"][f"train-2.{suffix}"]
    answer = ask(dataset=name, folder=str(tmp_path))
    assert answer["records"] == ["one"]
    assert "there is no such thing on the hub" in answer["error"]


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, "gz"), (zstd.compress, "zst")])
def test_a_file_that_is_cut_short_gives_what_is_whole_in_it(hub, ask, pack, suffix):
    words = [f"{number} {os.urandom(50).hex()}" for number in range(4000)]
    whole = pack(lines(words))
    name = f"someone/cut-{suffix}"
    hub.repositories[f"datasets/{name}"] = {f"train.jsonl.{suffix}": whole[: len(whole) // 2]}
    *found, last = ask(dataset=name)["records"]
    assert found == words[: len(found)] and 1000 < len(found) < 2500  # of zstd, whole blocks
    assert last["dropped"] == "the file is cut short"
    assert last["place"].endswith(f", byte {len(lines(found)):,}")


def test_a_damaged_parquet_file_among_whole_ones_is_dropped_and_counted(hub, ask):
    rows = [[{"text": text} for text in texts(name, 50)] for name in "ab"]
    files = {"train-0.parquet": parquet(rows[0]), "train-1.parquet": parquet(rows[1])[:-20]}
    hub.repositories["datasets/someone/broken"] = files
    *found, last = ask(dataset="someone/broken")["records"]
    assert found == texts("a", 50)
    assert last["dropped"] == "the file is damaged"


def test_what_a_login_opens_is_said_without_the_token(hub, ask):
    hub.repositories["datasets/someone/private"] = {"train.jsonl": lines(["secret"])}
    hub.tokens["datasets/someone/private"] = "gated"
    assert "accept the terms on its page if it has any, and `hf auth login`" in ask(dataset="someone/private")["error"]
    hub.tokens["datasets/someone/private"] = "hf_secret"
    assert ask(dataset="someone/private")["records"] == ["secret"]


# --- the corpora of the table -----------------------------------------------------------------------------------------


def test_a_dataset_with_a_loader_in_python_says_what_to_name_instead(hub, ask):
    hub.repositories["datasets/someone/script"] = {"script.py": b"import datasets", "x.jsonl": lines(["one"])}
    assert "name its text files by files=…" in ask(dataset="someone/script")["error"]
    assert ask(dataset="someone/script", files="*.jsonl")["records"] == ["one"]


def test_a_corpus_whose_files_lie_elsewhere_is_read_from_the_addresses_it_lists(hub, ask):
    hub.repositories["files"] = {
        "a.json.gz": gzip.compress(lines(["one", "two"])),
        "b.json.gz": gzip.compress(lines(["three"])),
    }
    listed = "".join(f"{hub.address}/files/{name}\n" for name in hub.repositories["files"])
    hub.repositories["datasets/allenai/dolma"] = {"dolma.py": b"", "urls/v1_7.txt": listed.encode(), "urls/v1.txt": b""}
    hub.faults.append(Fault("GET /files/b", status=503, times=3))
    answer = ask(dataset="dolma")
    assert answer["records"] == ["one", "two", "three"]
    assert answer["settled"]["files"][0] == [f"{hub.address}/files/a.json.gz", 2**29]


def test_a_corpus_by_language(hub, ask):
    record = json.dumps({"content": "Hallo", "metadata": {}}).encode()
    hub.repositories["datasets/oscar-corpus/OSCAR-2301"] = {
        "de_meta/de_meta_part_1.jsonl.zst": zstd.compress(record),
        "de_meta/checksum.sha256": b"",
        "nds_meta/nds_meta.jsonl.zst": b"",
    }
    answer = ask(dataset="oscar", configuration="de")
    assert (answer["records"], answer["said"]) == (["Hallo"], [])


def test_a_file_of_a_model(hub, ask):
    hub.repositories["someone/model"] = {"tokenizer.json": b"{}"}
    hub.faults.append(Fault("someone/model/resolve", status=500, times=1))
    assert ask("fetch", repository="someone/model", file="tokenizer.json")["text"] == "{}"
    assert "no such thing" in ask("fetch", repository="someone/model", file="other.json")["error"]
    assert "owner/name" in ask("fetch", repository="a/b/c", file="x")["error"]
