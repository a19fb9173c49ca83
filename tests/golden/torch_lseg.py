"""LSeg's image network (ViT, DPT decoder, head) as plain PyTorch modules, from its published description.

For comparison alone; the names are those of its checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, length, dim))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class TorchViT(nn.Module):
    """`forward` gives the embedded tokens and every block's output."""

    def __init__(self, dim, depth, heads, patch, grid):
        super().__init__()
        self.grid = grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x):
        x = self.patch_embed["proj"](x)
        positions = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        positions = F.interpolate(positions, x.shape[2:], mode="bilinear", align_corners=False).flatten(2)
        tokens = x.flatten(2).transpose(1, 2) + positions.transpose(1, 2)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        outputs = [torch.cat([cls, tokens], dim=1)]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class Readout(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU())

    def forward(self, tokens):
        patches = tokens[:, 1:]
        return self.project(torch.cat([patches, tokens[:, :1].expand_as(patches)], dim=-1))


class ResidualConvUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.bn1(self.conv1(F.relu(x)))
        return x + self.bn2(self.conv2(F.relu(y)))


class Fusion(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1, self.resConfUnit2 = ResidualConvUnit(width), ResidualConvUnit(width)

    def forward(self, x, skip=None):
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        x = F.interpolate(self.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class TorchLSeg(nn.Module):
    """`forward` gives the ViT's outputs, the pyramid, and the pixel embeddings at stride 2."""

    def __init__(self, dim, depth, heads, taps, channels, width, embedding_dim, patch=16, grid=24):
        super().__init__()
        self.taps = taps
        self.pretrained = nn.Module()
        self.pretrained.model = TorchViT(dim, depth, heads, patch, grid)
        resize = [
            nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
            nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
            nn.Identity(),
            nn.Conv2d(channels[3], channels[3], 3, 2, 1),
        ]
        self.scratch = nn.Module()
        for i in range(4):
            process = nn.Sequential(
                Readout(dim), nn.Identity(), nn.Identity(), nn.Conv2d(dim, channels[i], 1), resize[i]
            )
            setattr(self.pretrained, f"act_postprocess{i + 1}", process)
            setattr(self.scratch, f"layer{i + 1}_rn", nn.Conv2d(channels[i], width, 3, padding=1, bias=False))
            setattr(self.scratch, f"refinenet{i + 1}", Fusion(width))
        self.scratch.head1 = nn.Conv2d(width, embedding_dim, 1)

    def forward(self, x):
        tokens = self.pretrained.model(x)
        size = [side // 16 for side in x.shape[2:]]
        pyramid = []
        for i, tap in enumerate(self.taps, start=1):
            readout, *_, project, resize = getattr(self.pretrained, f"act_postprocess{i}")
            pyramid.append(resize(project(readout(tokens[1 + tap]).transpose(1, 2).unflatten(2, size))))
        levels = [getattr(self.scratch, f"layer{i}_rn")(level) for i, level in enumerate(pyramid, start=1)]
        path = self.scratch.refinenet4(levels[3])
        for i in (3, 2, 1):
            path = getattr(self.scratch, f"refinenet{i}")(path, levels[i - 1])
        return tokens, pyramid, self.scratch.head1(path)
