"""SIFA-Net, SIFA-Transformer, and the conversion of checkpoints to them."""
