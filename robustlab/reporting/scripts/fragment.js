// What the page shows (filters, a sorted column, the enlarged example) stands in its address after #view?, to be shared.
// Each part has keys of its own and takes only values that it knows. Any other fragment is an ordinary anchor.
const fragment = (() => {
  const START = "#view?";
  const parts = [];
  const ours = () => location.hash.startsWith(START);
  const read = () => new URLSearchParams(ours() ? location.hash.slice(START.length) : "");

  addEventListener("hashchange", () => {
    if (ours()) for (const part of parts) part(read());
  });

  return {
    // part(values) is called now, and whenever the address is changed by hand.
    follow(part) {
      parts.push(part);
      if (ours()) part(read());
    },
    // changes: values by key; "" takes the key out.
    set(changes) {
      const values = read();
      for (const [key, value] of Object.entries(changes)) {
        if (value === "") values.delete(key);
        else values.set(key, value);
      }
      const text = String(values);
      if (text === "" && !ours()) return;
      try {
        history.replaceState(null, "", text === "" ? location.pathname + location.search : START + text);
      } catch {
        // in a frame without an address of its own (a notebook) there is nothing to share
      }
    },
  };
})();
