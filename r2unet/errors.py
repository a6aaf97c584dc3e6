"""The one exception for what a person can mend: the command line prints it and exits with code 2."""


class InputError(Exception):
    """Something a person gave cannot be used; the message says what, where, and how to mend it."""
