"""Training runs, from a run config to the files of a finished run.

- `config.py`: `RunConfig`, the settings of a run.
- `data.py`: the examples of a run's task.
- `run.py`: `train` and `evaluate`.
- `trainer.py`: the Trainer of transformers with this project's order of examples.
- `finished_run.py`: reads a finished run.
- `problems/`: what each problem type means for metrics, predictions, figures and baselines.
- `inference.py`: predicts with a finished run, for examples of any number and length.
"""
