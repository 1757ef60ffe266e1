"""The one exception that a user sees without a traceback."""


class UserError(Exception):
    """A mistake in the user's input.

    The text says where (file, line, key), what was found, what was expected and what to do.
    The command line prints it as one message and exits with 1.
    """


class Stopped(Exception):
    """SIGTERM came, and what there is to go on from is on disk."""
