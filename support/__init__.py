"""Which pipelines of the installed diffusers guidefold folds: every class is tried on tiny random components."""
