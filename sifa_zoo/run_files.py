"""Names of the files in a run folder, which fine-tuning writes and everything else reads."""

CONFIG = "config.json"  # settings, and what they came to
STATE = "state.pt"  # all that resuming needs
BEST = "best.safetensors"  # the weights of the best epoch
LAST = "last.safetensors"  # and of the last one
LOG = "log.csv"  # a row per epoch
CURVE = "curve.png"  # the log as a picture
