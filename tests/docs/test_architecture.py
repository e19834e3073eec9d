# SPDX-License-Identifier: Apache-2.0
"""The drawn picture of the packages is the code's, and legible."""

import re
from xml.etree import ElementTree

import pytest
from support.documented import ROOT

from website.architecture import PICTURE, WIDTH, draw
from website.imports import Packages, read_packages

SVG = "{http://www.w3.org/2000/svg}"
PACKAGES = read_packages()


def test_the_picture_on_the_page_is_todays():
    assert PICTURE.read_text(encoding="utf-8") == draw(PACKAGES), "run python -m website.architecture"


def test_it_has_a_box_for_every_package_and_every_import_points_down():
    row = {name: number for number, layer in enumerate(PACKAGES.layers) for name in layer}
    folders = {path.parent.name for path in (ROOT / "fedcpsc").glob("*/__init__.py")}
    assert set(row) == folders | {"cli", "clients", "server"}
    assert all(row[name] < row[target] for name, targets in PACKAGES.imports.items() for target in targets)
    assert "runs" in PACKAGES.imports["distillation"]
    assert "errors" in PACKAGES.base


def test_an_import_that_follows_from_others_is_left_out_and_a_circle_is_refused(tmp_path):
    layers = '"fedcpsc.a", "fedcpsc.b | fedcpsc.c", "fedcpsc.d"'
    contract = f'[tool.importlinter]\n[[tool.importlinter.contracts]]\ntype = "layers"\nlayers = [{layers}]\n'
    (tmp_path / "pyproject.toml").write_text(contract)
    texts = {"a": "import fedcpsc.b\nfrom fedcpsc.c import x", "b": "from fedcpsc import c", "c": "", "d": None}
    for name, text in texts.items():
        place = tmp_path / "fedcpsc" / (f"{name}.py" if text is None else f"{name}/__init__.py")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f'"""What {name} is, in short."""\n{text or ""}\n')
    found = read_packages(tmp_path)
    assert found.layers == (("a",), ("b",), ("c",))
    assert found.imports == {"a": ("b",), "b": ("c",), "c": ()}
    assert (found.base, found.captions["a"]) == (("d",), "What a is, in short")
    (tmp_path / "fedcpsc/c/__init__.py").write_text("def f():\n    import fedcpsc.a\n")
    with pytest.raises(ValueError, match="circle"):
        read_packages(tmp_path)


@pytest.mark.parametrize("wide", [False, True])
def test_boxes_stand_apart_inside_the_picture_and_captions_inside_boxes(wide):
    packages = PACKAGES
    if wide:  # six in every layer, all of which import all below
        layers = tuple(tuple(f"p{row}{column}" for column in range(6)) for row in range(4))
        below = {name: layers[row + 1] if row < 3 else () for row, layer in enumerate(layers) for name in layer}
        packages = Packages(layers, ("errors",), below, dict.fromkeys(below, "word " * 40))
    picture = ElementTree.fromstring(draw(packages))
    boxes = [
        tuple(float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        for box in picture.iter(f"{SVG}rect")
        if "x" in box.attrib and float(box.attrib["width"]) > 20
    ]
    assert len(boxes) == sum(map(len, packages.layers)) + 1
    assert all(x >= 0 and x + width <= WIDTH for x, _, width, _ in boxes)
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:i]:
            apart = x >= other_x + other_width or other_x >= x + width
            assert apart or y >= other_y + other_height or other_y >= y + height
    lines = [text for text in picture.iter(f"{SVG}text") if text.attrib["class"] == "caption"][:-1]
    assert max(len(text.text) for text in lines) <= 23  # 10.5 px type, 134 px boxes
    assert len(list(picture.iter(f"{SVG}path"))) - 1 == sum(map(len, packages.imports.values()))


@pytest.mark.parametrize("picture", ["architecture.svg", "overview.svg", "overview-narrow.svg"])
def test_pictures_have_words_for_those_who_do_not_see_them_and_colours_for_the_dark(picture):
    text = (ROOT / "docs" / picture).read_text(encoding="utf-8")
    assert "<title id=" in text
    assert "aria-labelledby" in text
    light, dark = re.search(
        r"svg \{(.*?)\}\s*@media \(prefers-color-scheme: dark\) \{ svg \{(.*?)\}", text, re.DOTALL
    ).groups()
    names = [set(re.findall(r"(--[\w-]+):", part)) for part in (light, dark)]
    assert names[0] == names[1], "a colour for light surroundings alone"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
