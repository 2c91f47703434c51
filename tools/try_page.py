"""What the page `try` of the site needs beside its HTML: networks as ONNX files, samples, and the runtime from npm.

    python tools/try_page.py OUT    write the folder OUT; what was made before by the same code comes from build/try

Two encoders, `mini` and its control, are read by the same three readers: the linear probe, the scaled probe, and the trained decoder. All come from
the demo that the chapters use (`sample_demo`), which is made on the first call and found again, so no file of weights lies in the repository.
"""
import ast, json, shutil, subprocess, sys, tarfile, tempfile, time
from pathlib import Path

import numpy as np, torch
from PIL import Image
from dinoinv.core import digest, read_json, remove, replacing
from dinoinv.export import export_onnx
from dinoinv.features import load_encoder
from dinoinv.gallery import sample_demo
from dinoinv.inference import ERROR_TOP, inferno, to_image
from dinoinv.photos import to_tensor
from dinoinv.runs import load_decoder
from dinoinv.scores import average, image_metrics
from dinoinv.textures import make_texture, sample_textures

root = Path(__file__).parent.parent
package,sources = root/'dinoinv',root/'tools/site/try'
RUNTIME = 'onnxruntime-web@1.30.0'
RUNTIME_FILES = 'ort.wasm.bundle.min.mjs','ort-wasm-simd-threaded.wasm'
SIZE = 252           # px, what the networks take
ENCODERS = {'mini': 'mini', 'control': 'untrained:mini'}
SEEN,TESTED = 77,78  # seeds of the samples, and of the textures that the readers are scored on; the demo has another
SAMPLES = 'carpet','kilim','brick','terrazzo','pebbles','leaves','rust','tartan'
MOST = 16e6          # bytes of the networks of one encoder

def batch(textures): return torch.stack([to_tensor(t.image) for t in textures])

def readers_of(name):
    "The three readers of the demo of an encoder, the best first"
    decoder,probes = load_decoder(sample_demo(name)/'run/best', 'cpu')
    return dict(decoder=decoder.eval(), scaled=probes['scaled_probe'], linear=probes['linear_probe'])

def network(path):
    "The network in a file: one batch in, one out"
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda x: torch.cat([torch.from_numpy(session.run(None, {name: one[None].numpy()})[0]) for one in x])

@torch.no_grad()
def networks(out, encoders, readers):
    "Export and score; returns what the page says of each encoder"
    test = batch(sample_textures(8, TESTED, SIZE))
    about = {}
    for key,enc in encoders.items():
        export_onnx(None, out/f'{key}.onnx', SIZE, enc, half=True)
        for reader,module in readers[key].items(): export_onnx(module, out/f'{key}-{reader}.onnx', None, half=True)
        files = {o: (out/f'{o}.onnx').stat().st_size for o in (key, *(f'{key}-{reader}' for reader in readers[key]))}
        assert sum(files.values()) < MOST, f'{files}: too much to download'
        tokens = network(out/f'{key}.onnx')(test)
        exact = enc.encode(test)
        scores = {}
        for reader,module in readers[key].items():
            halved = network(out/f'{key}-{reader}.onnx')(tokens)
            full,half = (average(image_metrics(pictures.clamp(0,1), test)) for pictures in (module(exact), halved))
            scores[reader] = half['psnr']
            print(f"{key}, {reader}: {full['psnr']:.3f} dB in PyTorch, {half['psnr']:.3f} dB as the page runs it "
                  f'(half-precision weights), {len(test)} other textures')
            assert abs(full['psnr']-half['psnr']) < .05
        about[key] = dict(name=enc.name, weights=enc.weights, channels=enc.dim, files=files, scores=scores)
        print(f'{key}: {sum(files.values())/1e6:.1f} MB')
    return about

def samples(out):
    "Eight textures, larger than what is read, so that there is something to choose from; and small ones for the buttons"
    for name in SAMPLES:
        image = make_texture(name, 0, SEEN, 2*SIZE)
        image.save(out/f'{name}.webp', lossless=True, method=0) # slower methods save a tenth
        image.resize((96,96), Image.LANCZOS).save(out/f'{name}-small.webp', quality=85)

@torch.no_grad()
def still(out, enc, readers):
    "What stands there before anything is loaded: the first sample, and what PyTorch makes of it in full precision"
    image,edge = Image.open(out/f'{SAMPLES[0]}.webp'),SIZE//2
    target = image.crop((edge, edge, edge+SIZE, edge+SIZE)) # the centre
    x = to_tensor(target)[None]
    target.save(out/'still-target.webp', lossless=True)
    scores = {}
    for reader,module in readers.items():
        picture = module(enc.encode(x)).clamp(0,1)
        to_image(picture[0]).save(out/f'still-{reader}.webp', lossless=True)
        row = image_metrics(picture, x)[0]
        scores[reader] = dict(psnr=row['psnr'], ssim=row['ssim'])
    return scores

def runtime(out):
    "The runtime's two files, from npm"
    with tempfile.TemporaryDirectory() as tmp:
        if not shutil.which('npm'): sys.exit('the page `try` takes its runtime from npm: install Node.js')
        subprocess.run(['npm', 'pack', '--silent', RUNTIME], cwd=tmp, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(tmp).glob('*.tgz'))) as tar:
            for name in RUNTIME_FILES: (out/name).write_bytes(tar.extractfile(f'package/dist/{name}').read())

def make(out):
    "All that does not change with the page's script"
    out.mkdir()
    encoders = {key: load_encoder(name, device='cpu') for key,name in ENCODERS.items()}
    readers = {key: readers_of(name) for key,name in ENCODERS.items()}
    about = dict(encoders=networks(out, encoders, readers), size=SIZE, unit=14, samples=SAMPLES, top=ERROR_TOP, runtime=RUNTIME)
    meta = read_json(sample_demo('mini')/'pairs/meta.json')
    about['fitted'] = dict(n=len(meta['splits']['train']), size=meta['encoder']['patch'])
    samples(out)
    about['still'] = still(out, encoders['mini'], readers['mini'])
    about['colours'] = [bytes(c).hex() for c in inferno(np.linspace(0, ERROR_TOP, 256))]
    runtime(out)
    about['wasm'] = (out/RUNTIME_FILES[1]).stat().st_size
    (out/'about.json').write_text(json.dumps(about))

def depends_on(path, found):
    "Collect in `found` a file, the modules of the package that it imports, and those that they import"
    if path in found or not path.exists(): return found
    found.append(path)
    for o in ast.walk(ast.parse(path.read_text())):
        if not isinstance(o, ast.ImportFrom): continue
        parent,_,name = (o.module or '').rpartition('.')
        if parent == 'dinoinv' or o.level: depends_on(package/f'{name}.py', found)
    return found

def build(out):
    "The folder that the page takes everything from"
    out = Path(out)
    made_from = sorted(depends_on(Path(__file__), [])) + sorted((package/'mini').iterdir())
    made = root/'build/try'/digest(b''.join(path.read_bytes() for path in made_from))[:12]
    start = time.monotonic()
    if not made.exists():
        with replacing(made) as new: make(new)
        for old in made.parent.iterdir():
            if old != made: remove(old)
    shutil.copytree(made, out, dirs_exist_ok=True)
    for path in [*sources.iterdir(), package/'assets/stage.js', package/'assets/gallery.css']: shutil.copy(path, out)
    print(f'{out}: {sum(p.stat().st_size for p in out.iterdir())/1e6:.1f} MB, in {time.monotonic()-start:.0f} s')

if __name__=='__main__': build(sys.argv[1])
