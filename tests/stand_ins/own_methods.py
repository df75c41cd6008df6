"""A method of the user's own: the one of docs/own_method.md, in a folder outside the package."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "own_method.md").read_text(encoding="utf-8")
SECTION, SEEING = PAGE.split("\n## ")
[CODE] = re.findall(r"^```python\n(.*?)^```", SECTION, re.M | re.S)
[YAML] = re.findall(r"^```yaml\n(.*?)^```", SECTION, re.M | re.S)
FILE, CONFIGURATION = "my_method.py", "my_conf/method/my_method.yaml"
assert f"`{FILE}`" in SECTION and f"`{CONFIGURATION}`" in SECTION


def write(folder, code=CODE, yaml=YAML):
    """The page's two files, or others in their places."""
    for name, text in ((FILE, code), (CONFIGURATION, yaml)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_one_that_sees(folder):
    """The page's two files of a method that looks at data."""
    [code] = re.findall(r"^```python\n(.*?)^```", SEEING, re.M | re.S)
    [yaml] = re.findall(r"^```yaml\n(.*?)^```", SEEING, re.M | re.S)
    assert "`by_inputs.py`" in SEEING and "`my_conf/method/by_inputs.yaml`" in SEEING
    (folder / "by_inputs.py").write_text(code)
    (folder / "my_conf/method").mkdir(parents=True, exist_ok=True)
    (folder / "my_conf/method/by_inputs.yaml").write_text(yaml)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def command(name):
    """The arguments of the page's line for a command."""
    [line] = re.findall(rf"^    {name} (.*)$", SECTION, re.M)
    return line
