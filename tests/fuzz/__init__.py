"""A fuzzer for everything that reads what others have written: ``python -m tests.fuzz --help``.

A *target* tries one input of bytes and knows what a wrong answer is. Inputs come from the corpus, harmed by a mutator
that is deterministic by its seed. ``reference.py`` reads messages a second time, in a way of its own, so that a target
need not believe the code that it tries.
"""
