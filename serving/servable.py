"""One exported version, executed as TensorFlow Serving executes it.

TensorFlow Serving loads a SavedModel by the C++ loader and runs its graph in a
session. So does this: a SavedModel that loads in Python alone fails here, and
what a request has wrong is told in TensorFlow's own words.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session

# What TensorFlow Serving adds for its own use.
INIT_OP = "__saved_model_init_op"


class Servable:
    """A SavedModel in a session of its own.

    Args:
        path: folder of the version, with `saved_model.pb`.

    Attributes:
        signatures: `SignatureDef` by key, of those that can be called.
        all_signatures: the same with the initialisation that is listed too.

    Raises:
        Exception: whatever TensorFlow raises of a folder that it cannot load.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=self.graph)
        try:
            with self.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(
                    self.session, [tf.saved_model.SERVING], str(self.path)
                )
        except BaseException:
            self.session.close()
            raise
        self.all_signatures = dict(meta_graph.signature_def)
        self.signatures = {
            key: signature
            for key, signature in self.all_signatures.items()
            if key != INIT_OP
        }

    def run(
        self,
        signature: meta_graph_pb2.SignatureDef,
        inputs: dict[str, np.ndarray],
        outputs=None,
        timeout_ms: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
            signature: one of `signatures`.
            inputs: arrays by alias, all of the signature's; neither their
                shapes nor their types are checked or changed before TensorFlow
                does.
            outputs: aliases to compute; all by default.
            timeout_ms: after which TensorFlow gives up.

        Returns:
            Arrays by alias, of bytes objects for strings.

        Raises:
            tf.errors.OpError: as TensorFlow words it.
        """
        names = list(signature.outputs) if outputs is None else list(outputs)
        feeds = {
            self._output(signature.inputs[alias]): value
            for alias, value in inputs.items()
        }
        fetches = [self._output(signature.outputs[name]) for name in names]
        options = config_pb2.RunOptions(timeout_in_ms=timeout_ms or 0)
        # `Session.run` would convert what is fed.
        values = self._raw_run(options, feeds, fetches)
        return dict(zip(names, values, strict=True))

    def _output(self, info):
        try:
            return self.graph.get_tensor_by_name(info.name)._as_tf_output()
        except (KeyError, ValueError) as error:
            # The initialisation is a signature of an operation without output.
            raise tf.errors.InvalidArgumentError(
                None, None, str(error)
            ) from None

    def _raw_run(self, options, feeds, fetches):
        serialized = pywrap_tf_session.TF_NewBufferFromString(
            options.SerializeToString()
        )
        try:
            return pywrap_tf_session.TF_SessionRun_wrapper(
                self.session._session, serialized, feeds, fetches, [], None
            )
        finally:
            pywrap_tf_session.TF_DeleteBuffer(serialized)

    def close(self) -> None:
        """Frees the session, after the calls at hand."""
        self.session.close()
