"""Steps that make a transfer set before the teacher labels it."""
