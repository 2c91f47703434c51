// The gallery as a notebook widget, for anywidget. stage.js and gallery.js stand above this in the same module.
// Pictures come from the kernel when somebody looks at them. Those of the last samples are kept.

const KEPT = 60
const PATIENCE = 20_000 // milliseconds

function picturesOfKernel(model) {
  const asked = new Map() // id → what to do when the kernel has answered
  const found = new Map() // id → promise of addresses
  const idOf = ({ index, small }) => `${small ? 'small' : 'full'} ${index}`

  function receive(answer, buffers) {
    const [done, failed] = asked.get(idOf(answer)) ?? []
    asked.delete(idOf(answer))
    document.getElementById(model.get('still'))?.remove() // the picture for pages without a kernel
    if (answer.error) failed?.(new Error(answer.error))
    else done?.(Object.fromEntries(answer.keys.map((k, i) => [k, URL.createObjectURL(new Blob([buffers[i]]))])))
  }

  function forget(id) {
    const revoke = addresses => { for (const a of Object.values(addresses)) URL.revokeObjectURL(a) }
    found.get(id).then(revoke, () => {})
    found.delete(id)
  }

  function ask(index, small = false) {
    const id = idOf({ index, small })
    if (!found.has(id)) {
      const answer = new Promise((done, failed) => {
        asked.set(id, [done, failed])
        setTimeout(() => failed(new Error('The kernel does not answer: run this cell again.')), PATIENCE)
      })
      answer.catch(() => found.delete(id)) // it may be asked again
      found.set(id, answer)
      model.send({ index, small })
      const full = [...found.keys()].filter(k => k.startsWith('full'))
      if (full.length > KEPT) forget(full[0])
    }
    return found.get(id)
  }

  function stop() {
    model.off('msg:custom', receive)
    for (const id of [...found.keys()]) forget(id)
  }

  model.on('msg:custom', receive)
  return { ask, stop }
}

function render({ model, el }) {
  const host = document.createElement('div')
  host.className = 'dinoinv-gallery'
  host.dataset.lmSuppressShortcuts = 'true'
  el.append(host)
  const { ask, stop } = picturesOfKernel(model)
  dinoinvGallery(host, model.get('shell'), JSON.parse(model.get('data')), ask)
  return stop
}

export default { render }
