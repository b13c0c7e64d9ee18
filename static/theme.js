// Loaded before anything is painted: the page never flashes in the other theme.
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage may be forbidden; then the system decides
    }
  };
  const apply = () => root.setAttribute("data-bs-theme", chosen() ?? (system.matches ? "dark" : "light"));
  root.classList.add("js");
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply); // chosen in another tab
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    const next = root.getAttribute("data-bs-theme") === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", next);
    } catch {
      // it lasts until the next page then
    }
    root.setAttribute("data-bs-theme", next);
  });
})();
