"""Bundle a trained adapter, in half precision: `python teachers/adapter.py runs/bundled`."""

import sys

import torch

from guidefold.keeping.hub import BUNDLED, BUNDLED_FOLDER, from_pretrained, save_pretrained

if __name__ == "__main__":
    adapter = from_pretrained(sys.argv[1])
    adapter.trained["base"] = "the bundled teacher"
    save_pretrained(adapter, BUNDLED_FOLDER, dtype=torch.float16, name=BUNDLED)
