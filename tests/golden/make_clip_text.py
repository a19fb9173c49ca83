"""Write clip_text.npz: a tiny random CLIP text tower of transformers, its input and its outputs at every depth.

pip install torch transformers; python -m tests.golden.make_clip_text
"""

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

VOCAB_SIZE = 64
END = VOCAB_SIZE - 1
CONFIG = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "projection_dim": 24,
    "hidden_act": "quick_gelu",
    "bos_token_id": VOCAB_SIZE - 2,
    "eos_token_id": END,
}


def main() -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(**CONFIG)
    module = CLIPTextModelWithProjection(config).eval()
    randomize(module)
    # Texts of unequal length; what follows the end token is the end token again, as transformers pads.
    ids = np.full((3, 9), END)
    for row, length in enumerate((9, 4, 6)):
        ids[row, 0] = VOCAB_SIZE - 2
        ids[row, 1 : length - 1] = np.random.default_rng(row).integers(0, VOCAB_SIZE - 2, length - 2)
    with torch.no_grad():
        output = module(torch.from_numpy(ids), output_hidden_states=True)
    np.savez_compressed(
        Path(__file__).with_name("clip_text.npz"),
        ids=ids,
        embedding=output.text_embeds.numpy(),
        tokens=output.last_hidden_state.numpy(),
        **{f"hidden{i}": hidden.numpy() for i, hidden in enumerate(output.hidden_states)},
        **{f"weights/{name}": tensor.numpy() for name, tensor in module.state_dict().items()},
    )


def randomize(module: torch.nn.Module, scale: float = 0.1) -> None:
    """Add noise to every parameter: biases and norms start at 0 and 1, which would hide a swap."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)


if __name__ == "__main__":
    main()
