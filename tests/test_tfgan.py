"""The import door to TF-GAN; fails loudly if TF-GAN changes."""

import importlib.metadata
import inspect
import subprocess
import sys

import pytest

from transgan_tf.metrics.tfgan import import_tfgan

FUNCTIONS = {
    "losses.losses_impl": {
        "wasserstein_discriminator_loss": (
            "discriminator_real_outputs",
            "discriminator_gen_outputs",
        ),
        "wasserstein_generator_loss": ("discriminator_gen_outputs",),
        "wasserstein_hinge_discriminator_loss": (
            "discriminator_real_outputs",
            "discriminator_gen_outputs",
        ),
        "modified_discriminator_loss": (
            "discriminator_real_outputs",
            "discriminator_gen_outputs",
            "label_smoothing",
        ),
        "modified_generator_loss": ("discriminator_gen_outputs",),
    },
    "eval.classifier_metrics": {
        "frechet_classifier_distance_from_activations": (),
        "kernel_classifier_distance_from_activations": (),
        "classifier_score_from_logits": (),
    },
}


def test_the_tested_version_is_installed():
    assert importlib.metadata.version("tensorflow-gan") == "2.1.0"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_functions_that_we_use_are_there(name):
    module = import_tfgan(name)
    assert module.__name__ == f"tensorflow_gan.python.{name}"
    for function, arguments in FUNCTIONS[name].items():
        given = inspect.signature(getattr(module, function)).parameters
        assert set(arguments) <= set(given), function


def test_a_missing_module_is_an_import_error():
    with pytest.raises(ImportError):
        import_tfgan("losses.nothing_such")


def test_without_tfgan_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorflow-gan"):
        import_tfgan("losses.losses_impl")


def test_the_plain_import_still_fails():
    # The day that it works, the door can go.
    code = "import tensorflow_gan"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.returncode != 0, "import tensorflow_gan works again"
