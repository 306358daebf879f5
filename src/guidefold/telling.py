"""What an adapter, a store, a run or this installation is, in a table."""

from pathlib import Path

import torch

from guidefold import models, ui
from guidefold.demo import bundle
from guidefold.files import exists, read_object
from guidefold.keeping.hub import BUNDLED, describe
from guidefold.trajectories.store import Store


def info(*, target: str | None) -> None:
    """Tell what an adapter, a store, a run or this installation is."""
    if target is None:
        rows = [
            ("device", models.best_device(None)),
            ("torch", torch.__version__),
            ("threads", torch.get_num_threads()),
        ]
        rows += [(f"teacher {name}", folder) for name, folder in bundle.FOLDERS.items()]
        rows += [(f"adapter {name}", folder) for name, folder in BUNDLED.items()]
        return ui.table("guidefold", ("what", "is"), rows)
    folder = Path(target)
    if exists(folder / "index.json"):
        store = Store.open(folder)
        rows = [*store.header.items(), ("missing shards", len(store.missing_shards()))]
    elif exists(folder / "run.json"):
        rows = list(read_object(folder / "run.json", "a run").items())
    else:
        adapter = models.load_adapter(target)
        described = describe(adapter)
        rows = [*described["adapter"].items(), *described["trained"].items(), ("targets", len(adapter.shapes))]
        rows += [("parameters", f"{adapter.parameter_count():,}")]
    return ui.table(str(target), ("what", "is"), rows)
