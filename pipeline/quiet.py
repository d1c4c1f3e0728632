"""Starting Beam without noise."""

import logging


def import_beam_quietly() -> None:
    """Imports Beam without its warnings of what it can do without.

    Command lines call it once they are parsed, so that `--help` answers at
    once.
    """
    logging.basicConfig(level=logging.ERROR)
    import apache_beam  # noqa: F401
