"""The exception for errors that the user can correct; the command line prints it and exits with code 2."""


class InputError(Exception):
    """An unusable input; the message says what is wrong, where, and how to correct it."""
