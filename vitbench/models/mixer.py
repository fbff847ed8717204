"""The MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601), in which an MLP mixes the patches instead of attention.

We differ from the paper in its initialisation: matrices are Xavier-uniform and patches LeCun-normal, as in our ViT, so
that the two models differ only in how they mix (the paper's code draws all of them LeCun-normal, and the head is 0).
GELU is the exact one. The sizes have the ViT's widths and more blocks, for equal multiply-adds. Parameters have the
names of timm's `MlpMixer`, apart from two modules: `stem.proj` is our `patch_embed`, and `mlp_tokens` is `mixing.mlp`.
"""

from __future__ import annotations

from torch import Tensor, nn

from vitbench.errors import UserError, check_choice
from vitbench.menu import check_ranges
from vitbench.models.block import MLP, DropPath
from vitbench.models.menu import SIZES
from vitbench.models.refusals import MIXER, refuse_patches
from vitbench.models.stem import lecun_normal_


class TokenMixing(nn.Module):
    """An MLP over places, the same for every channel, (B,N,D) -> (B,N,D).

    Each place has its own weights, so it takes exactly the N places that it was built for, and it does not know which
    of them are neighbours.
    """

    def __init__(self, tokens: int, hidden: int) -> None:
        super().__init__()
        self.mlp = MLP(tokens, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens.transpose(1, 2)).transpose(1, 2)


class MixerBlock(DropPath):
    """Mixes places, then channels; each branch normalises its input, as in a ViT's block."""

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.mixing = TokenMixing(tokens, token_hidden)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp_channels = MLP(width, channel_hidden)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop(self.mixing(self.norm1(tokens)))
        return tokens + self.drop(self.mlp_channels(self.norm2(tokens)))


class Mixer(nn.Module):
    """An MLP-Mixer. It takes only images of `image_size`, because each place has its own weights.

    `size` gives width and depth (`vitbench ls models`) unless they are set. `token_ratio` and `mlp_ratio` are the
    widths of the MLPs over places and over channels, as multiples of the network's width: 1/2 and 4 in all networks of
    the paper (table 1). `drop_path` is the rate of the last block; it rises linearly from 0 at the first block.
    """

    channels_last = False
    prefix_tokens = 0

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_classes: int,
        *,
        size: str = "nano",
        patch_size: int = 4,
        width: int | None = None,
        depth: int | None = None,
        token_ratio: float = 0.5,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("model.size", size, SIZES)
        preset = SIZES[size]["mixer"].options
        width = preset["width"] if width is None else width
        depth = preset["depth"] if depth is None else depth
        options = {"patch_size": patch_size, "width": width, "depth": depth, "drop_path": drop_path}
        options |= {"token_ratio": token_ratio, "mlp_ratio": mlp_ratio}
        check_ranges({f"model.{key}": value for key, value in options.items()}, MIXER)
        refuse_patches(image_size, patch_size)

        self.image_size, self.patch_size = image_size, patch_size
        tokens = (image_size // patch_size) ** 2
        hidden = max(1, int(token_ratio * width)), max(1, int(mlp_ratio * width))
        self.patch_embed = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        rates = [drop_path * layer / max(depth - 1, 1) for layer in range(depth)]
        self.blocks = nn.ModuleList(MixerBlock(tokens, width, *hidden, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        for module in self.blocks.modules():
            if isinstance(module, MLP):
                module.init_weights()
        lecun_normal_(self.patch_embed)
        nn.init.normal_(self.head.weight, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))  # (B,K)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Returns the input of the head, (B,D): the mean of the normalised tokens after the last block."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            height, width = images.shape[-2:]
            raise UserError(
                f"images of {height} x {width} px: model=mixer has weights for each place, so it takes only images of "
                f"{self.image_size} x {self.image_size} px"
            )
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2).contiguous()  # (B,N,D)
        for block in self.blocks:
            tokens = block(tokens)
        pooled: Tensor = self.norm(tokens).mean(1)
        return pooled

    @property
    def taps(self) -> dict[str, nn.Module]:
        """The modules to observe in depth order; their outputs are a map (B,D,h,w), tokens (B,N,D), logits (B,K)."""
        blocks = {f"block{layer}": block for layer, block in enumerate(self.blocks, start=1)}
        return {"patch_embed": self.patch_embed, **blocks, "norm": self.norm, "head": self.head}
