"""From raw texts to batches."""
