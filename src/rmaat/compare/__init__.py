"""Memory and time of one training step, side by side: this project's ways of going back, its baselines, and other packages.

Every figure is taken in a fresh process, and a method whose gradients are not right in the same run is not reported.
"""
