"""Bytes to and from sockets: the UDP and TCP listeners, on gevent's servers."""
