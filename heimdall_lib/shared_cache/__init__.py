"""L2: the answers that all replicas share in Redis.

Plain blocking code over redis-py and ``threading``: cooperative in a monkey-patched process. Everything that redis-py
raises stays inside this package; to the rest of the house a fault is a miss.
"""
