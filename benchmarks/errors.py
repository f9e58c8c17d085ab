"""What can go wrong in a benchmark, said in one line."""


class BenchmarkError(Exception):
    """The run, or one scenario of it, cannot go on; the message says why."""


class NotSupportedError(BenchmarkError):
    """The machine or the version lacks what the scenario measures; the message says what."""
