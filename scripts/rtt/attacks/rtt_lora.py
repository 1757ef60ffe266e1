"""RTT with LoRA: retraining on T by adapters; others' relearning in 2409.18025 has rank 128 and alpha 16."""

from typing import Annotated

from pydantic import Field

from rtt.attacks.rtt import RTT
from rtt.study.settings import Count, Epochs, LoRA, LossName, Positive


class RTTLoRA(RTT):
    """RTT in which adapters of the linear layers are trained, and the weights themselves are not."""

    name, title, colour, order = "RTT_LoRA", "RTT, LoRA", "#0072B2", 1
    summary = "RTT by LoRA: adapters of the linear layers are trained on T, and the model's own weights stay."

    class Settings(RTT.Settings):
        """RTT with LoRA: the keys of RTT, and the adapters' rank, scale and layers."""

        learning_rates: Annotated[list[Positive], Field(min_length=1, max_length=100)] = [1e-3]
        epochs: Epochs = 20
        score_epochs: Annotated[list[Count], Field(min_length=1)] | None = [8, 14, 20]
        batch_size: Count = 32
        loss: LossName = "LETTER_ANSWER"
        train_layers: None = None  # `targets` says which layers have adapters
        rank: Count = 128
        alpha: Positive = Field(16.0, description="an adapter counts alpha / rank times")
        targets: Annotated[list[str], Field(min_length=1)] | None = Field(
            None, description="names of the layers with adapters, such as q_proj; null: all but the output matrix"
        )

        @property
        def lora(self) -> LoRA:
            """The adapters."""
            return LoRA(rank=self.rank, alpha=self.alpha, targets=self.targets)

    def changed(self, checkpoint):
        """Give the model adapters, the same at first for every checkpoint and learning rate."""
        import numpy as np

        from rtt.models.lora import adapted

        seed = int(np.random.default_rng(checkpoint.seeded(60)).integers(2**31))
        lora = self.settings.lora
        return adapted(checkpoint.model, lora.rank, lora.alpha, lora.targets, seed)
