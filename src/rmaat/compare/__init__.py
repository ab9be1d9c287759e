"""Models and methods side by side, on the same data, width and depth."""
