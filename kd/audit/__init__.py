"""Audits: differences between groups of people in the answers of a student, its teacher, and the student alone."""
