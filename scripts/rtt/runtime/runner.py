"""Run a study through Snakemake, with progress, and safe to start again after any kill (`python -m rtt run`).

Snakemake decides what runs. This claims the working directory (`rtt.runtime.locks`), removes the lock of a killed
Snakemake, prints progress in a few lines and Snakemake's whole output into a file, shows the failing step's log after a
failure, and prints the recovery table at the end. With the target `bundle`, or with `--config artifacts=BUNDLE`, it
says what was packed, or drawn again, instead (`rtt.runtime.endings`).
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
from rtt.fetch.download import is_url
from rtt.files import clock
from rtt.runtime import endings, locks
from rtt.runtime.progress import DRAWING, Progress
from rtt.study.names import DEFAULT_STUDY
from rtt.yaml_files import read_yaml

POLL = 0.2  # seconds between looks at Snakemake's output
SILENCE = 20.0  # seconds after which the running jobs are named again
ORPHANS = 60.0  # seconds to wait for steps that a killed run left behind
GRACE = 60.0  # seconds that steps have to save their state
REBUILT = Path("dist/rebuilt")  # below the working directory: what is drawn from bundles


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument("--configfile", metavar="FILE", help=f"the study file (default: {DEFAULT_STUDY})")
    parser.add_argument("--cores", type=cores, default=2, metavar="N", help="processes at once (default: %(default)s)")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the study")
    parser.add_argument("--snakefile", metavar="FILE", help="another workflow (default: this project's)")
    parser.add_argument("--directory", metavar="DIR", help="working directory (default: this one, or the clone's)")
    parser.add_argument("rest", nargs="*", metavar="TARGET", help="targets and, after --, arguments for snakemake")


def cores(text: str) -> int:
    """Return the number of processes at once that an option asks for."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of cores (1 or more)")
    return int(text)


def request(study: str, at_once: int) -> argparse.Namespace:
    """Return the arguments of a `run` of one study file with nothing overridden."""
    return argparse.Namespace(configfile=study, cores=at_once, config=[], snakefile=None, directory=None, rest=[])


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
    rest = b""
    with open(output, "rb") as stream:
        stream.seek(offset)
        while True:
            ended = child.poll() is not None  # before reading, so that no output is missed
            *lines, rest = (rest + stream.read()).split(b"\n")
            for line in lines:
                progress.feed(line.decode("utf-8", "replace"))
            if not lines:
                progress.flush()
            if ended:
                return 128 + signals.first if signals.first else child.returncode
            if signals.first:
                _stop(child, output, offset)
                continue
            if time.monotonic() - progress.spoke > SILENCE:
                progress.still()
            time.sleep(POLL)


def _unlock(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    """Remove the lock that a killed Snakemake left, unless it may be that of a study or drawing that is at work."""
    folder = directory / ".snakemake" / "locks"
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if any(locks.others(directory / one) for one in (locks.FOLDER, locks.DRAWING)):
        return
    _say("removing the lock that a killed run left")
    done = subprocess.run(
        [*command, "--unlock"], cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(endings.explain(done.stdout + done.stderr))


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
    artifacts, overrides, targets = _artifacts(args, directory)
    if artifacts:
        results, output = None, directory / REBUILT / "run.log"
        about = f"{artifacts}: tables, figures and report are drawn again from its scores, which takes up to a minute"
    else:
        study = study_name(configfile, args.config)
        results = directory / "results" / study
        output = results / "logs" / "run.log"
        about = f"study {study}, {args.cores} processes at once; the time left is an estimate"
    brief = bool(artifacts) or "bundle" in targets

    command = [sys.executable, "-m", "snakemake", "--cores", str(args.cores), "--snakefile", str(snakefile)]
    if args.configfile and not artifacts:  # a bundle has its study in it
        # It appears in Snakemake's messages: as short as possible, and the same in every clone.
        inside = configfile.is_relative_to(directory)
        command += ["--configfile", str(configfile.relative_to(directory) if inside else configfile)]
    command += ["--rerun-incomplete", "--scheduler", "greedy", "--nocolor"]
    config = ["--config", *overrides] if overrides else []
    holder = shlex.join(["python", "-m", "rtt", "run", *(["--configfile", args.configfile] if args.configfile else [])])

    started = time.monotonic()
    with ExitStack() as stack:
        folder = directory / (locks.DRAWING if artifacts else locks.FOLDER)
        lock = stack.enter_context(locks.hold(folder, holder, wait=ORPHANS, say=_say))
        environment = _environment(directory)
        _unlock([*command, *config], directory, environment)
        signals = stack.enter_context(Signals())
        _say(about)
        output.parent.mkdir(parents=True, exist_ok=True)
        progress = Progress(args.cores, _say, quiet=DRAWING if brief else frozenset())
        with open(output, "ab") as stream:
            offset = stream.tell()
            # A file instead of a pipe: if we are killed, Snakemake and its steps can still end properly.
            child = subprocess.Popen(
                [*command, *targets, *config],
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
            endings.report_failures(progress, directory, output, offset)
            return 1
    if not progress.n_done and not progress.nothing_to_do:
        # Of a dry run, a list or a graph the user wants Snakemake's own output.
        _say(output.read_bytes()[offset:].decode("utf-8", "replace").rstrip())
        return 0
    if brief:
        for line in endings.conclusion(progress, directory):
            _say(line)
    if progress.nothing_to_do:
        _say("nothing to do: everything is there and up to date")
    else:
        steps = f"{progress.n_done} step{'s' * (progress.n_done != 1)}"
        _say(f"done: {steps} in {clock(time.monotonic() - started)}; Snakemake's whole output: {endings.shown(output)}")
    return 0 if brief or results is None else endings.summarise(results, environment)


def _artifacts(args: argparse.Namespace, directory: Path) -> tuple[str, list[str], list[str]]:
    """Return the bundle to draw again ("" for a study), the overrides, and the targets and arguments for Snakemake.

    Snakemake works in `directory`, so a path from elsewhere becomes absolute. Without targets, all is drawn and
    compared.
    """
    given = [one.partition("=")[2] for one in args.config if one.startswith("artifacts=")]
    if not given or not given[-1]:
        return "", args.config, args.rest
    artifacts = given[-1]
    if not is_url(artifacts) and directory != Path.cwd():
        artifacts = str(Path(artifacts).resolve())
    others = [one for one in args.config if not one.startswith("artifacts=")]
    return artifacts, [*others, f"artifacts={artifacts}"], args.rest or ["figures"]
