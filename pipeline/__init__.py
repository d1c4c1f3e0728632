"""Turns raw images into checked TFRecords with Beam; runs train-to-serve."""
