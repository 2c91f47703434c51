// Pictures of a page: a click shows them large, in a dialog that any click or Escape closes.
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
