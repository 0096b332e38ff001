"""Before training: what is wrong with a data set, how fast it decodes, smaller copies, splits, generated videos.

In: data as a user names them. Out: findings, and files for training. Uses datasets and video.
"""
