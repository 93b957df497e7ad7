// An example, large: one picture of it at a time, blinking between clean and attacked, and on to the next one.
{
  const dialog = document.getElementById("zoom");
  const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
  const every = [...document.querySelectorAll(".examples li[data-model]")]; // in the fragment one of them is a number
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let items = [];
  let at = 0;
  let timer = null;

  const copy = (picture) => {
    const twin = picture.cloneNode(true);
    for (const one of twin.querySelectorAll("[id]")) one.removeAttribute("id"); // the page has that id already
    return twin;
  };

  const show = (view) => {
    const pictures = [...items[at].querySelectorAll("[data-view]")];
    const chosen = pictures.find((picture) => picture.dataset.view === view) ?? pictures[0];
    part("picture").replaceChildren(copy(chosen));
    part("caption").textContent = chosen.getAttribute("aria-label");
    dialog.dataset.view = chosen.dataset.view;
    for (const button of part("views").children) {
      button.setAttribute("aria-pressed", String(button.dataset.show === chosen.dataset.view));
    }
  };

  const blink = (on) => {
    clearInterval(timer);
    timer = null;
    part("blink").setAttribute("aria-pressed", String(on && !still.matches));
    if (!on) return;
    const flip = () => show(dialog.dataset.view === "adv" ? "clean" : "adv");
    flip();
    if (still.matches) return; // who wants no motion gets one swap at a time
    timer = setInterval(flip, 600);
  };

  const go = (to) => {
    blink(false);
    at = (to + items.length) % items.length;
    const item = items[at];
    part("title").replaceChildren(...copy(item.querySelector(".said")).childNodes);
    part("told").textContent = item.querySelector(".tag").textContent;
    part("place").textContent = `${at + 1} of ${items.length}`;
    part("views").replaceChildren(
      ...[...item.querySelectorAll("[data-view]")].map((picture) => {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.show = picture.dataset.view;
        button.title = picture.getAttribute("aria-label");
        button.append(copy(picture));
        button.addEventListener("click", () => {
          blink(false);
          show(picture.dataset.view);
        });
        return button;
      }),
    );
    show(dialog.dataset.view ?? "adv");
    fragment.set({ zoom: String(every.indexOf(item)) });
  };

  const open = (item) => {
    items = [...item.closest(".examples").querySelectorAll("li[data-model]:not([hidden])")];
    dialog.dataset.view = "adv";
    if (!dialog.open) dialog.showModal();
    go(items.indexOf(item));
  };

  for (const item of every) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.setAttribute("aria-label", `Enlarge sample ${item.dataset.id}`);
    button.addEventListener("click", () => open(item));
    item.querySelector(".strip").append(button);
  }

  if (dialog) {
    part("previous").addEventListener("click", () => go(at - 1));
    part("next").addEventListener("click", () => go(at + 1));
    part("blink").addEventListener("click", () => blink(timer === null));
    part("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      blink(false); // the browser gives the focus back
      fragment.set({ zoom: "" });
    });
    fragment.follow((values) => {
      const item = /^\d{1,4}$/.test(values.get("zoom") ?? "") ? every[values.get("zoom")] : undefined;
      if (!item || item.hidden) return dialog.close();
      const folded = item.closest("details");
      if (folded) folded.open = true;
      item.querySelector(".enlarge").focus(); // where it goes back to
      open(item);
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "ArrowRight") go(at + 1);
      else if (event.key === "ArrowLeft") go(at - 1);
      else if (event.key === "b") blink(timer === null);
      else return;
      event.preventDefault();
    });
  }
}
