"""How Sphinx builds the site. Nothing here, and nothing in the build, needs the network."""

import os
import warnings
from importlib.metadata import version as installed_version

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

# The case studies run in this process when the site is built.
os.environ.setdefault("MPLBACKEND", "Agg")

project = "pm_neural"
author = copyright = "The pm_neural developers"
release = installed_version("pm-neural")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "sg_execution_times.rst", "**/sg_execution_times.rst"]

myst_enable_extensions = ["deflist", "dollarmath"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc sections say it in words
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../case_studies",
    "gallery_dirs": "auto_case_studies",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"__main__\.py",
    "matplotlib_animations": True,
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "min_reported_time": 1,
    "remove_config_comments": True,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
}
# plt.show() at the end of a case study has no window here.
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

html_theme = "pydata_sphinx_theme"
html_title = "pm_neural"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_sidebars = {page: [] for page in ("*", "auto_case_studies/*")}
html_math_renderer = "mathml"


def _write_inline(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _write_block(translator, node):
    formula = tex2mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def setup(app):
    """Write formulas as MathML, which browsers render by themselves: no script, no network."""
    app.add_html_math_renderer("mathml", (_write_inline, None), (_write_block, None))
