"""The dashboard as a server: what it answers, to whom, and how it follows files."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from made_up_runs import PAYLOAD, START, add_checkpoint, lines, train_records, validation_record

from ingot.cli import run
from ingot.dashboard.follow import parse
from ingot.dashboard.server import Dashboard

WriteRun = Callable[..., Path]


def ask(server: Dashboard, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def news(server: Dashboard, path: str, query: str = "") -> dict[str, Any]:
    status, text = ask(server, f"/live{path}{query}")
    assert status == 200
    return json.loads(text)


def test_names_of_elsewhere_and_pages_of_elsewhere_are_refused(write_run: WriteRun, watch: Any) -> None:
    add_checkpoint(write_run(), 300, 3.5)
    server = watch()
    assert ask(server, "/")[0] == ask(server, "/", Host="localhost:1")[0] == 200
    assert ask(server, "/", Host="runs.example")[0] == ask(server, "/live/", Host="")[0] == 403
    verify = "/run/demo/verify/step-000300"
    assert ask(server, verify, "POST") == (200, '{"state":"verified"}')
    assert ask(server, verify, "POST", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(server, verify, "POST", Origin="http://evil.example")[0] == 403
    assert ask(server, verify)[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/run/", "/run/nothing", "/run/../demo", "/run/%2e%2e/demo", "/sweep/demo", "/x", "/run/demo/verify/step-000300"],
)
def test_there_is_nothing_elsewhere(write_run: WriteRun, watch: Any, path: str) -> None:
    folder = write_run()
    write_run(name="../demo")
    (folder / "secret").write_text("secret")
    server = watch()
    assert ask(server, path)[0] == 404
    for folder_name in ("..", "../..", quote("../demo", safe=""), "step-000300"):
        assert ask(server, f"/run/demo/verify/{folder_name}", "POST")[0] == 404


def test_others_are_let_in_only_when_asked_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboard", "--runs", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "add --public if that is meant" in capsys.readouterr().err
    server = Dashboard(tmp_path, "0.0.0.0", 0, public=True)
    with server.closing():
        assert server.names is None
    with Dashboard(tmp_path, "127.0.0.1", 0).closing():
        pass


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dashboard", "--runs", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    server = Dashboard(tmp_path, "127.0.0.1", 0)
    with server.closing():
        assert run(["dashboard", "--runs", str(tmp_path), "--port", str(server.server_address[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_only_what_is_new_is_read_and_sent(write_run: WriteRun, watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run([START, *train_records(500)])
    write_run(name="other")
    server = watch()
    first = news(server, "/")
    known = "&".join(f"known={quote(one['version'])}" for one in first["data"]["runs"])
    assert ask(server, f"/live/?{known}&token={first['token']}")[0] == 204
    read: list[int] = []
    monkeypatch.setattr("ingot.dashboard.follow.parse", lambda data: read.append(len(data)) or parse(data))
    added = lines(train_records(501, first=501))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(added + '{"kind": "tr')  # and half a line
    fresh = {one["name"]: one for one in news(server, "/", f"?{known}")["data"]["runs"]}
    assert read == [len(added)]
    assert "series" not in fresh["other"] and fresh["demo"]["series"][0]["step"][-1] == 501


@pytest.mark.parametrize("replaced", [False, True], ids=["in place", "another file"])
def test_a_file_that_went_back_is_read_anew(write_run: WriteRun, watch: Any, replaced: bool) -> None:
    folder = write_run([START, *train_records(50)])
    path, server = folder / "metrics.jsonl", watch()
    assert news(server, "/run/demo")["data"]["runs"][0]["series"][0]["step"][-1] == 50
    other = [record | {"seconds": record["step"] * 0.5, "loss": 1.0} for record in train_records(60)]
    if replaced:
        path.unlink()
        path.write_text(lines([START, *other]))
    else:  # as a run that goes on from an older checkpoint leaves it
        with path.open("r+") as file:
            file.truncate(len(lines([START, *train_records(20)])))
            file.seek(0, 2)
            file.write(lines(other[20:]))
    series = news(server, "/run/demo")["data"]["runs"][0]["series"][0]
    assert series["step"] == list(range(1, 61)) and series["value"][-1] == 1
    assert series["value"][0] == (1 if replaced else pytest.approx(train_records(1)[0]["loss"], rel=1e-5))


def test_what_a_run_says_is_never_markup(write_run: WriteRun, watch: Any) -> None:
    event = {"kind": "rollback", "step": 3, "from": PAYLOAD, "reason": PAYLOAD, "blocks": [PAYLOAD, 1]}
    folder = write_run(
        [START, *train_records(9), event, validation_record(9)], recipe={"name": "x", PAYLOAD: {"a": PAYLOAD}}
    )
    write_run(name="other")
    (folder / "evaluations").mkdir()
    told = {
        "model": {"step": PAYLOAD},
        "text": [{"source": PAYLOAD, "loss": {"value": 1}}],
        "tasks": [{"task": PAYLOAD}],
    }
    (folder / "evaluations" / "a.json").write_text(json.dumps(told))
    (folder / "evaluations" / "b.json").write_text("[" * 5)
    sweep = folder.parent / "s"
    sweep.mkdir()
    runs = [{"name": PAYLOAD, "values": {PAYLOAD: PAYLOAD}, "state": PAYLOAD, "why": PAYLOAD}, 3]
    (sweep / "sweep.json").write_text(
        json.dumps({"runs": runs, "keys": {PAYLOAD: 1}, "advice": [PAYLOAD], "law": {"text": PAYLOAD}})
    )
    server = watch()
    for path in ("/", "/run/demo", "/sweep/s"):
        status, page = ask(server, path)
        assert status == 200 and PAYLOAD not in page and page.count("<script") == 2 and "<img" not in page
        assert PAYLOAD not in "".join(news(server, path)["parts"].values())


def test_a_damaged_sweep_is_a_line_and_no_traceback(write_run: WriteRun, watch: Any) -> None:
    folder = write_run().parent / "s"
    folder.mkdir()
    (folder / "sweep.json").write_text("{")
    status, said = ask(watch(), "/sweep/s")
    assert (status, said.count("\n")) == (500, 1) and "this is no sweep" in said
