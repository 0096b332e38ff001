"""Models by name, and the same names in timm's registry.

In: a name of a model or of weights. Out: the model, with these weights. Uses weights, models.
"""
