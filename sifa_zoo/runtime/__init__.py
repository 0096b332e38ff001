"""What training, evaluation and inference share: processes, devices, batches of clips, models of runs.

In: datasets, devices, run folders. Out: loaders of batches, loaded models, what a result came from. Uses registry,
datasets and what these use.
"""
