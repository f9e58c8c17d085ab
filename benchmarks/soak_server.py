"""Heimdall as ``heimdall.py`` runs it, with one signal more: SIGUSR1 has it count what only the process can count.

``python -m benchmarks.soak_server FILE FLAG…`` writes the counts to FILE. Walking through all objects takes
milliseconds, in which nothing is answered; that is why the server itself has no such figure.
"""

from gevent import monkey

monkey.patch_all()  # before anything else, as heimdall.py does

import gc
import json
import os
import signal
import sys
from pathlib import Path

import gevent
from greenlet import greenlet

from heimdall_lib.app import main


def count(path: Path) -> None:
    """Write how many greenlets are alive and how many objects the garbage collector knows, whole or not at all."""
    objects = gc.get_objects()
    living = sum(isinstance(each, greenlet) and not each.dead for each in objects)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"greenlets": living, "objects": len(objects)}))
    draft.replace(path)


if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR1, count, Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:], os.environ))
