"""Fine-tuning, evaluation and prediction, and the run folder that they share."""
