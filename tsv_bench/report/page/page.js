// Light or dark, the part that the address names, and the start.

const startTheme = () => {
  const button = byId("theme");
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  try { // some browsers keep nothing for files
    const kept = localStorage.getItem("tsv-bench-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* then it is chosen anew each time */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("tsv-bench-theme", root.dataset.theme); } catch { /* as above */ }
    show();
  });
  system.addEventListener("change", show);
  show();
};

// #run=<id> opens a Run, so that an address can be passed on.
const followAddress = () => {
  const named = /^#run=(.+)$/.exec(location.hash);
  const run = named && byRunId.get(decodeURIComponent(named[1]));
  if (run) showDetail(run);
};

startTheme();
startRuns();
startCompare();
window.addEventListener("hashchange", followAddress);
followAddress();
