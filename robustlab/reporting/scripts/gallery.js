// The gallery's filters, kept in the fragment. A cell of the confusion tables filters it, too.
{
  const galleries = [...document.querySelectorAll(".examples")].map((gallery, number) => {
    const form = gallery.querySelector("form.filters");
    const fields = [...form.querySelectorAll("select")];
    const items = [...gallery.querySelectorAll("li[data-model]")];
    const shown = form.querySelector("output");
    const clear = form.querySelector("button");
    form.hidden = false;

    const fits = (item, { name, value }) =>
      value === "" || (name === "attack" ? item.dataset.attack.split(" ").includes(value) : item.dataset[name] === value);

    const key = (field) => `${field.name}${number || ""}`; // of each gallery its own
    const has = (field, value) => [...field.options].some((option) => option.value === value);
    const isFiltered = () => fields.some((field) => field.value !== "");

    const apply = () => {
      const filtered = isFiltered();
      for (const item of items) item.hidden = !fields.every((field) => fits(item, field));
      const left = items.filter((item) => !item.hidden).length;
      shown.textContent = `${left} of ${items.length} shown`;
      clear.hidden = !filtered;
      gallery.classList.toggle("none-left", left === 0);
      for (const group of gallery.querySelectorAll(".of-model")) {
        group.hidden = filtered && !group.querySelector("li[data-model]:not([hidden])");
        for (const more of group.querySelectorAll("details.more")) more.open = filtered;
      }
    };

    const keep = () => {
      apply();
      fragment.set(Object.fromEntries(fields.map((field) => [key(field), field.value])));
    };

    const set = (values) => {
      for (const field of fields) {
        const value = values[field.name] ?? "";
        // a class of which no example is shown: the filter still says what was asked for
        if (!has(field, value)) field.add(new Option(`class ${value}`, value));
        field.value = value;
      }
      keep();
    };

    form.addEventListener("change", keep);
    form.addEventListener("submit", (event) => event.preventDefault());
    clear.addEventListener("click", () => {
      set({});
      fields[0].focus();
    });
    apply();
    fragment.follow((values) => {
      for (const field of fields) {
        const value = values.get(key(field)) ?? "";
        field.value = has(field, value) ? value : "";
      }
      apply();
      if (isFiltered()) form.scrollIntoView({ block: "start" });
    });
    return { form, set, clear, models: new Set(items.map((item) => item.dataset.model)), run: gallery.dataset.run };
  });

  const filterBy = (cell) => {
    const { model, run } = cell.dataset;
    const gallery = galleries.find((one) => one.models.has(model) && (run === undefined || run === one.run));
    if (!gallery) return;
    gallery.set(cell.dataset);
    gallery.form.scrollIntoView({ block: "start" });
    gallery.clear.focus({ preventScroll: true });
  };

  const cells = "[data-model][data-true][data-predicted]:not(li)";
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(cells);
    if (cell) filterBy(cell);
  });
  document.addEventListener("keydown", (event) => {
    const cell = event.target.closest(cells);
    if (!cell || cell.tagName === "BUTTON" || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    filterBy(cell);
  });
}
