"""Whole runs in several processes, as torchrun starts them: one run, one voice, and never lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from courses import records
from launch import RUN, finish, start, torchrun

from ingot.checkpoint.store import Checkpoints
from ingot.model.huggingface import load_model
from ingot.recipe.recipe import Recipe
from ingot.train.run import train

# A sampled loss draws for each rank; with a constant rate a run's length does not show in its steps.
FULL = ("loss=full", "schedule={kind: constant, rise: 0}", "samples.prompts=[the]")

INTERFACE = ("env", "GLOO_SOCKET_IFNAME=cable")  # a namespace has the host's name, whose address is elsewhere
# Linux gives up a peer that does not answer after a quarter of an hour, and one that is not spoken to after two hours.
IMPATIENT = [f"net.ipv4.tcp_{name}" for name in ("retries2=4", "keepalive_time=5", "keepalive_intvl=1")]


def assert_same_course(one: Path, other: Path) -> None:
    """The same steps on the same rows, once each and in order, and the same measurements, but for rounding."""
    for kind in ("train", "validation"):
        left, right = records(one, kind), records(other, kind)
        assert [record["step"] for record in left] == [record["step"] for record in right]
        assert [record["tokens"] for record in left] == [record["tokens"] for record in right]
        for ours, theirs in zip(left, right, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def ranked(launcher: int, rank: int) -> int:
    """The process that a launcher started as this rank."""
    return next(child.pid for child in psutil.Process(launcher).children() if child.environ().get("RANK") == str(rank))


def children(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children(recursive=True)]


def test_a_run_goes_on_from_one_to_two_to_one_and_speaks_once(tiny, wait_for):
    recipe = tiny("moved", duration="100000 steps")
    folder = Recipe.load(recipe).folder
    words = (*RUN, str(recipe), *FULL)
    for until, command in ((6, [sys.executable, *words]), (12, torchrun(*words, "parallel=zero3"))):
        process = start(command)
        wait_for(lambda until=until: (folder / f"checkpoints/step-{until:06}").exists(), process)
        process.send_signal(signal.SIGTERM)  # torchrun hands it to all ranks
        output = process.communicate(timeout=200)[0]
        assert output.count("the same command goes on") == 1, output
        assert "Traceback" not in output.partition("torch/distributed")[0]
    assert "2 processes (zero3)" in output and "going on from step" in output
    steps = f"train.duration={records(folder, 'train')[-1]['step'] + 3} steps"
    train(Recipe.load(recipe, [*FULL, steps]))
    alone = train(Recipe.load(tiny("alone"), [*FULL, steps]))
    assert_same_course(alone, folder)
    ours, theirs = (Checkpoints(one).all()[-1].model for one in (folder, alone))
    for name, value in load_model(ours).named_parameters():
        torch.testing.assert_close(value, load_model(theirs).get_parameter(name), rtol=1e-3, atol=1e-4)
    assert [record["processes"] for record in records(folder, "start")] == [1, 2, 1]
    assert (folder / "log.txt").read_text().count("the same command goes on") == 2


def test_a_mistake_is_one_line_from_all_of_them(tiny):
    command = torchrun(*RUN, str(tiny("wrong")), *FULL, f"samples.prompts=[{'peace ' * 50}]")
    output = finish(start(command), status=1)  # torchrun's own
    assert re.findall("^ingot: (.*): a prompt has", output, flags=re.MULTILINE) == ["samples.prompts"]
    assert len(re.findall("^ingot: ", output, flags=re.MULTILINE)) == 1
    assert "Traceback" not in output.partition("torch/distributed")[0]


@pytest.mark.slow
def test_a_killed_worker_costs_a_restart_and_not_the_run(tiny, wait_for):
    recipe = tiny("killed", duration="40 steps")
    folder = Recipe.load(recipe).folder
    patient = "--monitor-interval=3"  # or it ends the other process within 0.1 s, perhaps before that could speak
    options = ("--standalone", "--max-restarts=2", patient)
    process = start(torchrun(*RUN, str(recipe), *FULL, options=options))
    wait_for(lambda: (folder / "checkpoints/step-000006").exists(), process)
    os.kill(ranked(process.pid, 1), signal.SIGKILL)
    output = finish(process)
    assert "going on from step" in output
    assert "ingot: rank 0: another process of this run ended" in output, output
    assert_same_course(train(Recipe.load(tiny("alone", duration="40 steps"), FULL)), folder)


def agent(
    recipe: Path, name: str, host: str, port: int, *before: str, local: str, keeps: bool
) -> subprocess.Popen[str]:
    """One of two launchers that meet at `host`, each with a process; `before`: what its command is run by.

    `keeps`: the store through which they speak, without which nobody goes on. It must be told: on one machine either
    may take itself for the host, and so does neither in a namespace, which can't tell by its name.
    """
    patience = "last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=3,join_timeout=120"
    patience += f",is_host={keeps}"
    options = ("--nnodes=1:2", "--max-restarts=3", "--rdzv-backend=c10d", f"--rdzv-id={name}")
    options += (f"--rdzv-endpoint={host}:{port}", f"--rdzv-conf={patience}", f"--local-addr={local}")
    return start([*before, *torchrun(*RUN, str(recipe), *FULL, processes=1, options=options)])


def lose(agent: subprocess.Popen[str]) -> None:
    for number in [*children(agent.pid), agent.pid]:
        os.kill(number, signal.SIGKILL)


@pytest.mark.slow
def test_of_two_machines_one_may_be_lost(tiny, wait_for):
    recipe = tiny("halved", duration="40 steps")
    folder = Recipe.load(recipe).folder
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    agents = [agent(recipe, "halved", "localhost", port, local="localhost", keeps=keeps) for keeps in (True, False)]
    wait_for(lambda: (folder / "checkpoints/step-000006").exists(), agents[0])
    lose(agents[1])
    output = finish(agents[0])
    agents[1].communicate()
    assert_same_course(train(Recipe.load(tiny("alone", duration="40 steps"), FULL)), folder)
    assert [record["processes"] for record in records(folder, "start")] == [2, 1], output


def ip(*words: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=check).returncode == 0


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them, which know nothing of each other but by it."""
    names = [f"ingot-{os.getpid()}-{number}" for number in range(2)]
    if os.geteuid() or not shutil.which("ip") or not ip("netns", "add", names[0], check=False):
        pytest.skip("network namespaces need root, iproute2 and a kernel that lets them be made")
    ends = [f"ig{os.getpid() % 10**6}{number}" for number in range(2)]
    try:
        ip("netns", "add", names[1])
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("-n", name, "link", "set", end, "name", "cable")
            ip("-n", name, "address", "add", f"10.99.0.{number + 1}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
            for setting in IMPATIENT:
                ip("netns", "exec", name, "sysctl", "-w", setting)
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_of_two_machines_on_a_network_one_may_be_lost(tiny, wait_for, machines, how):
    recipe = tiny("apart", duration="40 steps")
    folder = Recipe.load(recipe).folder
    agents = []
    for number, name in enumerate(machines):
        inside, address = ("ip", "netns", "exec", name, *INTERFACE), f"10.99.0.{number + 1}"
        agents.append(agent(recipe, "apart", "10.99.0.1", 29400, *inside, local=address, keeps=not number))
    wait_for(lambda: (folder / "checkpoints/step-000006").exists(), agents[0])
    if how == "killed":
        lose(agents[1])
    else:
        ip("-n", machines[1], "link", "set", "cable", "down")
    output = agents[0].communicate(timeout=400)[0]
    if how != "killed":
        lose(agents[1])  # which waits for a network that does not come back
    agents[1].communicate()
    assert agents[0].returncode == 0, output
    assert_same_course(train(Recipe.load(tiny("alone", duration="40 steps"), FULL)), folder)
    assert [record["processes"] for record in records(folder, "start")] == [2, 1], output
