"""Time of recording a trajectory, where guided passes hold the prediction without guidance and where they do not.

python benchmarks/recording.py

Both ways in turn, on the bundled teacher: guided trajectories, and those that follow the bundled adapter.
"""

import argparse
import statistics
import time

from common import RESULTS, provenance, save
from guidefold.config import TrajectoryConfig
from guidefold.demo import bundle
from guidefold.trajectories.recorder import Recorder

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    made, pipe, rows = provenance(), bundle.load_teacher(), []
    for follow in (None, "bundled"):
        config = TrajectoryConfig(trajectories=BATCH, record_batch=BATCH, shard=BATCH, follow=follow)
        recorder = Recorder(pipe, bundle.prompts(), config)
        seconds = {True: [], False: []}
        assert recorder.knows_bare
        for number in range(options.rounds + 1):
            for known in seconds:
                recorder.knows_bare = known
                start = time.perf_counter()
                recorder.shard(range(BATCH))
                if number:  # the first warms up
                    seconds[known].append((time.perf_counter() - start) / BATCH)
        ratios = [without / with_ for with_, without in zip(seconds[True], seconds[False], strict=True)]
        rows.append(
            {
                "trajectories": "the teacher's" if follow is None else "the adapter's own",
                "passes": recorder.passes,
                "seconds": statistics.median(seconds[True]),
                "seconds_computed": statistics.median(seconds[False]),
                "ratio": statistics.median(ratios),
            }
        )
        print(rows[-1], flush=True)
    save(RESULTS / "recording.json", made, {"batch": BATCH, "steps": config.sampling_steps, "rows": rows})


if __name__ == "__main__":
    main()
