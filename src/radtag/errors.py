"""The errors a user can cause, each naming the offending value and the next step."""


class RadtagError(Exception):
    """Base of every error that is the input's fault; the command line prints it without a traceback."""


class UnreadableImage(RadtagError):
    """A file that cannot become an :class:`radtag.images.Image`.

    Args:
        source: the file.
        cause: what is wrong with it, with the offending value.
        next_step: what its owner can do about it.
    """

    def __init__(self, source: object, cause: str, next_step: str) -> None:
        super().__init__(f"{source}: {cause}. {next_step}")
        self.source = str(source)
        self.cause = cause
        self.next_step = next_step

    def __reduce__(self):
        return type(self), (self.source, self.cause, self.next_step)


class BadData(RadtagError):
    """A table, box list or folder that contradicts its own layout."""


class BadRun(RadtagError):
    """A run folder that is incomplete, or was made by settings that do not fit what is asked of it."""


class BadSetting(RadtagError):
    """A setting outside its range, or two that exclude each other."""
