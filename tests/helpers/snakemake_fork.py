"""Run the real Snakemake in a fork of a process that has imported it once, and nothing of this project.

Importing Snakemake takes two CPU seconds, the rest of a dry run one, and the tests make over a hundred dry runs.
"""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path


def call(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run `python -m snakemake ARGUMENTS` in `folder`, stdout and stderr together."""
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as said:
        request = {"arguments": arguments, "folder": str(folder), "environment": environment, "said": said.name}
        parent, turn = _parent()
        with turn:
            parent.stdin.write(json.dumps(request) + "\n")
            parent.stdin.flush()
            answer = parent.stdout.readline()
        return subprocess.CompletedProcess(["snakemake", *arguments], json.loads(answer), said.read())


@functools.cache
def _parent() -> tuple[subprocess.Popen, threading.Lock]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    return process, threading.Lock()


def _serve() -> None:
    """Answer each request, a line of JSON, with an exit code."""
    import snakemake.cli

    for line in sys.stdin:
        request = json.loads(line)
        if pid := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        else:
            with contextlib.suppress(BaseException):
                _be(snakemake.cli, **request)
            os._exit(1)


def _be(cli, arguments: list[str], folder: str, environment: dict[str, str], said: str) -> None:
    """Become the process that `python -m snakemake` would be; never returns."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), stream)
    sys.path.insert(0, folder)
    sys.argv = [cli.__file__, *arguments]
    code = 1
    try:
        code = cli.main(arguments) or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
