"""Why the stack cannot run, said in one sentence."""


class StackError(Exception):
    """A reason that ends the stack; its text is the sentence that whoever started it reads."""

    exit_code = 1


class BadStart(StackError):
    """The stack was asked for something it cannot do here: a taken port, a folder in use, a bad value."""

    exit_code = 2
