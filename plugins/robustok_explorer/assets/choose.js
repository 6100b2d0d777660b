// Buttons that are chosen: one of them, or many, also by dragging over them. Arrow keys move among them.
const buttons = () => [...element.querySelectorAll('[data-choose] button')];
const group = () => element.querySelector('[data-choose]');
const pressed = (button) => button.getAttribute('aria-pressed') === 'true';
let painting = null;  // while a pointer is down: whether what it passes is chosen or not

function set(button, on) {
  if (group().dataset.choose === 'one') {
    buttons().forEach((other) => other.setAttribute('aria-pressed', String(other === button)));
  } else {
    button.setAttribute('aria-pressed', String(on));
  }
  reach(button);
}

function reach(button) {
  buttons().forEach((other) => { other.tabIndex = other === button ? 0 : -1; });
}

function report() {
  const numbers = buttons().filter(pressed).map((button) => Number(button.dataset.number));
  trigger('pick', { numbers });
}

element.addEventListener('pointerdown', (event) => {
  const button = event.target.closest('[data-choose] button');
  if (!button || event.button !== 0) return;
  painting = !pressed(button);
  set(button, painting);
});
element.addEventListener('pointermove', (event) => {
  if (painting === null || group().dataset.choose === 'one') return;
  const under = document.elementFromPoint(event.clientX, event.clientY);
  const button = under && under.closest('[data-choose] button');
  if (button && element.contains(button)) set(button, painting);
});
window.addEventListener('pointerup', () => {
  if (painting === null) return;
  painting = null;
  report();
});
window.addEventListener('pointercancel', () => { painting = null; });
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-choose] button');
  if (!button || event.detail !== 0) return;  // a pointer was handled above; this is the keyboard
  set(button, !pressed(button));
  report();
});
element.addEventListener('keydown', (event) => {
  const button = event.target.closest('[data-choose] button');
  if (!button) return;
  const columns = Number(group().dataset.columns);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = buttons();
  const next = all[all.indexOf(button) + step];
  if (next) { reach(next); next.focus(); }
});
