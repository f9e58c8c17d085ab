"""Start Heimdall, or speak to one that runs: ``python heimdall.py --help`` lists settings and commands."""

import sys

if __name__ == "__main__" and sys.argv[1:2] in (["flush"], ["entry"]):
    from heimdall_lib import command  # which needs nothing of the server, and starts ten times as fast

    sys.exit(command.main(sys.argv[1:]))

from gevent import monkey

monkey.patch_all()  # first of all: whatever is imported after this blocks its greenlet, never the process

import os

from heimdall_lib.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
