"""Fine-tuning: a run, its epochs and updates, and the run folder.

In: data, a model's name and settings. Out: a run folder with weights and a log. Uses preparing, evaluation,
runtime and what these use.
"""
