"""The dataset in a folder of ExampleGen."""

from pathlib import Path

from pipeline.orchestration.component import ComponentError
from transgan_tf.manifest import MANIFEST


def dataset_folder(examples: Path) -> Path:
    """Returns the dataset's folder, whose name is the dataset's.

    Raises:
        ComponentError: there is none, or several.
    """
    folders = [path.parent for path in examples.glob(f"*/{MANIFEST}")]
    if len(folders) != 1:
        raise ComponentError(
            f"{examples} must hold one dataset, it holds {len(folders)}: "
            "remove the folder, so that ExampleGen runs again"
        )
    return folders[0]
