// The networks, run by onnxruntime in WebAssembly. Everything comes from the folder of this page, when it is asked for.

const here = name => new URL(name, import.meta.url).href
const WASM = 'ort-wasm-simd-threaded.wasm'

export const about = await (await fetch(here('about.json'))).json()
export const addressOf = here

// The bytes of a file; `heard` is told how many have come
async function bytesOf(name, heard) {
  const answer = await fetch(here(name))
  if (!answer.ok) throw new Error(`${name} did not come (${answer.status}). Load the page again.`)
  const reader = answer.body.getReader(), parts = []
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value)
    heard(part.value.length)
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

let runtime // a promise of the module
function startRuntime(heard) {
  runtime ??= (async () => {
    const [ort, wasm] = await Promise.all([import('./ort.wasm.bundle.min.mjs'), bytesOf(WASM, heard)])
    ort.env.wasm.numThreads = 1
    ort.env.wasm.wasmBinary = wasm
    return ort
  })()
  runtime.catch(() => { runtime = undefined }) // it may be tried again
  return runtime
}

const loaded = new Map() // encoder → promise of its networks

async function load(key, progress) {
  const { files } = about.encoders[key]
  const sizes = [...Object.values(files), ...(runtime ? [] : [about.wasm])]
  const total = sizes.reduce((a, b) => a + b)
  let come = 0
  const heard = n => progress(come += n, total)
  const contents = Promise.all(Object.keys(files).map(name => bytesOf(`${name}.onnx`, heard)))
  const [ort, models] = await Promise.all([startRuntime(heard), contents])
  const sessions = {} // `mini` or `mini-linear` → its session
  for (const [i, name] of Object.keys(files).entries()) sessions[name] = await ort.InferenceSession.create(models[i]) // one after the other
  const grid = about.size/about.unit

  async function run(session, input, output, values, shape) {
    const found = await session.run({ [input]: new ort.Tensor('float32', values, shape) })
    return found[output].data
  }

  return {
    encode: pixels => run(sessions[key], 'pixels', 'tokens', pixels, [1, 3, about.size, about.size]),
    read: async (reader, tokens) => {
      const shape = [1, tokens.length/grid**2, grid, grid]
      return (await run(sessions[`${key}-${reader}`], 'features', 'picture', tokens, shape)).map(v => Math.max(0, Math.min(1, v)))
    },
  }
}

export function networksOf(key, progress) {
  if (!loaded.has(key)) {
    loaded.set(key, load(key, progress))
    loaded.get(key).catch(() => loaded.delete(key))
  }
  return loaded.get(key)
}
