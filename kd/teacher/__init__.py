"""The teacher: fine-tuned or loaded, live or from the cache, alone or in an ensemble."""
