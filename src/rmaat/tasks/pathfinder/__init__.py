"""Pathfinder at 32 x 32 pixels, made from a seed: do the two round markers lie on one dashed curve, or on two?

| file | what happens there |
|---|---|
| `settings.py` | the constants of the published data set, and its three difficulties |
| `stamps.py` | Pillow draws each paddle, footprint and marker that can ever be needed, once |
| `snakes.py` | compiled: curves of paddles grow, and are put together into an image |
| `generate.py` | a seed to arrays of images and labels, block by block, on all cores |
| `archive.py` | one compressed file of images, labels and what made them |
| `release.py` | the reader of the Long Range Arena's release: folders of images and metadata |
| `task.py` | the three tasks |
"""
