"""The benchmark of writing: the same weights for all, one that fails is left out, and a table tells the rest."""

from __future__ import annotations

import pytest

from ingot.bench import generate as bench
from ingot.bench.generate import bench_generate
from ingot.bench.writers import Writer
from ingot.errors import UserError
from ingot.extras import pip_install
from ingot.model.architecture import Architecture


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch):
    """Lets the given writers write with a model that is next to nothing."""
    tiny = Architecture(family="llama", vocabulary=320, context=640, layers=1, hidden_size=64, heads=2, tied=True)
    monkeypatch.setattr(bench, "SHAPES", {"tiny": tiny})

    def use(*writers: Writer) -> None:
        monkeypatch.setattr(bench, "_writers", lambda: list(writers))

    return use


@pytest.mark.timeout(200)
def test_one_that_fails_is_left_out_and_the_others_are_measured(contenders, capsys: pytest.CaptureFixture[str]):
    contenders(Writer("ingot", "int3"), Writer("ingot", "int8"))
    measured = bench_generate("tiny", 0.0)
    assert list(measured) == ["ingot, int8"]
    assert all(len(seconds) == bench.LEAST_ROUNDS for seconds in measured["ingot, int8"].seconds.values())
    assert all(measured["ingot, int8"].rate(task) > 0 for task in bench.TASKS)
    said = capsys.readouterr().out
    assert "left out: ingot, int3: 'int3'" in said
    assert "reading 512" in said


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_writer_writes(contenders):
    pytest.importorskip("transformers")
    pytest.importorskip("xllamacpp")
    everyone = bench._writers()
    contenders(*everyone)
    assert list(bench_generate("tiny", 0.0)) == [writer.name for writer in everyone]


def test_who_is_not_installed_is_named(contenders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    contenders(Writer("transformers", "fp32"), Writer("llama.cpp", "bf16"))
    with pytest.raises(UserError, match="nothing of ingot's own could be measured"):
        bench_generate("tiny", 0.0)
    said = capsys.readouterr().out
    assert f"left out: transformers, fp32: {pip_install('hf')}" in said
    assert f"left out: llama.cpp, bf16: {pip_install('export')}" in said


def test_a_shape_that_there_is_not(contenders):
    with pytest.raises(UserError, match="there is no shape '7B'; take one of tiny"):
        bench_generate("7B", 0.0)
