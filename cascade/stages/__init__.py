"""Stages: checkpoints that embed images and queries, from whatever a caller has of an image.

`images` opens a source, `preparing` makes of many what a tower takes, `running` and `reading` say
what a checkpoint runs in and reads, `fingerprints` who a stage is; `stage` is one, `mapped` one
behind a map into another space, and `towers` loads those of a cascade alike.
"""
