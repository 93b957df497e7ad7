"""The glossary: the terms a newcomer trips over, marked where a section first uses them, and listed at the end."""

from __future__ import annotations

import re
from typing import NamedTuple

from markupsafe import Markup, escape


class Term(NamedTuple):
    """A term: the key of its anchor, its name, how it is written in the page (a regular expression), what it means."""

    key: str
    name: str
    written: str
    means: str


TERMS = (
    Term(
        "clean-accuracy",
        "Clean accuracy",
        "clean accuracy",
        "The share of all images that the model classifies right as they are, without an attack.",
    ),
    Term(
        "robust-accuracy",
        "Robust accuracy",
        "robust accuracy",
        "The share of all images that the model classifies right and that stay right under every attack of the suite."
        " A better attack can only lower it.",
    ),
    Term(
        "budget",
        "Budget, ε (eps)",
        "ε|budgets?",
        "How much the attack may change an image. With L∞ and ε = 8/255, each value of each pixel may change by at most"
        " 8 of the 255 steps of a usual image file.",
    ),
    Term(
        "norm",
        "Norm: L∞, L2, L1, L0",
        "L∞|L[210]",
        "How the size of a change is measured. L∞: the largest change of any value. L2: the root of the sum of the"
        " squares of all changes. L1: their sum. L0: how many pixels change.",
    ),
    Term(
        "suite",
        "Suite",
        "suites?",
        "Several attacks, run one after the other. An image withstands the suite if it withstands all of them.",
    ),
    Term(
        "worst-case",
        "Worst case",
        "worst case",
        "For each image, the attack that does the most harm counts: one success of any attack, and the image is lost.",
    ),
    Term(
        "white-box",
        "White box, black box",
        "(?:white|black)[ -]box",
        "White box: the attacker sees the model, its weights and gradients. Black box: only its answers.",
    ),
    Term(
        "autoattack",
        "APGD, AutoAttack",
        r"apgd(?:-\w+)*|autoattack(?:-\w+)*",
        "APGD follows the gradient and chooses its own step size. AutoAttack is a widely used suite of four attacks:"
        " two kinds of APGD, FAB, and Square, which needs no gradient.",
    ),
    Term(
        "interval",
        "95 % interval",
        r"95\s%\s(?:\w+\s)?intervals?",
        "Other images would give a somewhat different number. The interval shows how different: an interval made this"
        " way contains the true share in about 95 of 100 repetitions. Fewer images, wider interval.",
    ),
    Term(
        "mcnemar",
        "McNemar's test, p",
        r"McNemar(?:’s|'s|&#39;s)?",
        "Asks whether two models differ on the same images. p is the probability of a difference at least this large if"
        " both were equally good. Holm's correction makes up for looking at many pairs.",
    ),
    Term(
        "transfer",
        "Transfer",
        "transfer(?:s|red)?",
        "Images that were made to fool one model often fool another one, too. An attack by transfer uses that: it never"
        " sees the model that it attacks.",
    ),
    Term(
        "adaptive",
        "Adaptive attack",
        "adaptive attacks?|knows? (?:of )?the (?:defense|detector)|attack knows",
        "An attack made for a certain defense, by one who knows how it works. A defense that was never attacked"
        " this way has not been tested.",
    ),
    Term(
        "masking",
        "Gradient masking",
        "gradient masking|gradients? (?:that )?(?:is|are) zero",
        "The gradients of the model lead an attack astray, so that it fails. The model seems robust and is not: an"
        " attack that needs no gradient, or a better one, succeeds.",
    ),
    Term(
        "auroc",
        "AUROC, TPR, FPR",
        "AUROC|TPR|FPR",
        "Of a detector or filter. TPR: the share of the bad images that it finds. FPR: the share of the good ones that"
        " it takes for bad. AUROC sums up all thresholds: 1 tells all apart, 0.5 is a coin.",
    ),
    Term(
        "trigger",
        "Backdoor, trigger, poison",
        "backdoors?|triggers?|poison(?:s|ed)?",
        "Who puts poisons (changed images) into the training data can build in a backdoor: the model works as it"
        " should, until it sees the trigger, a certain pattern; then it gives the answer that the attacker wants.",
    ),
    Term(
        "grad-cam",
        "Grad-CAM",
        "grad-cam",
        "A heatmap of the places of the image that spoke for a class. It shows where the model looked, not why.",
    ),
)
# whole words, and no parts of names such as example-backdoor
_WRITTEN = re.compile(
    r"(?<![\w/.:+-])(?:" + "|".join(f"({term.written})" for term in TERMS) + r")(?![\w/:+-])", re.IGNORECASE
)
_TAG = re.compile(r"(<[^>]*>)")
_SECTION = re.compile(r"<(?:section|h2)\b")
# no link in what is one itself, is no prose, or is a name
_BARE = re.compile(
    r"<(/?)(script|style|svg|nav|dialog|form|h1|h2|h3|a|button|label|summary|code|pre|q|cite|b|thead|title)\b"
)


def with_terms(body: Markup) -> Markup:
    """The body of a page: the first use of each term in each section is a link, and the terms are listed at the end.

    >>> print(with_terms(Markup("<main><p>Its robust accuracy; robust accuracy.</p></main>")).split("<section")[0])
    <main><p>Its <a class="term" href="#term-robust-accuracy">robust accuracy</a>; robust accuracy.</p>
    """
    seen: set[Term] = set()
    used: set[Term] = set()
    inside = 0  # how many elements without links are open

    def link(found: re.Match[str]) -> str:
        term = TERMS[(found.lastindex or 1) - 1]
        if term in seen:
            return found[0]
        seen.add(term)
        used.add(term)
        return f'<a class="term" href="#term-{term.key}">{found[0]}</a>'

    parts = _TAG.split(body)
    for at, part in enumerate(parts):
        if at % 2 == 0:
            parts[at] = part if inside else _WRITTEN.sub(link, part)
            continue
        if _SECTION.match(part):
            seen.clear()
        if bare := _BARE.match(part):
            inside += -1 if bare[1] else 1
    html = "".join(parts)
    listed = "".join(
        f'<div id="term-{term.key}"><dt>{escape(term.name)}</dt><dd>{escape(term.means)}</dd></div>\n'
        for term in TERMS
        if term in used
    )
    glossary = (
        '<section id="glossary" aria-labelledby="glossary-title">\n<h2 id="glossary-title">Glossary</h2>\n'
        f'<dl class="glossary">\n{listed}</dl>\n</section>\n'
    )
    if used:
        html = html.replace("</nav>", '<a href="#glossary">Glossary</a>\n</nav>').replace(
            "</main>", f"{glossary}</main>"
        )
    return Markup(html)
