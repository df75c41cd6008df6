// Light or dark, the Run that the address names, and the start of all.
//
// Uses: byId of elements.js, byRunId and startRuns of runs.js, showDetail of detail.js,
//   startCompare of compare.js.
// Gives: nothing. It is the last script, so that all constants of the others are there.

const startTheme = () => {
  const button = byId("theme");
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  try { // some browsers store nothing for a page that is a file
    const kept = localStorage.getItem("tsv-bench-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* then the reader chooses each time */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("tsv-bench-theme", root.dataset.theme);
    } catch { /* as above */ }
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
