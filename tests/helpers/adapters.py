"""LoRA adapters of the tiny Llama, as peft writes them."""

import json

import peft
import tiny
import torch
from rtt.study.model_folder import ADAPTER

R, ALPHA = 2, 3


def write(folder, model=None, seed=1, **more):
    """Write an adapter with random weights, as peft saves it after training."""
    settings = {"r": R, "lora_alpha": ALPHA, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
    torch.manual_seed(seed)
    wrapped = peft.get_peft_model(model or tiny.model(), peft.LoraConfig(**settings | more))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(folder)
    edit(folder, init_lora_weights=True)
    return folder


def edit(folder, **more):
    path = folder / ADAPTER
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
