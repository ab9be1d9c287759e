"""Pathfinder at 32 x 32 pixels: do the two round markers lie on one dashed curve, or on two?

| file | what happens there |
|---|---|
| `settings.py` | the constants of the published data set, and its three difficulties |
| `stamps.py` | Pillow draws every possible paddle, footprint and marker once |
| `snakes.py` | compiled: curves of paddles grow and become an image |
| `generate.py` | images and labels are generated from a seed, block by block, on all cores |
| `archive.py` | a compressed file of images, labels and the settings that made them |
| `release.py` | the Long Range Arena's release is read: folders of images and metadata |
| `task.py` | the three tasks |
"""
