"""Measure a classifier on several data sets, in parts of them, on changed texts and with suites of tests."""
