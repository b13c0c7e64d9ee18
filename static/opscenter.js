// Small conveniences. Every page works without them, except copying and dialogs, which are then selection and pages.
// What they say is in the pages, where it is translated.
(() => {
  const dialog = document.getElementById("dialog");

  // Menus close like menus do.
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("focusout", (event) => {
    const menu = event.relatedTarget && event.target.closest("details.menu[open]");
    if (menu && !menu.contains(event.relatedTarget)) menu.open = false; // it would cover what has the focus now
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
    button.dataset.copy ||= label.textContent;
    try {
      await copy(source.textContent, source);
      label.textContent = button.dataset.copied;
    } catch {
      label.textContent = button.dataset.failed;
    }
    setTimeout(() => (label.textContent = button.dataset.copy), 2000);
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

  // What refreshes itself waits while somebody reads a row, selects some or a part of a chart; also with an answer under way.
  for (const moment of ["htmx:config:request", "htmx:before:swap"]) {
    document.addEventListener(moment, (event) => {
      const source = event.detail.ctx.sourceElement;
      if (!source.matches("[data-wait-for-reader]")) return;
      if (source.querySelector("details[open], input[type=checkbox]:checked, [data-chart]:active")) event.preventDefault();
    });
  }

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

  // A file may be dropped beside its field; its name is a proposal for the model's.
  const dropAt = (event) => event.target.closest?.("[data-drop]");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      const area = dropAt(event);
      if (!area) return;
      event.preventDefault();
      area.classList.toggle("is-over", kind === "dragover");
      if (kind !== "drop" || !event.dataTransfer.files.length) return;
      const field = document.getElementById(area.dataset.drop);
      field.files = event.dataTransfer.files;
      field.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }
  document.addEventListener("change", (event) => {
    const name = document.getElementById(event.target.closest("[data-drop]")?.dataset.dropName);
    if (!name || name.value || !event.target.files?.length) return;
    name.value = event.target.files[0].name.replace(/\.[^.]*$/, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63);
  });

  const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`);

  // The answer of an upload: where to go on, the form with what is wrong, or a refusal.
  function uploaded(form, request) {
    const next = request.getResponseHeader("HX-Redirect");
    if (next) {
      location.assign(next);
    } else if (request.status === 422) {
      const files = form.querySelector("input[type=file]").files;
      const told = new DOMParser().parseFromString(request.responseText, "text/html").querySelector("form[data-upload]").closest(".card");
      form.closest(".card").replaceWith(told);
      told.querySelector("input[type=file]").files = files;
      told.querySelector("[aria-invalid=true]")?.focus();
    } else {
      failed(form, request.responseText);
    }
  }

  function failed(form, notice) {
    form.querySelector("[data-upload-progress]").hidden = true;
    form.querySelector("button[type=submit]").disabled = false;
    document.getElementById("toasts").innerHTML = notice || form.querySelector("[data-upload-broken]").innerHTML;
  }

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-upload]");
    if (!form) return;
    event.preventDefault();
    const line = form.querySelector("[data-upload-progress]");
    line.hidden = false;
    form.querySelector("button[type=submit]").disabled = true;
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      line.querySelector("progress").value = (loaded * 100) / total;
      line.querySelector("[data-upload-bytes]").textContent = form.dataset.of.replace("{done}", size(loaded)).replace("{all}", size(total));
      if (loaded === total) line.querySelector("[data-upload-step]").textContent = form.dataset.reading;
    });
    request.addEventListener("load", () => uploaded(form, request));
    request.addEventListener("error", () => failed(form));
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    request.send(new FormData(form));
  });
})();
