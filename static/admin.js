// What unfold's pages lack for people without a mouse or without sight: its clickable spans and divs become buttons with
// names, its icons are no words, and fields that stand in tables are named by the head of their column.
(() => {
  const NAMES = {
    dock_to_right: "Show or hide the navigation",
    close: "Close the navigation",
    arrow_back: "Back to the list",
    search: "Search",
    cancel: "Remove from sorting",
    arrow_circle_down: "Toggle sorting",
    arrow_circle_up: "Toggle sorting",
    more_vert: "More actions",
    add: "Add",
    edit: "Change",
    delete: "Delete",
    visibility: "View",
    filter_list: "Filters",
  };
  const NATIVE = "a[href], button, input, select, textarea, label, summary, option";
  const ICON = ".material-symbols-outlined";

  const textOf = (element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll(ICON).forEach((icon) => icon.remove());
    return element.matches(ICON) ? "" : copy.textContent.trim();
  };
  const iconOf = (element) => (element.matches(ICON) ? element : element.querySelector(ICON))?.textContent.trim();
  const isNamed = (element) =>
    element.hasAttribute("aria-label") || element.hasAttribute("aria-labelledby") || textOf(element) !== "";

  function makeButton(element) {
    // What has no word and no icon is a backdrop, and what holds fields is no button.
    if (element.matches(NATIVE) || element.hasAttribute("role") || element.querySelector(NATIVE)) return;
    if (!textOf(element) && !iconOf(element)) return;
    element.setAttribute("role", "button");
    element.tabIndex = 0;
    element.addEventListener("keydown", (event) => {
      if (event.target !== element || (event.key !== "Enter" && event.key !== " ")) return;
      event.preventDefault();
      element.click();
    });
  }

  function name(element) {
    const icon = iconOf(element);
    if (isNamed(element) || !icon) return;
    element.setAttribute("aria-label", element.title || NAMES[icon] || icon.replaceAll("_", " "));
  }

  function nameCell(field) {
    if (field.type === "hidden" || field.labels?.length || field.hasAttribute("aria-label")) return;
    const cell = field.closest("td");
    const heads = cell?.closest("table")?.tHead?.rows[0]?.cells;
    const text = heads?.[cell.cellIndex]?.textContent.replace("*", "").trim();
    field.setAttribute("aria-label", text || (field.name.endsWith("-DELETE") ? "Delete" : field.name));
  }

  function nameSelect2(field) {
    const label = document.querySelector(`label[for="${CSS.escape(field.id)}"]`);
    const made = field.parentElement.querySelector(".select2-selection");
    const text = label?.textContent.replace("*", "").trim();
    if (!made || !text) return;
    for (const part of [made, made.querySelector(".select2-selection__rendered")]) {
      part?.removeAttribute("aria-labelledby");
      part?.setAttribute("aria-label", text);
    }
  }

  function amend() {
    const clicked = [...document.querySelectorAll("*")].filter((element) => element.hasAttribute("x-on:click"));
    clicked.forEach(makeButton);
    document.querySelectorAll('a[href], button, [role="button"]').forEach(name);
    document.querySelectorAll(ICON).forEach((icon) => {
      if (icon.getAttribute("role") !== "button") icon.setAttribute("aria-hidden", "true");
    });
    document.querySelectorAll("[data-inline-formset] :is(input, select, textarea)").forEach(nameCell);
    document.querySelectorAll("select.select2-hidden-accessible").forEach(nameSelect2);
    document.querySelectorAll('.simplebar-content-wrapper[role="region"]').forEach((box, index) => {
      box.setAttribute("aria-label", index ? `Scrollable part ${index + 1}` : "Scrollable part");
    });
    document.querySelectorAll("[data-inline-formset] thead th").forEach((head) => {
      if (head.textContent.trim()) return;
      const word = document.createElement("span");
      word.className = "sr-only";
      word.textContent = "Delete";
      head.append(word);
    });
    const search = document.getElementById("searchbar");
    if (search && !search.labels?.length) search.setAttribute("aria-label", search.placeholder || "Search");
  }

  window.addEventListener("load", () => {
    amend();
    // Rows and menus that come later.
    let waiting = false;
    new MutationObserver(() => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        amend();
      });
    }).observe(document.body, { childList: true, subtree: true });
  });
})();
