"""kd's plugins for Hydra, which accepts them from this namespace package only."""
