"""The terms of the objective: the label loss, and what is transferred from teacher to student."""
