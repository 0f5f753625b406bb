"""Run case studies and save their figures: `python case_studies --help`."""

import argparse
import os
import runpy
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.animation import Animation


def main() -> None:
    """Run the scripts in order; each figure becomes NAME_1.png, NAME_2.png, ..., each animation a GIF."""
    scripts = {path.stem.removeprefix("plot_"): path for path in sorted(Path(__file__).parent.glob("plot_*.py"))}
    parser = argparse.ArgumentParser(description="Run case studies and save their figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones, by default all: {', '.join(scripts)}")
    parser.add_argument("--short", action="store_true", help="fewer draws and epochs")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="folder to save to")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(scripts):
        parser.error(f"no case study is called {', '.join(sorted(unknown))}; there are {', '.join(scripts)}")

    if arguments.short:
        os.environ["PM_NEURAL_SHORT"] = "1"
    arguments.figures.mkdir(parents=True, exist_ok=True)
    # A script ends with plt.show(), which has no window to show here and says so.
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    for name in arguments.names or scripts:
        print(f"\n== {name} ==", flush=True)
        variables = runpy.run_path(str(scripts[name]), run_name="__main__")
        for label, animation in variables.items():
            if isinstance(animation, Animation):
                animation.save(arguments.figures / f"{name}_{label}.gif", writer="pillow")
        for number in plt.get_fignums():
            file = arguments.figures / f"{name}_{number}.png"
            plt.figure(number).savefig(file, dpi=120, bbox_inches="tight")
        plt.close("all")
    print(f"\nFigures saved in {arguments.figures}/")


if __name__ == "__main__":
    main()
