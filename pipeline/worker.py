"""A process of the local engine: `python -m pipeline.worker`.

Beam's own command for it writes to the terminal, in the midst of the progress,
all that it does.
"""

import logging
import os
import signal
import sys


def main() -> None:
    # With no handler there, Beam's first warning would bring one for stderr.
    # What a worker has to tell goes to the launcher all the same.
    logging.getLogger().addHandler(logging.NullHandler())
    # The launcher hears it, too, and ends its workers.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
