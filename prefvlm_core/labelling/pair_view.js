// Draws a pair and tells the kernel what the person does; see pair_view.py for what the model holds. Whatever comes from
// the database becomes text (textContent) or pixels, never markup.

const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "equal", ArrowDown: "skip", Backspace: "undo",
  " ": "pause", ",": "back", ".": "forward", 1: "speed", 2: "speed", 3: "speed",
};
const CHOICES = {
  left: ["← left", " is better", ""], equal: ["↑ equal", "", ""], skip: ["↓ can't tell", "", ""],
  right: ["right", " is better", " →"], undo: ["⌫", " undo", ""],
};  // what a narrow labeller leaves out is in the middle
const SIGNS = { left: "←", right: "→", equal: "↑", skip: "↓" };
const SPEEDS = { 1: 0.5, 2: 1, 3: 2 };
const FRAME_MS = 100;
const REST_FRAMES = 6;  // to see how it ends
const SOONEST_MS = 250;  // an answer sooner after a pair appears is the second half of a double press
const BUSY_MS = 3000;
const SILENT_MS = 10000;
const SETTLING_MS = 10000;
const TOUCHES = ["pointerdown", "keydown"];
const SMALLEST = 120;  // CSS pixels, as the next
const ABOVE = 90;  // kept free for a cell with two lines of code

const make = (tag, properties, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

class Player {
  // Plays both clips of a sprite sheet (frames stacked vertically, first segment left, second right) on two canvases.
  constructor() {
    this.sheet = null;
    this.frame = 0;
    this.rest = 0;
    this.speed = 2;
    this.playing = true;
    this.panes = ["Left clip", "Right clip"].map((name) => {
      const canvas = make("canvas", { role: "img", "aria-label": name, title: "play or pause" });
      canvas.onclick = () => this.pause();
      const mark = make("span", { className: "mark", "aria-hidden": "true" });
      return { canvas, mark, box: make("figure", { className: "pane" }, canvas, mark) };
    });
    this.button = make("button", { className: "play", type: "button", onclick: () => this.pause() });
    this.slider = make("input", { type: "range", min: 0, max: 1, value: 0, "aria-label": "Frame" });
    this.slider.oninput = () => { this.playing = false; this.go(Number(this.slider.value)); };
    this.place = make("span", { className: "place" });
    this.bar = make("div", { className: "player" }, this.button, this.slider, this.place);
    this.tick();
  }

  show(sheet, pair) {
    Object.assign(this, { sheet, pair, rest: 0, playing: true });
    this.slider.max = pair ? pair.frames - 1 : 1;
    this.go(0);
  }

  tick() {
    this.timer = setTimeout(() => this.tick(), FRAME_MS / SPEEDS[this.speed]);
    if (!this.sheet || !this.playing) return;
    const ended = this.frame === this.pair.frames - 1;
    if (ended && this.rest < REST_FRAMES) { this.rest += 1; return; }
    this.rest = 0;
    this.go(ended ? 0 : this.frame + 1);
  }

  pause() {  // at the end it plays again
    this.playing = !this.playing;
    this.go(this.playing && this.pair && this.frame === this.pair.frames - 1 ? 0 : this.frame);
  }

  step(by) {
    if (!this.pair) return;
    this.playing = false;
    this.go(Math.min(Math.max(this.frame + by, 0), this.pair.frames - 1));
  }

  go(frame) {
    this.frame = frame;
    const last = this.pair ? this.pair.frames - 1 : 1;
    const where = frame === 0 ? "start" : frame === last ? "end" : "";
    this.slider.value = frame;
    this.slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${last + 1}`);
    this.place.textContent = this.pair ? `${frame + 1}/${last + 1} · ${SPEEDS[this.speed]}×` : "";
    this.button.textContent = this.playing ? "❚❚" : "▶";
    this.button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.panes.forEach(({ canvas, mark, box }, side) => {
      mark.textContent = where;
      box.dataset.mark = this.sheet ? where : "";
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      if (!this.sheet) return context.clearRect(0, 0, canvas.width, canvas.height);
      const [width, height] = [this.sheet.width / 2, this.sheet.height / (last + 1)];
      const column = this.pair.swapped ? 1 - side : side;
      const from = [column * width, frame * height, width, height];
      context.drawImage(this.sheet, ...from, 0, 0, canvas.width, canvas.height);
    });
  }

  resize(side) {
    this.panes.forEach(({ canvas }) => {
      canvas.style.width = canvas.style.height = `${side}px`;
      canvas.width = canvas.height = Math.round(side * (window.devicePixelRatio || 1));  // sharp on any screen
    });
    this.go(this.frame);
  }
}

class View {
  constructor(model, el) {
    Object.assign(this, { model, sheets: {}, drawn: 0, pressed: 0, saving: null, heard: performance.now() });
    this.player = new Player();
    this.build();
    el.append(this.root);
    this.listen(el);
    ["clip_a", "clip_b"].forEach((place) => this.decode(place));
    this.describe();
    this.listRecent();
    this.show();
    model.send({ do: "ready" });
  }

  build() {
    const text = (name, role) => make("div", { className: name, ...role });
    const button = ([name, [before, long, after]]) => make(
      "button", { className: `choice ${name}`, type: "button", onclick: () => this.act(name) },
      before, make("span", { className: "long" }, long), after,
    );
    this.task = text("task");
    this.counts = text("counts");
    this.done = make("progress", { "aria-label": "Labels given" });
    this.state = text("state", { role: "status" });
    this.status = text("status", { role: "status" });
    this.buttons = Object.entries(CHOICES).map(button);
    this.recent = make("nav", { className: "recent", "aria-label": "Your last answers; press one to answer again" });
    this.help = text("help");
    const stage = make("div", { className: "stage" }, ...this.player.panes.map((pane) => pane.box), this.state);
    this.stage = stage;
    this.root = make(
      "section",
      { className: "prefvlm-labeller", tabIndex: 0, "aria-label": "Pair labeller" },
      make("header", {}, this.task, this.counts, this.done), stage, this.player.bar,
      make("div", { className: "choices" }, ...this.buttons),
      make("footer", {}, this.recent, this.status, this.help),
    );
  }

  listen(el) {
    const on = (names, act) => {
      const heard = () => { this.heard = performance.now(); act(); };
      this.model.on(names, heard);
      this.forget.push(() => this.model.off(names, heard));
    };
    this.forget = [];
    on("change:clip_a", () => this.decode("clip_a"));
    on("change:clip_b", () => this.decode("clip_b"));
    on("change:on_screen", () => this.show());
    on("change:words change:summary", () => this.describe());
    on("change:recent", () => this.listRecent());
    on("change:beat", () => {});
    this.onKey = (event) => { if (this.root.contains(event.target)) this.key(event); };
    window.addEventListener("keydown", this.onKey, true);  // before JupyterLab, where the same keys move between cells
    // The focus stays where the keys are, not on a button that space would press again.
    this.root.addEventListener("mousedown", (event) => {
      if (event.target.matches("input")) return;
      event.preventDefault();
      this.root.focus({ preventScroll: true });
    });
    this.fitting = new ResizeObserver(() => this.fit());
    [el, this.root, this.room()].forEach((element) => this.fitting.observe(element));
    this.appearing = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.appearing.disconnect();
      this.fit();
      this.root.scrollIntoView({ block: "nearest" });
      this.appeared = performance.now();
      this.takeFocus();
    });
    // While JupyterLab restores a page, it gives the focus to the notebook.
    this.root.addEventListener("focusout", () => {
      const settling = this.appeared && performance.now() - this.appeared < SETTLING_MS;
      if (settling && !this.touched) setTimeout(() => this.takeFocus());
    });
    this.onTouch = () => { this.touched = true; };
    TOUCHES.forEach((name) => window.addEventListener(name, this.onTouch, true));
    this.appearing.observe(this.root);
    this.watch = setInterval(() => this.tellDelay(), 1000);
  }

  remove() {
    this.forget.forEach((forget) => forget());
    window.removeEventListener("keydown", this.onKey, true);
    TOUCHES.forEach((name) => window.removeEventListener(name, this.onTouch, true));
    clearTimeout(this.player.timer);
    clearInterval(this.watch);
    this.fitting.disconnect();
    this.appearing.disconnect();
  }

  takeFocus() {
    const active = document.activeElement;
    const typing = active && active.closest("input, textarea, [contenteditable=true]");
    if (!typing) this.root.focus({ preventScroll: true });
  }

  room() {
    return this.root.closest(".jp-WindowedPanel-outer, .jp-LinkedOutputView") || document.documentElement;
  }

  fit() {  // as large as the window shows at once
    const room = this.room() === document.documentElement ? window.innerHeight : this.room().clientHeight;
    const others = this.root.offsetHeight - this.stage.offsetHeight;
    const side = Math.floor(Math.min((this.stage.clientWidth - 8) / 2, room - others - ABOVE));
    if (this.stage.clientWidth && side !== this.side) {
      this.side = side;
      this.player.resize(Math.max(side, SMALLEST));
    }
  }

  decode(place) {  // while its predecessor is on screen; browsers decode images beside the page's own thread
    const pair = this.model.get(place);
    const earlier = this.sheets[place];
    if (!pair || !pair.clip || (earlier && earlier.pair === pair)) return;
    const sheet = createImageBitmap(new Blob([pair.clip], { type: "image/webp" })).catch(() => null);
    this.sheets[place] = { pair, sheet };
    if (earlier) earlier.sheet.then((image) => { if (image && image !== this.player.sheet) image.close(); });
  }

  async show() {
    const { place, turn } = this.model.get("on_screen");
    if (place) this.decode(place);  // its clip may have come in the same message
    const { pair, sheet } = this.sheets[place] || { pair: null, sheet: null };
    const image = await sheet;
    if (this.model.get("on_screen").turn !== turn) return;
    const again = this.id === (pair && pair.id) && this.player.sheet === image;
    Object.assign(this, { id: pair && pair.id, broken: Boolean(pair && !image), saving: null });
    if (!again) this.player.show(image, image && pair);
    this.drawn = performance.now();
    this.enable();
    this.describe();
    requestAnimationFrame(() => {
      if (this.pressed) this.root.dataset.milliseconds = Math.round(performance.now() - this.pressed);
      this.pressed = 0;
      this.root.dataset.shown = turn;
    });
  }

  enable() {
    const asks = Boolean(this.id) && !this.saving;
    this.root.dataset.state = this.saving ? "saving" : this.id ? "asking" : "waiting";
    this.buttons.forEach((button) => { button.disabled = button.matches(".undo") ? Boolean(this.saving) : !asks; });
  }

  describe() {
    const words = this.model.get("words");
    const summary = this.model.get("summary");
    this.task.textContent = words.task || " ";
    this.counts.textContent = words.counts || "";
    this.done.max = words.all || 1;
    this.done.value = Math.min(words.done || 0, words.all || 1);
    const broken = this.broken ? "This clip cannot be shown; answer: can't tell." : "";
    const problem = words.failure || words.problem || broken;
    this.status.classList.toggle("problem", Boolean(problem));
    this.write(this.status, problem || [words.guess, words.said].filter(Boolean).join(" · "));
    const lines = this.id ? [] : [words.state || "", ...summary.map((line) => line.join(": "))];
    this.write(this.state, lines.join("\n"));
    this.help.textContent = "space pause · , . step · 1 2 3 speed";
  }

  write(element, text) {  // a screen reader reads aloud what changes, so only then
    if (element.textContent !== text) element.textContent = text;
  }

  listRecent() {
    const answers = [...this.model.get("recent")].reverse();
    this.recent.replaceChildren(...answers.map(({ id, number, choice, final }) => make(
      "button",
      {
        type: "button", disabled: final, onclick: () => this.send({ do: "revisit", id }),
        title: final ? "training has used this answer" : "go back to this pair and answer it again",
        "aria-label": `Answer ${number}: ${choice}`,
      },
      `${number} ${SIGNS[choice] || ""}`,
    )));
  }

  key(event) {
    const name = KEYS[event.key];
    const presses = event.target.matches("button") && [" ", "Enter"].includes(event.key);
    if (!name || presses || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.repeat && !["back", "forward"].includes(name)) return;
    if (name === "pause") this.player.pause();
    else if (name === "speed") { this.player.speed = Number(event.key); this.player.go(this.player.frame); }
    else if (name === "back" || name === "forward") this.player.step(name === "back" ? -1 : 1);
    else this.act(name);
  }

  act(name) {
    if (name === "undo") return this.send({ do: "undo" });
    const seconds = (performance.now() - this.drawn) / 1000;
    if (!this.id || (this.broken && name !== "skip") || 1000 * seconds < SOONEST_MS) return;
    this.send({ do: "answer", id: this.id, choice: name, seconds });
  }

  send(message) {  // one at a time: the next pair is shown when the answer is on the disk
    if (this.saving) return;
    this.saving = this.pressed = performance.now();
    this.enable();
    this.model.send(message);
  }

  tellDelay() {
    const now = performance.now();
    const silent = Math.round((now - this.heard) / 1000);
    let text = "";
    if (now - this.heard > SILENT_MS) {
      this.root.dataset.state = "lost";
      text = `The kernel has said nothing for ${silent} s. If it was restarted, run the cell again: it goes on here.`;
    } else if (this.saving && now - this.saving > BUSY_MS) {
      text = "Your answer waits for the kernel, which is busy with a cell; it is stored when that ends.";
    } else if (this.root.dataset.state === "lost") this.enable();
    if (text) {
      this.status.classList.add("problem");
      this.write(this.status, text);
    } else this.describe();
  }
}

const render = ({ model, el }) => {
  const view = new View(model, el);
  return () => view.remove();
};

export default { render };
