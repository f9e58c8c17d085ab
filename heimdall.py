"""Start Heimdall: ``python heimdall.py --help`` lists the settings."""

from gevent import monkey

monkey.patch_all()  # first of all: whatever is imported after this blocks its greenlet, never the process

import os
import sys

from heimdall_lib.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
