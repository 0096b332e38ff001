"""Weights for others: conversion, upload to the Hub, verification.

In: a run or somebody else's checkpoint. Out: weights files and manifest entries. Uses evaluation, runtime and what
these use.
"""
