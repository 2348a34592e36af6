"""A sweep of two workers that is killed at random moments, and one on a scheduler that was started by hand."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sweep_plans import PLAN
from tests.test_sweeps import tables
from varlab.sweeps import sweep

LARGER = PLAN | {"prompts": [{"set": "scenes", "n": 12}], "shard": 1}
COMMAND = [sys.executable, "-c", "from varlab.cli import main; main()"]
KILLS = 10


def started(plan: dict[str, Any], folder: Path, *options: str, **named: Any) -> subprocess.Popen[bytes]:
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(plan))
    log = folder.with_suffix(".log").open("ab")
    return subprocess.Popen(
        [*COMMAND, "sweep", str(file), "--out", str(folder), *options], stdout=log, stderr=log, **named
    )


def victims(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The client, which is the scheduler too, and its workers."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [
            psutil.Process(process.pid),
            *(child for child in children if "tracker" not in " ".join(child.cmdline())),
        ]
    except psutil.Error:
        return []


def shards(folder: Path) -> int:
    return len(list((folder / "shards").glob("[0-9a-f]*.csv")))


@pytest.mark.slow()
def test_ten_kills_at_random_moments_change_no_byte(tmp_path: Path) -> None:
    sweep(LARGER, tmp_path / "whole")
    chance, folder = random.Random(time.time_ns()), tmp_path / "killed"
    killed: list[str] = []
    process = started(LARGER, folder, "--workers", "2")
    while len(killed) < KILLS:
        before, patience = shards(folder), time.monotonic() + chance.uniform(5, 60)
        while process.poll() is None and shards(folder) == before and time.monotonic() < patience:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        if process.poll() is None and (alive := victims(process)):
            victim = chance.choice(alive)
            killed.append("client" if victim.pid == process.pid else "worker")
            victim.send_signal(signal.SIGKILL)
            if victim.pid != process.pid:
                continue
        process.wait(60)
        if len(killed) < KILLS and shards(folder) == 48:  # all of it was done before the kills were
            for path in chance.sample(sorted((folder / "shards").iterdir()), 24):
                path.unlink()
        process = started(LARGER, folder, "--workers", "2")
    if process.wait(900) != 0:
        assert started(LARGER, folder, "--workers", "2").wait(900) == 0, folder.with_suffix(".log").read_text()[-2000:]
    assert tables(folder) == tables(tmp_path / "whole"), killed
    assert "Traceback" not in folder.with_suffix(".log").read_text()


@pytest.mark.slow()
def test_an_interrupt_from_the_keyboard_is_said_in_a_line(tmp_path: Path) -> None:
    """It reaches the workers too, which belong to the same group."""
    process = started(LARGER, tmp_path / "s", "--workers", "2", start_new_session=True)
    while process.poll() is None and not shards(tmp_path / "s"):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130
    said = (tmp_path / "s.log").read_text()
    assert "stopped; the same command goes on from here" in said and "Traceback" not in said


@pytest.mark.slow()
def test_a_scheduler_that_was_started_by_hand_and_one_that_vanishes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    sweep(PLAN, whole)
    dask = str(Path(sys.executable).with_name("dask"))
    file = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    )
    worker = subprocess.Popen([dask, "worker", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(file)])
    try:
        while not file.exists():
            time.sleep(0.2)
        address = json.loads(file.read_text())["address"]
        assert started(PLAN, tmp_path / "s", "--cluster", address).wait(600) == 0
        assert tables(tmp_path / "s") == tables(whole)
        process = started(LARGER, tmp_path / "t", "--cluster", address)
        while shards(tmp_path / "t") < 2:
            time.sleep(0.1)
        scheduler.kill()
        assert process.wait(300) == 2
        said = (tmp_path / "t.log").read_text()
        assert "The cluster is gone" in said and "Traceback" not in said
    finally:
        for one in (scheduler, worker):
            one.kill()
            one.wait()
    assert os.path.exists(tmp_path / "t" / "sweep.json")
