"""Gathers criterion's estimates into one table: `python3 benches/collect.py > benches/results/criterion.csv`.

Reads `target/criterion` (or the folder given), which `cargo bench -p vilya-benches` fills.
"""

import csv
import json
import pathlib
import sys


def rows(folder):
    """One row a benchmark: its name, and the median with its 95 % confidence interval, in nanoseconds."""
    for path in sorted(folder.glob("**/new/estimates.json")):
        median = json.loads(path.read_text())["median"]
        interval = median["confidence_interval"]
        name = path.parent.parent.relative_to(folder).as_posix()
        yield name, median["point_estimate"], interval["lower_bound"], interval["upper_bound"]


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/criterion")
    table = csv.writer(sys.stdout)
    table.writerow(["benchmark", "median_ns", "lower_ns", "upper_ns"])
    for name, *figures in rows(folder):
        table.writerow([name, *(f"{figure:.1f}" for figure in figures)])


if __name__ == "__main__":
    main()
