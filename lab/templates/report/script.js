'use strict';
const runs = [...document.querySelectorAll('details.one')];
for (const button of document.querySelectorAll('button.copy')) {
  button.onclick = async () => {
    const code = button.parentElement.querySelector('code');
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = 'copied';
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = 'selected';
    }
  };
}
const show = () => {
  const run = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (run?.matches('details')) {
    run.hidden = false;
    run.open = true;
    run.scrollIntoView();
  }
};
addEventListener('hashchange', show);
show();
const form = document.querySelector('form.filter');
if (form) {
  const filter = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.text.toLowerCase().split(' ');
    let shown = 0;
    for (const run of runs) {
      const text = run.querySelector('summary').textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) &&
        ['verdict', 'server', 'client', 'ip', 'on'].every((key) => !wanted[key] || run.dataset[key] === wanted[key]);
      run.hidden = !fits;
      shown += fits;
    }
    for (const row of document.querySelectorAll('.matrix tbody tr')) {
      let some = false;
      for (const badge of row.querySelectorAll('a.badge')) {
        const hidden = document.getElementById(decodeURIComponent(badge.hash.slice(1)))?.hidden;
        badge.classList.toggle('out', Boolean(hidden));
        some ||= !hidden;
      }
      row.hidden = !some;
    }
    form.querySelector('output').textContent = `${shown} of ${runs.length}`;
  };
  form.hidden = false;
  form.oninput = filter;
  form.onsubmit = (event) => event.preventDefault();
  filter();
}
