"""Before training: what is wrong with a data set, smaller copies, splits, and generated videos.

In: data as a user names them. Out: findings, and files for training. Uses datasets and video.
"""
