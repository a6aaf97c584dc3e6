"""How Sphinx builds the site: Markdown by MyST, the theme Furo, formulas by KaTeX, nothing from a network."""

project = "R2U-Net from scratch"
html_title = project
extensions = ["myst_parser", "sphinxcontrib.katex"]
exclude_patterns = [".doctrees"]
highlight_language = "none"

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4  # as GitHub forms them
myst_dmath_double_inline = True

# Signatures name types of NumPy and of the standard library, whose pages are not on this site.
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = [
    "ref.python"
]  # a type such as Tensor is on the page of its module and on that of the package
add_module_names = False
python_maximum_signature_line_length = 90
toc_object_entries = False

# KaTeX is in the package sphinxcontrib-katex. Browsers show its MathML without fonts and styles of its own.
katex_css_path = "katex-math.css"
katex_options = 'output: "mathml"'

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
