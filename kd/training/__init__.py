"""One run of ``kd train``, from a checked configuration to a finished run directory."""
