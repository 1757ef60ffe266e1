"""Run a study through Snakemake, with progress, and safe to start again after any kill (`python -m rtt run`).

Snakemake decides what runs. This claims the working directory (`rtt.runtime.locks`), removes the lock of a killed
Snakemake, prints progress in a few lines and Snakemake's whole output into a file, shows the failing step's log after a
failure, and prints the recovery table at the end.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from rtt import places
from rtt.errors import UserError, printable
from rtt.files import clock
from rtt.runtime import locks
from rtt.runtime.progress import Progress
from rtt.study.names import DEFAULT_STUDY
from rtt.yaml_files import read_yaml

POLL = 0.2  # seconds between looks at Snakemake's output
SILENCE = 20.0  # seconds after which the running jobs are named again
ORPHANS = 60.0  # seconds to wait for steps that a killed run left behind
GRACE = 60.0  # seconds that steps have to save their state
TAIL = 20  # lines of a failing step's log to show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument("--configfile", metavar="FILE", help=f"the study file (default: {DEFAULT_STUDY})")
    parser.add_argument("--cores", type=_cores, default=2, metavar="N", help="processes at once (default: %(default)s)")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the study")
    parser.add_argument("--snakefile", metavar="FILE", help="another workflow (default: this project's)")
    parser.add_argument("--directory", metavar="DIR", help="working directory (default: this one, or the clone's)")
    parser.add_argument("rest", nargs="*", metavar="TARGET", help="targets and, after --, arguments for snakemake")


def _cores(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of cores (1 or more)")
    return int(text)


def study_name(path: Path, overrides: list[str]) -> str:
    """Return the `study:` of a study file, or of `--config study=NAME`.

    Raises UserError when the file cannot be read or names no study. The Snakefile checks everything else in it.
    """
    name = read_yaml(path, "study file", "study, seeds, ...").get("study")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--config {override}: expected KEY=VALUE")
        if key == "study":
            name = value
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,99}", name):
        raise UserError(
            f"{path}: study: found {name!r}, expected the name of a folder under results/: "
            "a lower-case letter, then lower-case letters, digits, _ or -, 100 in all"
        )
    return name


def _environment(directory: Path) -> dict[str, str]:
    """Return the variables for Snakemake and its steps: this interpreter and code first, one thread per process."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    paths = [str(places.code_folder(directory)), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def _say(line: str) -> None:
    # A terminal that was closed must not end a run.
    with suppress(OSError):
        print(printable(line), flush=True)


class Signals:
    """Keep SIGINT, SIGTERM and SIGHUP from ending anything while the block runs; `first` is the first that came, or
    None.
    """

    def __enter__(self):
        self.first, self._old = None, {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup keeps working
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.first = self.first or number

    def __exit__(self, *exception):
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _stop(child: subprocess.Popen, output: Path, offset: int) -> None:
    """End Snakemake and its steps by SIGINT and SIGTERM, and by SIGKILL the steps that do not save themselves in time.

    Snakemake alone would let running steps finish, which may take minutes. A second SIGINT makes it stumble, so it gets
    none if it has received the terminal's (Ctrl-C reaches the whole process group).
    """
    _say("stopping: finished steps are kept, and trainings save their state first")
    time.sleep(0.5)
    with suppress(psutil.NoSuchProcess):
        steps = psutil.Process(child.pid).children(recursive=True)
        if b"Terminating processes on user request" not in output.read_bytes()[offset:]:
            child.send_signal(signal.SIGINT)
            time.sleep(0.5)  # it must know before its steps fail
        for process in steps:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            steps += [child, *psutil.Process(child.pid).children(recursive=True)]
        psutil.wait_procs(steps, GRACE)
        for process in steps:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    child.wait()


def _follow(child: subprocess.Popen, output: Path, offset: int, progress: Progress, signals: Signals) -> int:
    """Read Snakemake's output until it ends; return its exit code, or 128 + the number of the signal received."""
    rest, spoke = b"", time.monotonic()
    with open(output, "rb") as stream:
        stream.seek(offset)
        while True:
            ended = child.poll() is not None  # before reading, so that no output is missed
            *lines, rest = (rest + stream.read()).split(b"\n")
            for line in lines:
                progress.feed(line.decode("utf-8", "replace"))
            if lines:
                spoke = time.monotonic()
            else:
                progress.flush()
            if ended:
                return 128 + signals.first if signals.first else child.returncode
            if signals.first:
                _stop(child, output, offset)
                continue
            if time.monotonic() - spoke > SILENCE:
                progress.still()
                spoke = time.monotonic()
            time.sleep(POLL)


def _unlock(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    """Remove the lock that a killed Snakemake left. Call it only while nothing is live."""
    folder = directory / ".snakemake" / "locks"
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    _say("removing the lock that a killed run left")
    done = subprocess.run(
        [*command, "--unlock"], cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(_explain(done.stdout + done.stderr))


def _explain(output: str) -> str:
    """Return what Snakemake said before it ran anything, without its greeting and without places in the Snakefile."""
    if "invalid choice: 'slurm'" in output:  # of --executor
        return places.missing("snakemake_executor_plugin_slurm") or output
    lines = [line for line in output.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if re.match(r"^\w*(Error|Exception)( in file .*)?:?$", line):
            message = [text for text in lines[number + 1 :] if not re.match(r'^\s+File ".*", line \d+', text)]
            return "\n".join(message or [line])
    return "\n".join(lines[-TAIL:])


def _report_failures(progress: Progress, directory: Path, output: Path, offset: int) -> None:
    """Show each failing step with the end of its log, or what Snakemake said if no step failed."""
    for rule, log in progress.failures:
        print(f"error: step {rule} failed", file=sys.stderr)
        path = directory / log if log else None
        if path and path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            tail = [f"  | {printable(line)}" for line in lines]
            print(f"the end of its log, {log}:", *tail, sep="\n", file=sys.stderr)
        elif log:
            print(f"it wrote no log ({log})", file=sys.stderr)
    if not progress.failures:
        text = output.read_bytes()[offset:].decode("utf-8", "replace")
        print(f"error: {printable(_explain(text))}", file=sys.stderr)
    print(f"Snakemake's whole output: {_shown(output)}", file=sys.stderr)


def _shown(path: Path) -> str:
    """Return a path as a user in the current folder would type it."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _summarise(results: Path, environment: dict[str, str]) -> int:
    """Print the recovery table if the targets asked for one, and where the report is."""
    code = 0
    if (results / "tables" / "recovery.csv").is_file():
        summary = [sys.executable, "-m", "rtt", "summary", "--results", _shown(results)]
        code = subprocess.run(summary, env=environment).returncode
    return code


def _directory(args: argparse.Namespace) -> Path:
    if args.directory:
        directory = Path(args.directory)
        if not directory.is_dir():
            raise UserError(f"--directory {directory}: no such folder")
        return directory.resolve()
    return Path.cwd() if args.snakefile else places.work_folder()


def run(args: argparse.Namespace) -> int:
    """Run a study. Return 0 when everything is done, 1 when a step failed, and 128 + n after signal n (130: Ctrl-C)."""
    try:
        return _run(args)
    except KeyboardInterrupt:
        _say("stopped before anything was started")
        return 130


def _run(args: argparse.Namespace) -> int:
    directory = _directory(args)
    own = places.is_clone(directory) or not places.INSTALLED
    snakefile = Path(args.snakefile or (directory / "Snakefile" if own else places.SNAKEFILE)).resolve()
    if not snakefile.is_file():
        raise UserError(
            f"{snakefile}: no such Snakefile; run this in the project's folder, or name one with --snakefile FILE"
        )
    default = directory / DEFAULT_STUDY
    if places.INSTALLED and not default.is_file():
        default = places.SHIPPED / DEFAULT_STUDY
    configfile = places.study_file(args.configfile or default).resolve()
    study = study_name(configfile, args.config)
    results = directory / "results" / study

    command = [sys.executable, "-m", "snakemake", "--cores", str(args.cores), "--snakefile", str(snakefile)]
    if args.configfile:
        # It appears in Snakemake's messages: as short as possible, and the same in every clone.
        inside = configfile.is_relative_to(directory)
        command += ["--configfile", str(configfile.relative_to(directory) if inside else configfile)]
    command += ["--rerun-incomplete", "--scheduler", "greedy", "--nocolor"]
    config = ["--config", *args.config] if args.config else []
    holder = shlex.join(["python", "-m", "rtt", "run", *(["--configfile", args.configfile] if args.configfile else [])])

    started = time.monotonic()
    with ExitStack() as stack:
        lock = stack.enter_context(locks.hold(directory / locks.FOLDER, holder, wait=ORPHANS, say=_say))
        environment = _environment(directory)
        _unlock([*command, *config], directory, environment)
        signals = stack.enter_context(Signals())
        _say(f"study {study}, {args.cores} processes at once; the time left is an estimate")
        output = results / "logs" / "run.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        progress = Progress(args.cores, _say)
        with open(output, "ab") as stream:
            offset = stream.tell()
            # A file instead of a pipe: if we are killed, Snakemake and its steps can still end properly.
            child = subprocess.Popen(
                [*command, *args.rest, *config],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        with suppress(psutil.NoSuchProcess):
            locks.register(lock.parent, "snakemake for " + holder, role="main", pid=child.pid)
        try:
            code = _follow(child, output, offset, progress, signals)
        finally:
            locks.release(lock.parent, child.pid)
        if code > 128:
            _say("stopped; the same command continues from here")
            return code
        if code:
            _report_failures(progress, directory, output, offset)
            return 1
    if progress.nothing_to_do:
        _say("nothing to do: everything is there and up to date")
    elif not progress.n_done:  # of a dry run, a list or a graph the user wants Snakemake's own output
        _say(output.read_bytes()[offset:].decode("utf-8", "replace").rstrip())
        return 0
    else:
        _say(f"done: {progress.n_done} steps in {clock(time.monotonic() - started)}")
    return _summarise(results, environment)
