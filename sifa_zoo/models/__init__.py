"""The models: the SIFA block, timm's contract for clips, the two families, and checkpoints of others.

In: constructor arguments, then clips `(B, C, T, H, W)`. Out: logits and feature maps. Uses ops.
"""
