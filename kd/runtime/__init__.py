"""The processes of a command: ranks, devices, forks, signals, and what they print."""
