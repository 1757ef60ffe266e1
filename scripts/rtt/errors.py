"""The exceptions with which a step ends on purpose, and texts made fit for a terminal."""

import re

# Control characters but newline and tab, marks that turn the direction of writing, and halves of surrogate pairs.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Characters that no text of ours may hold: they steer a terminal, or cannot be written. Newline and tab may.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class UserError(Exception):
    """A mistake in the user's input.

    The text says where it is (file, line, key), what was found, what was expected and what to do. The command line
    prints it as one message, without a traceback, and exits with 1.
    """


class Stopped(Exception):
    """SIGTERM arrived, and the state from which the step resumes is on disk."""


STOPPED = "stopped; the same command continues from here"  # the last line that such a step prints


def printable(text: object) -> str:
    r"""Return `text` with every character that would steer a terminal written as its escape, such as `\x1b`.

    Names of files, keys and tensors come from others. Whatever prints them, errors first of all, sends them through
    here.
    """
    return STEERING.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def one_line(error: Exception) -> str:
    """Return what a library's error says, in one line of about 200 letters, with its kind where it says little."""
    text = " ".join(str(error).split())
    text = text if " " in text else f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 200 else f"{text[:200]}..."


def brief(value: object, most: int = 120) -> str:
    """Return `repr(value)`, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"
