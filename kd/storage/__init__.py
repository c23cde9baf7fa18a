"""Files that several processes share: locks, checksums, pieces, downloads, model folders."""
