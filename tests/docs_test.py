"""What the pages name exists: modules, presets, files, links, imported names."""

import ast
import importlib
import importlib.util
import inspect
import itertools
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

import ltjax
from experiments import train
from experiments.configs import PRESETS

ROOT = pathlib.Path(__file__).parents[1]
SITE = sorted(p for p in ROOT.glob("docs/**/*.md") if "_build" not in p.parts)
PAGES = [*sorted(ROOT.glob("*.md")), *SITE]
FOLDERS = ("ltjax", "examples", "experiments", "benchmarks", "tests", "docs", ".ci")


@pytest.fixture
def strict_promotion():
    """Nothing is computed here."""


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request):
    return request.param


def _blocks(text: str, language: str = r"\w*") -> list[str]:
    """Contents of the fenced code blocks."""
    fenced = re.findall(r"^```([^\n`]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if re.fullmatch(language, name)]


def _slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _anchors(text: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return {_slug(h) for h in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


def _modules(text: str) -> set[str]:
    """Names after ``python -m``, also where the line is broken before them."""
    return set(re.findall(r"python3? -m\s+(?:\\\s+)?([a-z_][\w.]*\w)", text))


def _arguments(text: str, module: str) -> list[list[str]]:
    """What follows ``python -m module`` in the code blocks, without comments."""
    lines = re.sub(r"\\\n\s*", "", "".join(_blocks(text)))
    found = re.findall(rf"python3? -m {re.escape(module)} (.*)$", lines, re.MULTILINE)
    return [shlex.split(line.rstrip("'"), comments=True) for line in found]


def _presets(text: str) -> set[str]:
    """Names that a command trains, and whatever in a code block looks like one."""
    named = re.findall(r"-m experiments\.train (?:\\\s+)?([a-z][\w-]+)", text)
    alike = r"(?<![\w-])([a-z]\w*(?:-\w+)*-(?:cifar100?|clothing1m|mnist)(?:-\w+)*)"
    return {*named, *re.findall(alike, "".join(_blocks(text)))}


def _tree(block: str):
    """Paths of a drawn tree: two spaces of indentation for each level."""
    parents: list[str] = []
    for indent, name in re.findall(r"^( *)(\S+)", block, re.MULTILINE):
        parents[len(indent) // 2 :] = [name]
        yield "/".join(part.strip("/") for part in parents)


def _runs(module: str) -> bool:
    """Whether ``python -m module`` would find something to run."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return spec is not None
    return importlib.util.find_spec(f"{module}.__main__") is not None


def test_commands_name_modules(page):
    missing = {name for name in _modules(page.read_text()) if not _runs(name)}
    assert not missing


def test_commands_name_presets(page):
    assert _presets(page.read_text()) <= set(PRESETS)


def test_training_commands_have_real_settings(page):
    for name, *settings in _arguments(page.read_text(), "experiments.train"):
        if not name.startswith(("-", "$")) and "--help" not in settings:
            name = "smoke" if name == "PRESET" else name
            train.parse(PRESETS[name], settings, name)


def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked.read_text()), target


def test_named_files_exist(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`([\w.]+/[\w./]*\w/?)`", prose):
        if name.startswith(FOLDERS):
            assert (ROOT / name).exists(), name


def test_drawn_trees_are_true(page):
    for block in _blocks(page.read_text()):
        if block.startswith("ltjax/\n"):
            missing = [path for path in _tree(block) if not (ROOT / path).exists()]
            assert not missing


def test_imports_of_examples_work(page):
    for block in _blocks(page.read_text(), r"python|\{code-cell\}.*"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    found = hasattr(module, alias.name) or importlib.util.find_spec(
                        f"{node.module}.{alias.name}"
                    )
                    assert found, f"{node.module}.{alias.name}"


def test_published_figures_are_on_the_page_of_papers():
    text = (ROOT / "docs" / "papers.md").read_text()
    known = {f"{p.published.accuracy:.2f}" for p in PRESETS.values() if p.published}
    assert "87.97" in known
    assert not {figure for figure in known if figure not in text}


def test_definitions_can_be_written_into_the_function():
    blocks = _blocks((ROOT / "docs" / "jacobian.md").read_text(), "python")
    code = "\n".join(blocks)

    @jax.jit  # a fraction of the time that it takes line by line
    def run():
        names: dict = {}
        exec(code, names)
        wanted = "exact", "frozen", "same_as_frozen", "of_images"
        return [names[name] for name in wanted]

    exact, frozen, same_as_frozen, of_images = run()
    assert of_images.shape == exact.shape
    np.testing.assert_allclose(frozen, same_as_frozen, rtol=1e-5)
    assert np.abs(exact - frozen).max() > 0.1


def _documented() -> dict[str, object]:
    """What the pages of the API reference describe, by name."""
    found = {}
    for page in ROOT.glob("docs/api/*.md"):
        scope = ""
        directives = r"^\.\. (currentmodule|auto\w+):: ([\w.]+)$"
        for kind, name in re.findall(directives, page.read_text(), re.MULTILINE):
            if kind == "currentmodule":
                scope = f"{name}."
                continue
            name = name if name.startswith("ltjax.") else scope + name
            module, _, attribute = name.rpartition(".")
            found[name] = getattr(importlib.import_module(module), attribute)
    return found


def _public() -> dict[str, object]:
    """What the packages of the library export, by name."""

    def exported(package):
        return {k: x for k, x in vars(package).items() if not k.startswith("_")}

    packages = [ltjax, *filter(inspect.ismodule, exported(ltjax).values())]
    return {
        f"{package.__name__}.{name}": x
        for package in packages
        for name, x in exported(package).items()
        if not inspect.ismodule(x)
    }


def test_every_public_name_is_in_the_reference():
    # Some names have two homes: ltjax.absgd is ltjax.transforms.absgd.
    documented = {id(x) for x in _documented().values()}
    public = _public()
    assert {"ltjax.linearize", "ltjax.losses.elm", "ltjax.data.Split"} <= public.keys()
    assert not [name for name, x in public.items() if id(x) not in documented]


def test_the_reference_has_nothing_else():
    public = {id(x) for x in _public().values()}
    assert not [name for name, x in _documented().items() if id(x) not in public]


def test_pages_named_in_the_code_exist():
    names = ("ltjax", "examples", "experiments", "benchmarks", "tests")
    folders = [ROOT / name for name in names]
    files = itertools.chain.from_iterable(f.rglob("*.py") for f in folders)
    named = {n for f in files for n in re.findall(r"\bdocs/\w+\.md", f.read_text())}
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_the_checks_find_what_is_wrong():
    text = (
        "# A b, c\n```\npython -m no.such\npython -m experiments.train \\\n  zz-y\n```"
    )
    assert _modules(text) == {"no.such", "experiments.train"}
    assert not _runs("no_such")
    assert not _runs("experiments.configs")
    assert _presets(text + "\n```sh\nqq-cifar10-lt9 {out}/a-cifar100-x/b\n```") == {
        "zz-y",
        "qq-cifar10-lt9",
        "a-cifar100-x",
    }
    assert _arguments(text, "experiments.train") == [["zz-y"]]
    assert _anchors(text) == {"a-b-c"}
    assert _blocks("```{note}\nx\n```\ny\n```python\nz\n```", "python") == ["z\n"]
    assert list(_tree("a/\n  b/   word\n    c.py\n  d\n")) == [
        "a",
        "a/b",
        "a/b/c.py",
        "a/d",
    ]
