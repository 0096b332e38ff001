"""A model in use: classes and features of videos, folders and streams.

In: weights and videos without labels. Out: predictions, segments, features, pictures. Uses evaluation, runtime and what
these use.
"""
