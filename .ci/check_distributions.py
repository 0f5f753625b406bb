"""Check that the wheel and the sdist in a folder carry what they should, and nothing else."""

import sys
import tarfile
import zipfile
from pathlib import Path

IN_WHEEL = {"pm_neural/py.typed", "step_methods/py.typed", "pm_neural/plots.py"}
IN_SDIST = {"docs/conf.py", "case_studies/plot_coin.py", "tests/conftest.py", "constraints.txt"}


def main(folder: Path) -> None:
    """Exit with a message that names the first thing missing."""
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    packed = set(zipfile.ZipFile(wheel).namelist())
    top = {name.split("/")[0] for name in packed if ".dist-info/" not in name}
    if top != {"pm_neural", "step_methods"}:
        sys.exit(f"{wheel.name} should carry pm_neural and step_methods only, has {sorted(top)}")
    if missing := IN_WHEEL - packed:
        sys.exit(f"{wheel.name} lacks {sorted(missing)}")
    if not any(name.endswith("licenses/LICENSE") for name in packed):
        sys.exit(f"{wheel.name} lacks the licence")
    with tarfile.open(sdist) as archive:
        source = {name.split("/", 1)[-1] for name in archive.getnames()}
    if missing := (IN_SDIST | IN_WHEEL) - source:
        sys.exit(f"{sdist.name} lacks {sorted(missing)}")
    print(f"{wheel.name}: {len(packed)} files; {sdist.name}: {len(source)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
