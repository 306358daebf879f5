"""The bundled list of varied English prompts, made by `tools/prompts.py`."""
