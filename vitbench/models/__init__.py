"""The networks, which turn images into logits.

These letters stand for the same dimensions everywhere in vitbench:

    B  batch              N  tokens (prefix tokens first, then patches row by row)
    C  channels           D  width of a token
    H  height in pixels   A  attention heads
    W  width in pixels    E  width of one head, D / A
    K  classes            M  images of a split
    h  rows of a map, or of the grid of patches            w  its columns

Every model is called as `model(images) -> logits`, (B,C,H,W) -> (B,K). `model.taps` is a dict of the modules that are
worth observing, in depth order. The output of a tap is a map (B,D,h,w) or tokens (B,N,D). The last tap is always
`head`: its input is the pooled feature (B,D), which `model.features(images)` returns, and its output are the logits.
(With DeiT's distillation token, the head also takes that token; see `vit.TwoHeads`.)
"""
