"""How well adapters fold guidance into prompts they have seen, invented ones and held-out ones.

python benchmarks/prompts.py runs/start runs/invented

Invented prompts are those of `teachers/prompts.py` beyond the first 8,192, which are there to be trained on; held-out
ones have names that neither the teacher nor any adapter has seen. The figure is guidance recovered, per prediction.
"""

import argparse
import sys
from pathlib import Path

from common import RESULTS, provenance, save
from guidefold.demo import bundle
from guidefold.evaluation.evaluate import spread_over
from guidefold.models import load_adapter
from judging import judged

SCALES = (2.0, 4.0, 8.0)
TRAINED = 8192


def lists(count: int) -> dict[str, list[str]]:
    """Return `count` prompts of each kind."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
    import prompts

    return {
        "trained on": spread_over(bundle.prompts(), count),
        "invented": prompts.invented(TRAINED + count)[TRAINED:],
        "held out": bundle.held_out_prompts()[:count],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--prompts", type=int, default=32, help="of each kind")
    options = parser.parse_args()
    made, pipe, rows = provenance(), bundle.load_teacher(), []
    for kind, chosen in lists(options.prompts).items():
        for name in options.adapters:
            rows.append({"prompts": kind, "adapter": name, **judged(pipe, load_adapter(name), chosen, SCALES)})
            print(rows[-1], flush=True)
    save(RESULTS / "prompts.json", made, {"prompts": options.prompts, "rows": rows})


if __name__ == "__main__":
    main()
