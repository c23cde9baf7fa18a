"""Files that several processes share: locks, checksums, downloads, model folders, and work that is done in pieces."""
