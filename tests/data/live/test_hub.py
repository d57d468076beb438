"""Live streaming from a hub on loopback, through its real clients: an outage in the middle brings the fallback."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from hub_server import Fault, hub_server


def test_an_outage_in_the_middle_of_a_stream_brings_the_fallback(tmp_path: Path):
    (tmp_path / "own.jsonl").write_text((json.dumps({"text": "at hand " * 300}) + "\n") * 10)
    script = textwrap.dedent(
        f"""
        import json
        from pathlib import Path

        from ingot.data.clean import Cleaning
        from ingot.data.hub import Hub
        from ingot.data.live.feed import SLOT, Feed
        from ingot.data.live.plan import LivePlan
        from ingot.data.live.prepare import prepare_live
        from ingot.data.source import HeldOut, Local
        from ingot.tokenizer.training import BPE

        fallback = [Local(path={str(tmp_path / "own.jsonl")!r})]
        source = Hub(dataset="someone/gone", files="*", patience=1, fallback=fallback)
        folder = Path({str(tmp_path)!r})
        live = prepare_live([source], HeldOut(share=0.1), BPE(vocabulary=300), folder, Cleaning(), print)
        print("ready", flush=True)
        input()
        plan = LivePlan(live.corpus, live.tokenizer, live.encoder, 32, "slices", 1, False, shuffled=64)
        feed = Feed(plan, 0, 1)
        feed.ask([0] * 150)
        feed.wait(150)
        print(*feed.said(), sep="\\n")
        text = live.tokenizer.decode([int(token) for _ in range(150) for token in feed.take()["input"]])
        print(json.dumps([text, feed.state()[SLOT][0]["reading"]]))
        """
    )
    with hub_server() as hub:
        lines = ["".join(json.dumps({"text": f"{file} {n}"}) + "\n" for n in range(100)).encode() for file in "ab"]
        files = {f"{number}.jsonl.gz": gzip.compress(text) for number, text in enumerate(lines)}
        hub.repositories["datasets/someone/gone"] = files
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment = kept | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "USE_TORCH": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin and process.stdout
        said = list(iter(process.stdout.readline, "ready\n"))
        hub.faults.append(Fault("/1.jsonl.gz", status=403))  # which does not pass by waiting
        found, _ = process.communicate("\n", timeout=120)
    assert said[0] == "someone/gone: the text is in the field 'text'\n"
    *told, result = found.splitlines()
    assert any(line.endswith("own.jsonl takes its place from here on") for line in told)
    text, reading = json.loads(result)
    assert "at hand at hand" in text and "b 5" not in text
    assert reading["instead"]["0"]["kind"] == "local"
