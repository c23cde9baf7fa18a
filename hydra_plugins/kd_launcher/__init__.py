"""kd's plugins for Hydra, which looks for plugins only in the namespace package ``hydra_plugins``."""
