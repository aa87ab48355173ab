"""Where raw images come from: one module a kind of source, and the one door into a raw folder.

Every source hands its files to an `intake.Intake`, which holds the rules that all share: safe
names, images only, bounds. Called by `pipelines.stages.fetch` alone.
"""
