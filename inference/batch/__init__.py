"""Batch jobs: predicting a whole table in a file, in chunks, to be fetched as a file of the same kind."""
