"""Weights by name: the manifest, the Hugging Face Hub, the files that ship with the package.

In: a name, a path or a model to fill. Out: a checked file and what it says about itself, or a `WeightsError` that says
why there is none. Uses models.
"""
