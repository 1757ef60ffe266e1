"""`python -m rtt COMMAND`: every step of the pipeline as a command.

A command's module has `configure(parser)` and `run(args) -> exit code`. It is imported only when it is called, so that
`audit` and `figure` need not wait for torch.
"""

import argparse
import contextlib
import importlib
import os
import shlex
import signal
import sys

from rtt import __version__, device, places
from rtt.commands import COMMANDS
from rtt.errors import STOPPED, Stopped, UserError, printable
from rtt.files import machine_error
from rtt.runtime import locks, offline


class Parser(argparse.ArgumentParser):
    """A parser whose messages cannot steer a terminal: they quote what somebody gave, such as the name of a file."""

    def exit(self, status=0, message=None):
        """Print a message, and end."""
        super().exit(status, message and printable(message))


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 user's mistake, 2 wrong usage, 141 nobody reads the
    output any more, 143 stopped by SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else argv
    prog = "rtt" if os.path.basename(sys.argv[0]) == "rtt" else "python -m rtt"
    parser = Parser(prog=prog, description="Attacks on unlearned models, step by step.")
    parser.add_argument("--version", action="version", version=f"unlearning-rtt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    try:
        device.hide()
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    called = next((word for word in argv if not word.startswith("-")), None)
    offline.shut(called)
    module = None
    for name, (module_name, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == called:
            try:
                module = importlib.import_module(module_name)
            except UserError as error:  # a plug-in's file that cannot be taken
                parser.exit(1, f"error: {error}\n")
            except ModuleNotFoundError as error:
                if (error.name or "rtt").split(".")[0] == "rtt":
                    raise
                todo = places.to_install(error.name)
                parser.exit(1, f"error: {called} needs {error.name}, which {sys.prefix} lacks: {todo}\n")
            module.configure(command)
    args = parser.parse_args(argv)
    # The shell around a step ignores SIGTERM to outlive it (rules/common.smk). The step itself must not: it saves.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Of a job's processes only the first writes. torchrun says on how many nodes they are.
    spec = str(getattr(args, "spec", None) or "")
    first, nodes = os.environ.get("RANK", "0") == "0", int(os.environ.get("GROUP_WORLD_SIZE", 1))
    runs = {"writes": spec} if first else {"helps": spec} if nodes > 1 else {}
    try:
        # Steps register, so that a rerun after a kill sees who still writes. `run` and `verdict` claim the main lock,
        # and `status` writes nothing.
        alone = called in ("run", "verdict", "status")
        with contextlib.nullcontext() if alone else locks.step(shlex.join(argv), **runs):
            code = module.run(args) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # as in `rtt audit DIR | head`; Python itself would flush once more, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError, UserError) as found:
        if (error := found if isinstance(found, UserError) else machine_error(found)) is None:
            raise
        spec = getattr(args, "spec", None)
        text = f"error: {error}" + (f"\nspec: {spec}" if spec and spec not in str(error) else "")
        print(printable(text), file=sys.stderr)
        return 1
    except Stopped:
        print(STOPPED, file=sys.stderr)
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())
