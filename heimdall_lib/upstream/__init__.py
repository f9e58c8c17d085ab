"""Asking upstream resolvers: one exchange with one server, the choice among servers, and their health.

Plain blocking code over ``socket``, ``ssl`` and ``threading``: cooperative in a monkey-patched process.
"""
