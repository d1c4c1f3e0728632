"""What a run's time goes into: steps, waiting for data, and all the rest."""

import collections
import time

import tensorflow as tf

# A device that waits for data for more than this share of its time is starved.
STARVED = 0.25


class Arrivals(collections.deque):
    """When batches left the data pipeline, one time each, oldest first."""

    def note(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the same batches; each notes when the consumer gets it.

        It must come behind the pipeline's prefetching.
        """

        def passing(batch):
            now = tf.numpy_function(self._append, (), tf.float64)
            with tf.control_dependencies([now]):
                return tf.identity(batch)

        # Else tf.data may add a prefetching of its own behind this.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return dataset.map(passing).with_options(options)

    def _append(self):
        self.append(time.monotonic())
        return self[-1]


class StepClock:
    """Measures the steps between two lines of the curves.

    Time between steps, of callbacks, does not count, and neither does the
    first step, which compiles.

    Args:
        arrivals: of the steps' batches, in order.
    """

    def __init__(self, arrivals: Arrivals):
        self.arrivals = arrivals
        self.compiled = False
        self._reset()

    def _reset(self):
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0

    def begin(self) -> None:
        """Notes that a step asks for its batch."""
        self.begun = time.monotonic()

    def end(self) -> None:
        """Notes that a step has ended."""
        arrival = self.arrivals.popleft() if self.arrivals else self.begun
        if self.compiled:
            self.steps += 1
            self.seconds += time.monotonic() - self.begun
            # A batch that came before the step asked was ready.
            self.waited += max(arrival - self.begun, 0.0)
        self.compiled = True

    def take(self, images_per_step: int) -> dict[str, float]:
        """Returns what was measured since the last time, and starts anew.

        `images_per_second`; `seconds_step` and `seconds_data`, means of a step
        and of its waiting for data; `data_wait_share`, the second over the
        first, in [0, 1]. Nothing, if no step was measured.
        """
        steps, seconds, waited = self.steps, self.seconds, self.waited
        self._reset()
        if not steps:
            return {}
        return {
            "images_per_second": steps * images_per_step / seconds,
            "seconds_step": seconds / steps,
            "seconds_data": waited / steps,
            "data_wait_share": min(waited / seconds, 1.0),
        }
