"""Run model artifacts that nobody has to trust: formats, signatures, runners, the model host."""
