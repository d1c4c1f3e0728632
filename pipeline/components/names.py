"""Names that components leave for each other. Imports nothing.

Apart, so that who reads what a training left does not depend on its code.
"""

# As TFX's Trainer calls it: the SavedModel, ready to be served.
SERVING = "Format-Serving"
# Of Evaluator.
METRICS, SAMPLES = "metrics.json", "samples.png"
