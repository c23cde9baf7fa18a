"""The teacher: fine-tuned or loaded, asked live or from the cache, alone or in an ensemble."""
