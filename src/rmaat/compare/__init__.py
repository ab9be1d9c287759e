"""Models and methods side by side: accuracy over a grid of runs, memory and time of one training step.

Every figure of a step is taken in a fresh process, and a method whose gradients are not right in the same run is not reported.
"""
