"""Heimdall: a caching DNS server whose replicas share one cache."""

__version__ = "0.1.0"
