"""How large a grid Snakemake takes: seconds of the plan, of the dry run and of what each job parses again; jobs, files,
inodes.

    python benchmarks/grid.py                          # the paper's grid, and one with ten seeds instead of one
    python benchmarks/grid.py --results results/smoke  # also counts a finished study's files per job

Prints a Markdown table. CPU seconds hold on a busy machine too.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
GRIDS = {"the study's": {}, "10 seeds": {"seeds": list(range(10))}}


def timed(*arguments: str) -> tuple[float, float, float, str]:
    """Run a module; return wall and CPU seconds, the largest peak in MB so far, and what it said."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, after.ru_maxrss / 1e3, done.stdout


def jobs(said: str) -> Counter:
    """Return {rule: jobs} of a dry run."""
    table = re.search(r"^job +count\n-.*\n((?:\w+ +\d+\n)+)", said, re.MULTILINE)
    return Counter({rule: int(n) for rule, n in (line.split() for line in table[1].splitlines())})


def measure(study: str) -> None:
    """Print a row per grid: plan, dry run, and parsing, which every job does twice."""
    print("| grid | jobs | of them on the cluster | plan: CPU s | dry run: s | CPU s | MB | a job's parsing: CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    cluster = ("original", "pretrain", "teach", "unlearn", "attack")
    for name, changed in GRIDS.items():
        with tempfile.TemporaryDirectory() as folder:
            grid = Path(folder, Path(study).name)
            grid.write_text(yaml.safe_dump(yaml.safe_load(Path(study).read_text()) | changed))
            wall, cpu, memory, said = timed("snakemake", "-n", "--scheduler", "greedy", "--configfile", str(grid))
            parsing = timed("snakemake", "--list-rules", "--configfile", str(grid))[1]
            planning = timed("rtt", "plan", str(grid))[1]
        found = jobs(said)
        remote = sum(found[rule] for rule in cluster)
        counts = f"{found['total']} | {remote} | {planning:.1f}"
        print(f"| {name} | {counts} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | {parsing:.1f} |", flush=True)


def count(results: Path) -> None:
    """Print how many inodes a finished study has, per job: its results, and what Snakemake remembers of them."""
    specs = Counter(path.stem.split("-")[0] for path in (results / "specs").glob("*.json"))
    runs = sum(1 for _ in (results / "manifests").glob("*.json"))
    print(f"\n{results}: {runs} training or attacking jobs; specs: {dict(specs)}\n")
    print("| folder | files | inodes with folders |")
    print("|---|---|---|")
    remembered = results.parents[1] / ".snakemake"
    for folder in (*sorted(path for path in results.iterdir() if path.is_dir()), remembered / "metadata"):
        paths = list(folder.rglob("*"))
        files = sum(path.is_file() for path in paths)
        print(f"| {folder.name} | {files} | {len(paths) + 1} |")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", default="config/paper.yaml")
    parser.add_argument("--results", type=Path, help="a finished study's folder")
    args = parser.parse_args()
    measure(args.study)
    if args.results:
        count(args.results)


if __name__ == "__main__":
    main()
