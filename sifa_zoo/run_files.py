"""Names of the files in a run folder, which fine-tuning writes and other commands read."""

CONFIG = "config.json"  # the settings, and what followed from them
STATE = "state.pt"  # everything that resuming needs
BEST = "best.safetensors"  # the weights of the best epoch
LAST = "last.safetensors"  # the weights of the last epoch
LOG = "log.csv"  # a row per epoch
CURVE = "curve.png"  # the log as a picture
