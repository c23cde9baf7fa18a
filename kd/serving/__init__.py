"""Classify texts over HTTP: limits, batches, metrics and logs, the application, the server."""
