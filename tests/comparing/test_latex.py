"""Every table compiles in LaTeX and fits on its page; what a compiler would refuse is looked for without one, too."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from tests.comparing.printed import NASTY, printed
from tests.conftest import Output
from vitbench.comparing.evidence import evidence_text
from vitbench.comparing.latex import (
    PACKAGES,
    SHOWN,
    escape_latex,
    latex_file,
    latex_label,
    latex_list,
    latex_table,
    latex_words,
)
from vitbench.comparing.select import select_runs

Cli = Callable[..., Output]
RESULTS = Path(__file__).parents[2] / "results"
HOSTILE = [
    *NASTY,
    r"a_b%$#{}~^\\&",
    "*starred",
    "[0.1]",
    "a--b---c ''q'' ``q`` ,,q,, <<q>> ?`!`",
    "\u2264 \u2265 \u00d7 \u00b1 \u2013 \u2014 \u2026 \u2192 \u2212 \u221e \u2020 \u2021",
    "\u732b \u03b1\u03b2 \u0105\u0119\u0111 \u00f0\u00fe \U0001f600",
    'the "quoted" one',
    r"\input{/etc/passwd}",
    "x" * 200,
    "many words " * 20,
    "_" * 120,
]
# what our LaTeX consists of; anything else has slipped through from a name
COMMANDS = {
    *re.findall(
        r"\\[A-Za-z]+",
        r"""\textbackslash \textasciitilde \textasciicircum \textless \textgreater \textbar \char
        \ifdefined \Umathchar \else \fi \allowbreak \begin \end \caption \label \item \sloppy \centering \small
        \footnotesize \scriptsize \tiny \raggedright \noindent \par \smallskip \setlength \tabcolsep
        \emergencystretch \LTcapwidth \linewidth \resizebox \ifdim \width \toprule \midrule \bottomrule
        \endfirsthead \endhead \endfoot""",
    ),
    *(f"\\{c}" for c in "\\{}$&#_%"),
}
MATHS = {r"$\pm$", r"$\dagger$", r"$\ddagger$", r"$\le$", r"$\ge$", r"$\approx$", r"$\ne$", r"$-$", r"$\infty$"}


def results() -> Iterator[str]:
    """Every table and every fit of the committed studies; `vitbench report check=true` says that they are current."""
    yield from (path.read_text() for path in sorted(RESULTS.glob("*/*.tex")))


def hostile(folder: Path, vitbench: Cli) -> Iterator[str]:
    """Tables whose names are of the worst kind: those of groups, of classes, of who is taken for whom, and of a fit."""
    for i, name in enumerate(HOSTILE):
        fake_runs.write(folder / "runs", str(i), 0.5, **{"data.name": name})
    yield printed(folder / "runs", "tex")
    yield printed(folder / "runs", "tex", value=["test_accuracy", "test_loss"], rows="data")
    yield printed(folder / "runs", "tex", columns="data")
    labels = np.arange(2 * len(HOSTILE), dtype=np.int16) % len(HOSTILE)
    facts = {"result_classes": HOSTILE, "result_test_images": len(labels)}
    run = fake_runs.write(folder / "classes", "a", 0.5, **facts)
    np.save(run / "labels.npy", labels)
    np.save(run / "predictions.npy", np.roll(labels, len(labels) // 4))
    for per in ("class", "confusion"):
        done = vitbench("table", f"per={per}", "runs=classes", "format=tex")
        assert done.code == 0, done.err
        yield done.out
    rows = [[name, "-1.5", "0.25-3,368", "-"] for name in HOSTILE]
    for count in (1, 8):  # one page, and several
        words, sentences = latex_words(HOSTILE), latex_list(HOSTILE)
        table = latex_table(["a name", *HOSTILE[5:7], "n"], rows * count, 1, words, words)
        yield latex_file([table, *sentences])


@pytest.fixture
def tables(tmp_path: Path, vitbench: Cli) -> list[str]:
    return [*results(), *hostile(tmp_path, vitbench)]


def faults(text: str) -> list[str]:
    """What a compiler would refuse or misread, found by reading the text as TeX does."""
    first, _, body = text.partition("\n")
    if body.startswith("% "):  # the title of a study
        body = body.partition("\n")[2]
    declared = re.fullmatch(r"% \\usepackage\{([a-z,]+)\}", first)
    needed = [package for package, used in PACKAGES.items() if used in body]
    found = [] if declared and declared[1].split(",") == needed else [f"packages: {first}"]
    for allowed in (*MATHS, "{`}"):
        body = body.replace(allowed, "")
    body = body.replace(r"{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", "{")
    tokens = re.findall(r"\\[A-Za-z]+|\\.|[^\\]", body, re.DOTALL)
    found += [f"command {t}" for t in tokens if t[0] == "\\" and t not in COMMANDS]
    found += [f"letter {t}" for t in tokens if t in '#$%_^~<>|"`' or (not t.isprintable() and t != "\n")]
    depth = 0
    for token in tokens:
        depth += (token == "{") - (token == "}")
        found += ["closed too early"] if depth < 0 else []
    found += [f"{depth} braces open"] if depth else []
    pdflatex = re.sub(r"\\ifdefined\\Umathchar .*?\\else (.*?)\\fi\{\}", r"\1", body, flags=re.DOTALL)
    found += [f"letter {c}" for c in pdflatex if c > "~" and SHOWN.get(c) != c]
    open_: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if what == "begin":
            open_.append(name)
        elif not open_ or open_.pop() != name:
            found.append(f"\\end{{{name}}}")
    found += [f"open: {open_}"] if open_ else []
    return [*found, *_uneven_rows(body)]


def _uneven_rows(body: str) -> list[str]:
    """Rows that have more or fewer cells than their table has columns."""
    within = r"\\begin\{tabular\}\[[bt]\]\{@\{\}[lr]@\{\}\}.*?\\end\{tabular\}"
    found = []
    for _, spec, rows in re.findall(
        r"\\begin\{(tabular|longtable)\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\\end\{\1\}",
        re.sub(within, "cell", body),
        re.DOTALL,
    ):
        lines = [line for line in rows.splitlines() if not re.match(r"\\([a-z]+rule|end[a-z]+|caption.*)$", line)]
        cells = [len(re.findall(r"(?<!\\)(?:\\\\)*&", line)) + 1 for line in lines]
        found += [f"{line}: not {len(spec)} cells" for line, n in zip(lines, cells, strict=True) if n != len(spec)]
        found += [f"{line}: no end" for line in lines if not line.endswith(r" \\")]
    return found


def test_without_a_compiler_every_table_has_even_rows_closed_braces_and_escaped_names(tables: list[str]) -> None:
    assert len(tables) > 55
    for text in tables:
        assert faults(text) == [], text


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (r"1.50 \\", r"1.50 & 2 \\"),
        (r"a\_b", "a_b"),
        ("{booktabs", "{tabular"),
        (r"\end{table}", ""),
        (r"\_b", r"\unknown b"),
        ("1.50", "1.50}"),
        ("1.50", "\u2264"),
    ],
)
def test_each_fault_is_found(right: str, wrong: str) -> None:
    text = latex_file([latex_table(["name", "n"], [["a_b", "1.50"]], 1, "Words.", "")])
    assert faults(text) == [] and right in text
    assert faults(text.replace(right, wrong, 1))


def test_numbers_get_the_signs_of_print_and_names_keep_theirs() -> None:
    rows = latex_table(["name", "n", "range"], [["-1", "-1.5", "2-3"], ["a-1", "-", "1e-05"]], 1, "", "").splitlines()
    assert r"-1 & $-$1.5 & 2--3 \\" in rows and r"a-1 & -- & 1e-05 \\" in rows


def test_a_wide_table_stands_sideways_and_a_tall_one_goes_on_on_the_next_page() -> None:
    def environment(columns: int, lines: int) -> str:
        return latex_table(["long head"] * columns, [["12.34 ± 5.6"] * columns] * lines, 0, "", "").splitlines()[0]

    assert [environment(3, 3), environment(12, 3)] == [r"\begin{table}", r"\begin{sidewaystable}"]
    assert environment(12, 60) == r"\begin{landscape}" and environment(3, 60).startswith(r"{\small")


def test_what_pdflatex_cannot_print_is_shown_by_its_code() -> None:
    assert escape_latex("a \u732b\u3068") == "a \\ifdefined\\Umathchar \u732b\u3068\\else {[}U+732B U+3068{]}\\fi{}"
    assert escape_latex("--") == "-{}-" and escape_latex("\u00fc\u00d7") == "\u00fc\u00d7"


def compile_all(tables: list[str], folder: Path) -> str:
    """Makes a document of all tables; returns what the compiler said."""
    document = [r"\documentclass{article}", rf"\usepackage{{{','.join(PACKAGES)}}}", r"\begin{document}"]
    for i, text in enumerate(tables):
        (folder / f"table{i}.tex").write_text(text, encoding="utf-8")
        document.append(rf"\input{{table{i}}}\clearpage")
    (folder / "all.tex").write_text("\n".join([*document, r"\sloppy\listoftables", r"\end{document}"]))
    compiler = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error"] if shutil.which("pdflatex") else ["tectonic"]
    for _ in range(2):  # the second time with the list of tables
        done = subprocess.run([*compiler, "all.tex"], cwd=folder, capture_output=True, timeout=600)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, said[-3000:]
    return said


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("pdflatex") or shutil.which("tectonic")), reason="there is no LaTeX here")
def test_a_compiler_takes_every_table_and_none_is_larger_than_its_page(tables: list[str], tmp_path: Path) -> None:
    said = compile_all(tables, tmp_path)
    assert (tmp_path / "all.pdf").stat().st_size > 50_000
    assert not re.findall(r"Overfull \\[hv]box \((?:[5-9]|\d\d+)\.?\d*pt.*|Float too large.*|Missing character.*", said)


def test_a_table_has_a_label_of_safe_letters_and_a_caption_that_is_a_sentence(tmp_path: Path, vitbench: Cli) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=3)
    out = vitbench("table", "format=tex", "columns=data.fraction").out
    caption = r"Test accuracy in \%, mean $\pm$ 95 \% interval over 3 seeds, of runs with data=shapes, "
    assert rf"\caption{{{caption}" in out and r"and steps=120.}\label{tab:test-accuracy}" in out
    several = vitbench("table", "format=tex", "value=[test_accuracy,test_loss]").out
    assert r"\caption{Test accuracy and 1 other result, mean" in several and r"\label{tab:test-accuracy}" in several
    assert latex_label("my_study", "a b%") == "tab:my-study-a-b" and latex_label("\u732b") == "tab:results"


def test_each_table_of_a_study_has_a_label_of_its_own(tmp_path: Path, vitbench: Cli) -> None:
    runs = select_runs(str(fake_runs.quickstart(tmp_path / "runs", seeds=3)), {})
    (tmp_path / "runs.csv").write_text(evidence_text(runs, {}))
    (tmp_path / "mine.yaml").write_text("runs: [model=vit seed=0]\ntables: {accuracy: {value: test_accuracy}}\n")
    asked = ["study=mine.yaml", "runs=runs.csv", "format=tex"]
    typed, against, fitted = (
        re.findall(r"\\label\{(.*?)\}", vitbench(*words, *asked).out)
        for words in (["table"], ["table", "against=model=resnet"], ["fit"])
    )
    assert (typed, against) == (["tab:mine-accuracy"], ["tab:mine-accuracy-against"])
    assert fitted[0] == "tab:mine-fit-curves" and len({*fitted}) == len(fitted) > 2
    vitbench("table", "file=seeds.tex")
    assert r"\label{tab:seeds-test-accuracy}" in (tmp_path / "seeds.tex").read_text()


def test_costs_stand_below_a_table_that_they_would_make_too_wide(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=2)
    for i in range(3):  # more columns
        fake_runs.write(tmp_path / "runs", f"more{i}", 0.6, **{"model.name": "resnet", "data.fraction": 0.3 + i / 10})
    wide = printed(tmp_path / "runs", "tex", columns="data.fraction")
    assert "params" not in wide and "resnet: 0.11 M parameters and 15.9 M multiply-adds an image." in wide
    assert "vit pe=none and vit pe=learned: 0.45 M parameters" in wide and "Training took 10 seconds a run." in wide
    narrow = printed(tmp_path / "runs", "tex", columns="data.fraction", where={"data.fraction": 1})
    assert "& params & MACs & seconds" in narrow and "multiply-adds an image" not in narrow


def test_results_side_by_side_become_lines_where_only_so_they_stand_upright(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=2)
    values = ["test_accuracy", "test_loss", "train_loss", "train_seconds", "images_per_second", "steps", "parameters"]
    out = printed(tmp_path / "runs", "tex", value=values, rows="model", where={"data.fraction": 1})
    assert r"\begin{table}" in out and "\ntest accuracy, \\% & " in out and " & resnet" in out
