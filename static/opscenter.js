// Small conveniences. Every page works without them, except copying and dialogs, which are then selection and pages.
(() => {
  const dialog = document.getElementById("dialog");

  // Menus close like menus do.
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  async function copy(text, source) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    // Over plain HTTP browsers offer no clipboard object.
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    if (!document.execCommand("copy")) throw new Error("copying is not possible");
    return undefined;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = button.closest(".copyable").querySelector("pre, code");
    const label = button.querySelector("[data-copy-label]");
    try {
      await copy(source.textContent, source);
      label.textContent = "Copied";
    } catch {
      label.textContent = "Select and copy";
    }
    setTimeout(() => (label.textContent = "Copy"), 2000);
  });

  document.addEventListener("click", (event) => event.target.closest("[data-dismiss]")?.closest(".alert").remove());

  let shown = null; // the title of what is in the dialog

  // What htmx puts into the dialog is shown as one.
  document.addEventListener("htmx:after:swap", () => {
    const body = document.getElementById("dialog-body");
    if (!body.childElementCount) return;
    const title = body.querySelector("h2");
    dialog.setAttribute("aria-label", title.textContent.trim());
    if (!dialog.open) dialog.showModal();
    else if (title !== shown) body.querySelector("[aria-invalid=true], h2").focus(); // what had the focus is gone
    shown = title;
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-close]") || !dialog.open) return;
    event.preventDefault();
    dialog.close();
  });
  document.addEventListener("close-dialog", () => dialog.close()); // the server says so by HX-Trigger
  dialog.addEventListener("close", () => {
    document.getElementById("dialog-body").replaceChildren();
    document.body.dispatchEvent(new CustomEvent("dialog-closed"));
  });

  // A table that refreshes itself waits while somebody reads a row or selects some.
  document.addEventListener("htmx:config:request", (event) => {
    const source = event.detail.ctx.sourceElement;
    if (!source.matches("[data-wait-for-reader]")) return;
    if (source.querySelector("details[open], input[type=checkbox]:checked")) event.preventDefault();
  });

  // One box for all boxes of a list.
  document.addEventListener("change", (event) => {
    const all = event.target.closest("[data-select-all]");
    if (!all) return;
    for (const box of all.form.querySelectorAll(`input[name=${all.dataset.selectAll}]`)) box.checked = all.checked;
  });

  // A file is read into a text field, where it is seen before it is sent.
  document.addEventListener("change", async (event) => {
    const source = event.target.closest("[data-read-into]");
    if (source?.files.length) document.getElementById(source.dataset.readInto).value = await source.files[0].text();
  });
})();
