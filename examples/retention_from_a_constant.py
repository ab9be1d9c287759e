"""Train with the retention factors of several time constants of the astrocyte.

rmaat data listops_short
python examples/retention_from_a_constant.py --tau_long 5 30 90 --max_steps 300
"""

import argparse
from pathlib import Path

import rmaat
from rmaat.astrocyte import MacroModel, retention_factors


def main() -> None:
    """Simulate and train with each time constant, then print factors and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tau_long",
        type=float,
        nargs="+",
        default=[10.0, 30.0, 100.0],
        help="time constants of the long-term process in seconds",
    )
    parser.add_argument("--max_steps", type=int, default=300, help="training steps of each run")
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("runs/retention"),
        help="folder of the runs",
    )
    arguments = parser.parse_args()

    lines = []
    for tau_long in arguments.tau_long:
        result = rmaat.train(
            recipe="listops_short",
            macro_model={"tau_long": tau_long},
            output_dir=str(arguments.output_dir / f"tau_long_{tau_long:g}"),
            max_steps=arguments.max_steps,
            eval_steps=arguments.max_steps,
            overwrite=True,
        )
        factors = retention_factors(3, "ltp", MacroModel(tau_long=tau_long))
        accuracy = result.metrics["test_accuracy"]
        columns = "  ".join(f"{factor:.4f}" for factor in factors)
        lines.append(f"{tau_long:8g} s   {columns}   {100 * accuracy:.2f}%")
    print("\ntau_long     RF(1 .. T, T)            test accuracy")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
