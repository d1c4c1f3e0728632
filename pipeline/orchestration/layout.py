"""Where things lie below a pipeline's root."""

import os
from pathlib import Path


class Layout:
    """The folders and files of a pipeline's root.

    What a component makes is in `<Component>/<output>/<execution>/`, what the
    runner keeps for itself in `.system/` and `metadata.sqlite`.

    Args:
        root: the pipeline's root; need not be there.
    """

    def __init__(self, root):
        self.root = Path(os.path.abspath(root))
        self.database = self.root / "metadata.sqlite"
        self.system = self.root / ".system"

    def output(self, component: str, output: str, execution: int) -> Path:
        return self.root / component / output / str(execution)

    def log(self, component: str, execution: int) -> Path:
        return self.system / "logs" / component / f"{execution}.log"

    def execution(self, execution: int) -> Path:
        """Returns where launcher and component tell each other."""
        return self.system / "executions" / str(execution)

    def lock(self, key: str) -> Path:
        return self.system / "locks" / f"{key}.lock"


def shown(path) -> str:
    """Returns a path for users: from here on, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
