"""A save that dies, wherever it dies, and a disk that is full: the previous checkpoint stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Forks one child for each file-system call that a save makes, and lets the child die right before that call.
CRASHES = """
import os, sys
from pathlib import Path
from ftrainer.engine import checkpoint
from tests.saved_states import save, small_state

CALLS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link"}


def dies_before_call(number, directory, names):
    left = [number]

    def hook(event, args):
        if event in CALLS and str(directory) in str(args[0]):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

    sys.addaudithook(hook)
    for name in names:
        save(directory, name, step=2)
    checkpoint.prune(directory, ["other"])
    os._exit(0)


def crash(number, directory, names):
    save(directory, "other", step=1)
    save(directory, "last", step=1)
    pid = os.fork()
    if pid == 0:
        dies_before_call(number, directory, names)
    died = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    path, skipped = checkpoint.latest(directory)
    assert path is not None and not skipped, (number, path, skipped)
    assert checkpoint.read(directory / "last", small_state())[1]["step"] in (1, 2), number
    save(directory, "last", step=3)
    save(directory, "other", step=3)
    assert sorted(p.name for p in directory.iterdir()) == ["last", "other"], (number, list(directory.iterdir()))
    return died


root, number = Path(sys.argv[1]), 0
while crash(number, root / str(number), ["last"]):
    number += 1
print(number)
"""

# The kernel refuses to let any file grow beyond the limit, as a full disk would.
FULL_DISK = """
import resource, sys
from pathlib import Path
from ftrainer.engine import checkpoint
from ftrainer.engine.writer import BackgroundWriter
from ftrainer.functional.events import Save
from tests.saved_states import save, small_state

root = Path(sys.argv[1])
save(root, "last", step=1)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
asked = [Save(directory=str(root), name="step-2"), Save(directory=str(root), name="last", drop=("last",))]
for limit in (0, 100, 1000, 2000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    with BackgroundWriter() as writer:
        writer.save(asked, small_state(2, width=1000), {})
        for written in writer.flush():
            assert written.path is None and "File too large" in written.failure, written
        assert [p.name for p in root.iterdir()] == ["last"]
        assert checkpoint.latest(root) == (root / "last", ())
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        writer.save([Save(directory=str(root), name="last")], small_state(1), {})
        assert writer.flush()[0].path == root / "last"
print("stands")
"""


def run_script(script: str, directory: Path) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_save_that_dies_before_any_of_its_calls_loses_nothing(tmp_path: Path) -> None:
    assert int(run_script(CRASHES, tmp_path)) >= 12


def test_a_full_disk_is_told_and_the_previous_checkpoint_stands(tmp_path: Path) -> None:
    assert run_script(FULL_DISK, tmp_path) == "stands"
