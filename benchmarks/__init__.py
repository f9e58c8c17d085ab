"""The benchmark behind docs/performance.md: Heimdall beside Debian's DNS caches, on one machine, in one run.

``make bench`` runs everything, ``make bench SCENARIO=l1`` one scenario; ``python -m benchmarks --help`` says more.

Rules: loopback only; every figure comes from a measurement of this run; whatever is started is ended, also on Ctrl-C;
what could not be measured is named with its reason. The package stands alone: it does not import Heimdall, which is a
child process like its peers.
"""
