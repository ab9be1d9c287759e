"""Memory and time of a training step: this project's models and those of other packages.

A method is a model with a way to backpropagate (`methods.py`). Its gradients are checked in the
same run (`gradient_check.py`), and a method with wrong gradients is not reported. On a CPU every
measurement has a fresh process.
"""
