// What a term means, beside it: while the pointer or the focus is on it, or after a tap; Escape takes it away.
// Without this script a term is a link to the glossary, and so it is with it.
{
  const tip = document.createElement("p");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let shown = null;
  let leaving = null;

  const hide = () => {
    clearTimeout(leaving);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    tip.hidden = true;
  };

  const show = (term) => {
    clearTimeout(leaving);
    if (term === shown) return;
    hide();
    shown = term;
    tip.textContent = document.getElementById(term.hash.slice(1)).querySelector("dd").textContent;
    tip.style.left = 0; // or the width would depend on where it was
    tip.hidden = false;
    term.setAttribute("aria-describedby", tip.id);
    const place = [...term.getClientRects()].at(-1);
    const below = place.bottom + tip.offsetHeight + 8 < innerHeight || place.top < tip.offsetHeight + 8;
    tip.style.left = `${scrollX + Math.max(8, Math.min(place.left, document.body.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${scrollY + (below ? place.bottom + 6 : place.top - tip.offsetHeight - 6)}px`;
  };

  const leave = () => {
    leaving = setTimeout(hide, 200); // time to go over to the tip
  };
  tip.addEventListener("pointerenter", () => clearTimeout(leaving));
  tip.addEventListener("pointerleave", leave);
  for (const term of document.querySelectorAll("a.term")) {
    term.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(term));
    term.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
    term.addEventListener("focus", () => term.matches(":focus-visible") && show(term));
    term.addEventListener("blur", hide);
    term.addEventListener("click", (event) => {
      if (event.pointerType !== "touch" || term === shown) return hide();
      event.preventDefault(); // the first tap explains, the second one follows the link
      show(term);
    });
  }
  document.addEventListener("pointerdown", (event) => {
    if (shown && !shown.contains(event.target) && !tip.contains(event.target)) hide();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
