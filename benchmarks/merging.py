"""Adapters that were trained from the same start, and their means.

python benchmarks/merging.py runs/start runs/one/best runs/other/best

The first is the start. Judged are each of them, the mean of those trained from it, and the mean of all; the figure is
guidance recovered on held-out prompts, per prediction.
"""

import argparse

from common import RESULTS, provenance, save
from guidefold import merge
from guidefold.demo import bundle
from guidefold.models import load_adapter
from judging import judged

SCALES = (2.0, 4.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start")
    parser.add_argument("trained", nargs="+")
    parser.add_argument("--prompts", type=int, default=64)
    options = parser.parse_args()
    made, pipe = provenance(), bundle.load_teacher()
    adapters = {"the start": load_adapter(options.start)}
    adapters |= {f"trained from it, {number}": load_adapter(name) for number, name in enumerate(options.trained, 1)}
    adapters["mean of those trained from it"] = merge(options.trained)
    adapters["mean of all"] = merge([options.start, *options.trained])
    rows = []
    for name, adapter in adapters.items():
        prompts = bundle.held_out_prompts()[: options.prompts]
        rows.append({"adapter": name, **judged(pipe, adapter, prompts, SCALES)})
        print(rows[-1], flush=True)
    save(RESULTS / "merging.json", made, {"prompts": options.prompts, "rows": rows})


if __name__ == "__main__":
    main()
