// ---- light or dark, as chosen here; the head of the page has set it already
document.querySelector('.scheme').addEventListener('click', () => {
  const root = document.documentElement, dark = root.dataset.bsTheme !== 'dark'
  for (const o of document.querySelectorAll('[data-bs-theme]')) o.dataset.bsTheme = dark ? 'dark' : 'light' // the header has one of its own
  root.classList.toggle('quarto-dark', dark)
  try { localStorage.setItem('scheme', root.dataset.bsTheme) } catch { /* a private window */ }
})

// ---- the menu: the entry of this page is in sight; on a phone, Escape and a second click close it (smalldocs.js opens it)
const bar = document.querySelector('#quarto-sidebar'), menu = document.querySelector('.quarto-btn-toggle')
const show = () => {
  const active = bar.querySelector('.active')
  const below = active ? active.getBoundingClientRect().bottom - bar.getBoundingClientRect().bottom : 0
  if (below > -40) bar.scrollTop += below + bar.clientHeight/2
}
show()
new MutationObserver(() => {
  const open = bar.classList.contains('show')
  if (menu.getAttribute('aria-expanded') === String(open)) return
  menu.setAttribute('aria-expanded', open)
  document.documentElement.classList.toggle('menu-open', open)
  if (open) show()
}).observe(bar, { attributes: true, attributeFilter: ['class'] })
document.addEventListener('keydown', e => {
  if (e.key === 'Escape' && bar.classList.contains('show')) { menu.click(); menu.focus() }
})
const contents = document.querySelector('details.contents')
contents?.addEventListener('click', e => { if (e.target.matches('a')) contents.open = false })

// ---- pictures: a click shows them large, in a dialog that any click or Escape closes
for (const img of document.querySelectorAll('main img')) {
  if (img.closest('a, .dinoinv-gallery')) continue
  img.addEventListener('click', () => {
    const dialog = document.createElement('dialog')
    dialog.className = 'picture'
    dialog.append(img.cloneNode())
    dialog.addEventListener('click', () => dialog.close())
    dialog.addEventListener('close', () => dialog.remove())
    document.body.append(dialog)
    dialog.showModal()
  })
}
