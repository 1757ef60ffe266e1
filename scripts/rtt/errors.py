"""The exceptions with which a step ends on purpose."""


class UserError(Exception):
    """A mistake in the user's input.

    The text says where it is (file, line, key), what was found, what was expected and what to do. The command line
    prints it as one message, without a traceback, and exits with 1.
    """


class Stopped(Exception):
    """SIGTERM arrived, and the state from which the step resumes is on disk."""
