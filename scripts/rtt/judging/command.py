"""`python -m rtt verdict`: from two checkpoints and a folder of questions to one page and one JSON.

It writes a study, runs it as `python -m rtt run` does, and says what came out: are the facts hidden, was nothing found,
or can it not be told? docs/verdict.md explains the answers.
"""

import argparse
import shlex
from pathlib import Path

from rtt.errors import printable
from rtt.judging import request
from rtt.judging.request import Request
from rtt.runtime import runner


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `verdict`."""
    model = "folder, or org/name@COMMIT on the hub"
    parser.add_argument("--unlearned", required=True, metavar="PATH", help=f"the model after unlearning: {model}")
    parser.add_argument("--original", required=True, metavar="PATH", help=f"the model before unlearning: {model}")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="questions about the facts that were unlearned")
    parser.add_argument("--control-data", metavar="FOLDER", help="as many about facts that the original never saw")
    parser.add_argument("--retain-data", metavar="FOLDER", help="questions about facts that had to stay")
    parser.add_argument(
        "--attacks", nargs="+", metavar="NAME", help="attacks to try (default: RTT, and all that train nothing)"
    )
    parser.add_argument(
        "--headline", nargs="+", metavar="PROBE",
        help="one or two probes by which it is judged what the original knows (default: by the model's size)",
    )  # fmt: skip
    parser.add_argument("--budget", metavar="TIME", help="such as 30min: leave out what does not fit, and say so")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where page and JSON go (default: verdict/<model>)")
    parser.add_argument("--cores", type=runner.cores, default=2, metavar="N", help="as of `run` (default: %(default)s)")
    parser.add_argument(
        "--write-study", action="store_true", help="check everything, write the study file, and run nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Give the verdict. Return 0 whatever the answer is, 1 where a step failed, 128 + n after signal n."""
    asked = Request(
        args.unlearned, args.original, args.data, args.control_data, args.retain_data,
        tuple(args.attacks) if args.attacks else None, tuple(args.headline) if args.headline else None, args.budget,
    )  # fmt: skip
    prepared = request.prepare(asked, args.out, args.cores)
    print(printable("\n".join(request.lines(prepared))), flush=True)
    study = str(prepared.study_file)
    if args.write_study:
        print(printable(f"run it: python -m rtt run --configfile {shlex.quote(study)}; then this command again"))
        return 0
    if code := runner.run(runner.request(study, args.cores)):
        return code
    from rtt.judging import page

    for line in page.write(prepared):
        print(printable(line))
    return 0
