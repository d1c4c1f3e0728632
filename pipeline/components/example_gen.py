"""ExampleGen: makes TFRecords of images, by the job of `preprocess`."""

from pathlib import Path

from pipeline.extras import told_if_missing
from pipeline.quiet import import_beam_quietly
from transgan_tf.manifest import DatasetSettings
from transgan_tf.manifest import load_manifest


@told_if_missing()
def run(
    examples: Path,
    dataset: str,
    settings: dict,
    source: dict,
    source_state: str,
    max_bad_fraction: float,
    beam_flags: list[str],
) -> dict:
    """Makes the folder `dataset` in `examples`.

    Args:
        examples: folder of the output.
        dataset: name of the dataset.
        settings: fields of `DatasetSettings`.
        source: keywords of `pipeline.sources.find_source`.
        source_state: tells these images from others; it is only there for the
            job to be done again when they change.
        max_bad_fraction: share of bad images above which it fails.
        beam_flags: words for Beam's `PipelineOptions`.

    Raises:
        UserError: says why there is no dataset.
    """
    import_beam_quietly()
    from pipeline.job import make_dataset
    from pipeline.options import beam_options

    made = DatasetSettings(**settings)
    options = beam_options(beam_flags, DatasetSettings)
    make_dataset(
        dataset, made, source, str(examples), max_bad_fraction, options
    )
    manifest = load_manifest(examples / dataset)
    properties = {"dataset": dataset, "images": manifest.count("train")}
    if validation := manifest.count("validation"):
        properties["validation_images"] = validation
    return {"examples": properties}
