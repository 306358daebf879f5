"""Bundle a trained adapter, in half precision: `python teachers/adapter.py runs/bundled [bundled-dit]`."""

import sys

import torch

from guidefold.keeping.hub import BUNDLED, from_pretrained, save_pretrained

if __name__ == "__main__":
    adapter = from_pretrained(sys.argv[1])
    name = sys.argv[2] if len(sys.argv) > 2 else "bundled"
    adapter.trained["base"] = f"the teacher {name}"
    save_pretrained(adapter, BUNDLED[name], dtype=torch.float16, name=name)
