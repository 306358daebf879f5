"""The whole adapter: a network that acts, and is kept."""

from pathlib import Path

from guidefold.acting.acting import Acting


class Adapter(Acting):
    """Adapter guidance distillation (2503.07274): one forward pass that predicts what guidance would have.

    `Adapter.build(denoiser, spec, config)` makes a new one, `guidefold.load` a saved one; `attach` acts.
    """

    def __deepcopy__(self, memo: dict) -> "Adapter":
        """Copy the weights, never the attachment: a copied model shares the adapter of the original."""
        copy = Adapter(self.config, self.spec, dict(self.shapes))
        copy.load_state_dict(self.state_dict())
        copy.trained = dict(self.trained)
        return copy

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json, model.safetensors and a model card to a folder."""
        from guidefold.keeping import hub

        return hub.save_pretrained(self, folder)

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload to a Hub repository such as `me/sd-folded`, with a model card, and return the address."""
        from guidefold.keeping import hub

        return hub.push_to_hub(self, repository, private=private)

    @staticmethod
    def from_pretrained(source: str | Path) -> "Adapter":
        """Load an adapter from a folder or the Hub. Raises InputError or ModelError."""
        from guidefold.keeping import hub

        return hub.from_pretrained(source)
