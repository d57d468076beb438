"""The cost of loading is measured on rows that are really read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ingot.bench import loading
from ingot.bench.loading import READS, seconds_per_read
from ingot.data.cache import Shard, TokenView


def test_reading_takes_processor_time(tmp_path, monkeypatch):
    np.arange(5000, dtype="<u2").tofile(tmp_path / "0.bin")
    view = TokenView(tmp_path, [Shard("0.bin", 0, 5000)], np.array([0]), "<u2")
    read, begins = view.read, []
    monkeypatch.setattr(view, "read", lambda begin, end: begins.append(begin) or read(begin, end))
    monkeypatch.setattr(loading, "time", SimpleNamespace(thread_time=iter(range(1000)).__next__))
    assert seconds_per_read(view, context=50, batch_tokens=200) == 1
    assert len(begins) == (READS + 1) * 4 and len(set(begins)) > 80  # other rows at every step
