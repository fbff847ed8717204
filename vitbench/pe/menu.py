"""The menu of position encodings. Imports no torch."""

from __future__ import annotations

from vitbench.menu import Choice

MENU: dict[str, Choice] = {
    "none": Choice("vitbench.pe.base:PositionEncoding", "no encoding: the ViT sees the patches as a set"),
    "learned": Choice("vitbench.pe.learned:Learned", "a learned vector per position: the original ViT (2010.11929)"),
    "sincos1d": Choice("vitbench.pe.sincos1d:SinCos1D", "fixed waves along the raster order: Transformer (1706.03762)"),
    "sincos2d": Choice("vitbench.pe.sincos2d:SinCos2D", "fixed waves along rows and columns: plain ViT (2205.01580)"),
    "rope": Choice("vitbench.pe.rope:RoPE", "queries and keys rotated by row and column: RoPE-ViT (2403.13298)"),
    "rope_mixed": Choice("vitbench.pe.rope_mixed:RoPEMixed", "RoPE with learned mixes of row and column (2403.13298)"),
    "relative_bias": Choice("vitbench.pe.relative_bias:RelativeBias", "a learned bias per offset: Swin (2103.14030)"),
    "alibi2d": Choice("vitbench.pe.alibi2d:ALiBi2D", "a fixed penalty on the distance: ALiBi (2108.12409)"),
    "cpe": Choice("vitbench.pe.cpe:CPE", "a depthwise convolution after the first block: CPVT (2102.10882)"),
}
