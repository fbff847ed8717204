"""The networks: images in, logits out.

Shape letters, everywhere in vitbench:

    B  batch              N  tokens (prefix tokens first, then patches row by row)
    C  channels           D  width of a token
    H  height in pixels   A  attention heads
    W  width in pixels    E  width of one head, D / A
    K  classes            M  images of a split
    h  rows of a map, or of the grid of patches            w  its columns

Every model is `model(images) -> logits`, (B,C,H,W) -> (B,K), and names the places worth observing in
`model.taps`, a dict of modules in depth order. A tap's output is a map (B,D,h,w) or a list of tokens (B,N,D);
the last tap is always `head`, whose input is the pooled feature (B,D), which `model.features(images)` gives, and whose
output are the logits. (With DeiT's distillation token it is given that token too; see `vit.TwoHeads`.)
"""
