// Plays the pair on screen. Runs as `onload` of the sprite sheet, hence also in Voila and after a page reload: `this` is
// the image (frames stacked vertically, first segment left, second right), and widget.py sets data-*.
const sheet = this, box = sheet.parentElement, root = sheet.closest(".prefvlm-labeller");
const panes = [...box.querySelectorAll("canvas")], scrubber = box.querySelector("input");
const frames = Number(sheet.dataset.frames), swapped = Number(sheet.dataset.swapped);

if (!root.hasAttribute("tabindex")) {  // first image of this view: register keys and clicks
  root.tabIndex = 0;
  const keys = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "equal", ArrowDown: "skip", Backspace: "undo"};
  const onKey = (event) => {
    if (!root.isConnected) return window.removeEventListener("keydown", onKey, true);
    const name = keys[event.key];
    const typing = event.target.matches("input:not([type=range]), textarea");
    if (!name || typing || !root.contains(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();  // in JupyterLab the same keys move between cells
    if (!event.repeat) root.querySelector(`.prefvlm-${name}`).click();
  };
  window.addEventListener("keydown", onKey, true);
  root.addEventListener("click", (event) => {
    if (!event.target.closest(".prefvlm-choice")) return;
    if (root.waiting) return event.stopImmediatePropagation();  // a second click would answer a pair nobody has seen
    root.waiting = performance.now();
  }, true);
  root.addEventListener("pointerdown", () => { root.focused = root.contains(document.activeElement); }, true);
  root.addEventListener("pointerup", (event) => { if (!event.target.matches("input, textarea")) root.focus(); });
}

let frame = 0, playing = true;
const draw = () => {
  scrubber.value = frame;
  panes.forEach((pane, side) => {
    const width = sheet.naturalWidth / 2, height = sheet.naturalHeight / frames, column = swapped ? 1 - side : side;
    pane.getContext("2d").drawImage(sheet, column * width, frame * height, width, height, 0, 0, pane.width, pane.height);
  });
};
if (frames) {
  scrubber.oninput = () => { playing = false; frame = Number(scrubber.value); draw(); };
  panes.forEach((pane) => { pane.onclick = () => { playing = playing !== root.focused; }; });  // the first only focuses
  let rest = 0;
  const timer = setInterval(() => {
    if (!sheet.isConnected) return clearInterval(timer);
    if (!playing) return;
    if (frame === frames - 1 && rest < 5) { rest += 1; return; }  // half a second to see how it ends
    rest = 0;
    frame = (frame + 1) % frames;
    draw();
  }, 100);
  draw();
}
if (root.waiting) root.dataset.milliseconds = Math.round(performance.now() - root.waiting);
root.waiting = 0;
root.dataset.shown = sheet.dataset.shown;
const active = document.activeElement;
if (!active || active === document.body || root.contains(active)) root.focus({preventScroll: true});
