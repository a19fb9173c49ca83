"""Write clip_openai.pt, a tiny random text tower as OpenAI releases its own (TorchScript, float16), and its outputs.

pip install torch; python -m tests.golden.make_clip_openai
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.golden.make_clip_text import randomize

VOCAB_SIZE, LENGTH, DIM, DEPTH, MLP_DIM, EMBEDDING_DIM = 48, 12, 64, 2, 96, 24


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(DIM, 1, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(DIM, MLP_DIM))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(MLP_DIM, DIM))

    def forward(self, x):
        y = self.ln_1(x)
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype).triu(1)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = nn.Conv2d(3, 4, 2)  # there is an image tower, too
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.token_embedding = nn.Embedding(VOCAB_SIZE, DIM)
        self.positional_embedding = nn.Parameter(torch.zeros(LENGTH, DIM))
        self.ln_final = nn.LayerNorm(DIM)
        self.text_projection = nn.Parameter(torch.zeros(DIM, EMBEDDING_DIM))
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.ln_final(self.transformer.resblocks(x))
        return x[torch.arange(len(x)), ids.argmax(dim=-1)] @ self.text_projection


def main() -> None:
    torch.manual_seed(0)
    module = Tower().eval()
    randomize(module)
    module = module.half().float()
    ids = np.random.RandomState(0).randint(0, VOCAB_SIZE - 2, (3, 8))
    ids[:, 0] = VOCAB_SIZE - 2
    ids[[0, 1, 2], [7, 3, 5]] = VOCAB_SIZE - 1
    folder = Path(__file__).parent
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        embedding = module(torch.from_numpy(ids))
        torch.jit.trace(module, torch.from_numpy(ids)).half().save(folder / "clip_openai.pt")
    np.savez_compressed(folder / "clip_openai.npz", ids=ids, embedding=embedding.numpy())


if __name__ == "__main__":
    main()
