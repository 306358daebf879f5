"""Try pipeline classes: `python -m support.check WanPipeline ...`, or all of them with `--all`."""

import sys
import traceback

from guidefold.capture import observe
from support.case import build

if __name__ == "__main__":
    for name in sys.argv[1:]:
        try:
            case = build(name)
            seen = observe(case.pipe, **case.call)
            off = ", ".join(f"{d.name}={d.off:g}" for d in seen.switch.dials)
            print(
                f"OK {name}: {seen.denoisers} off {off}; rows {seen.guided.rows}->{seen.bare.rows}; {seen.kinds()} "
                f"target {seen.target_error:.0e} inputs {seen.input_error:.0e} result {seen.result_error:.0e}",
                flush=True,
            )
        except Exception as error:
            print(f"NO {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            if "-v" in sys.argv:
                traceback.print_exc()
