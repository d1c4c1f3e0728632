"""The components between raw images and a served model."""
