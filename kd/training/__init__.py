"""One run of ``kd train``, from its configuration to a finished run directory."""
